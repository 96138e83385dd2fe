//! `lazystore virtiofs`.

use std::{os::unix::net::UnixListener, path::PathBuf, sync::Arc, thread};

use anyhow::{Context as _, bail};
use clap::Args;
use futures::FutureExt as _;
use tokio::runtime::Runtime;
use tracing::info;

use super::{
    GlobalOptions,
    access_log::AccessOptions,
    eyes::EyesOptions,
    signals::{Asked, Signals},
    stack::Stack,
    supervised::{self, ServiceOptions, Supervised},
    view::ViewOptions,
};
use crate::{
    mount::virtiofs,
    observe::{Role, event},
    serve::{Listener, SocketFile},
    vfs::{Tree, Vfs},
};

/// How many queues there are if nothing is said: more than a guest's processors are of no use.
const QUEUES_DEFAULT_MAX: u16 = 8;

/// Serve the store to virtual machines over virtiofs, until Ctrl-C or SIGTERM.
#[derive(Debug, Args)]
#[command(after_help = "Example:
  lazystore virtiofs --list-root /run/store.sock
  qemu-system-x86_64 … -object memory-backend-memfd,id=mem,size=1G,share=on -machine q35,memory-backend=mem \\
    -chardev socket,id=store,path=/run/store.sock -device vhost-user-fs-pci,chardev=store,tag=store
and in the guest:
  mount -t virtiofs store /nix/store

Guests may come and go, and several may be served at once. A socket that systemd passes is used instead of SOCKET.")]
pub(super) struct Virtiofs {
    /// Where machine monitors connect; a socket that nobody serves any more is replaced
    #[arg(value_name = "SOCKET")]
    socket: Option<PathBuf>,

    #[command(flatten)]
    view: ViewOptions,

    #[command(flatten)]
    access: AccessOptions,

    #[command(flatten)]
    eyes: EyesOptions,

    /// How many queues of requests a guest may have [default: the number of processors, at most 8]
    #[arg(long, value_name = "N",
          value_parser = clap::value_parser!(u16).range(1..=i64::from(virtiofs::QUEUES_MAX)))]
    queues: Option<u16>,

    #[command(flatten)]
    service: ServiceOptions,
}

impl Virtiofs {
    pub(super) fn run(mut self, options: &GlobalOptions, runtime: &Runtime) -> anyhow::Result<()> {
        self.socket = self.socket.take().or_else(|| self.view.take_place());
        let _context = runtime.enter();
        let mut signals = Signals::new()?;
        let eyes = self.eyes.open(Role::Virtiofs)?;
        let (file, listener) = self.listener()?;
        let mut stack = Stack::open(options)?;
        let stores = stack.stores();
        let visible = runtime.block_on(self.view.visible(&stores, []))?;
        // What one guest has brought here is here for all; what it may refer to is its own.
        let (tree, vfs_options) = (Arc::new(Tree::new(&stores)), self.view.vfs());
        tree.tell();
        let observer = self.access.observer(false, &visible)?;
        let new_vfs = Arc::new(move || {
            let vfs = Vfs::of(tree.clone(), visible.clone(), vfs_options);
            Arc::new(vfs.observed_by(observer.clone()))
        });
        eyes.start(runtime.handle());
        let server = virtiofs::serve(listener, self.queues(), new_vfs, runtime.handle().clone())
            .context("cannot serve guests")?;
        info!(event = event::LISTENING, socket = ?self.socket, "waiting for guests; Ctrl-C ends");
        let supervised = Supervised::from_env();
        let guests = server.guests();
        let accepting = server.guests();
        let describe = move || format!("waiting for guests; {} connected", guests.connected());
        let is_alive = move || {
            let is_accepting = accepting.is_accepting();
            async move { is_accepting && supervised::runtime_runs().await }.boxed()
        };
        supervised.ready(Box::new(describe), Box::new(is_alive));
        while runtime.block_on(signals.next()) == Asked::Reload {
            supervised.reload(|| stack.reload());
        }
        info!(event = event::STOPPING, "stopping");
        supervised.stopping(self.service.drain);
        // While it still listens.
        drop(file);
        server.stop(self.service.drain);
        Ok(())
    }

    /// The socket, and its file if it is ours to remove.
    fn listener(&self) -> anyhow::Result<(Option<SocketFile>, UnixListener)> {
        let mut passed = supervised::passed()?;
        match (passed.pop(), passed.pop()) {
            (Some(_), Some((name, _))) => {
                bail!("there is one socket for guests: {name} is one too many")
            }
            (Some((_, Listener::Unix(file, listener))), None) => {
                return Ok((file, listener));
            }
            (Some((name, Listener::Tcp(_))), None) => {
                bail!(
                    "cannot use {name}: machine monitors need a unix socket, and it is a TCP socket"
                )
            }
            (None, _) => {}
        }
        let Some(path) = &self.socket else {
            bail!("say where machine monitors connect: lazystore virtiofs SOCKET");
        };
        match Listener::unix(path)
            .with_context(|| format!("cannot listen on {}", path.display()))?
        {
            Listener::Unix(file, listener) => Ok((file, listener)),
            Listener::Tcp(_) => bail!("{} is no unix socket", path.display()),
        }
    }

    fn queues(&self) -> u16 {
        self.queues.unwrap_or_else(|| {
            let processors = thread::available_parallelism().map_or(1, usize::from);
            u16::try_from(processors).unwrap_or(QUEUES_DEFAULT_MAX).min(QUEUES_DEFAULT_MAX)
        })
    }
}
