//! `lazystore mount`.

use std::{
    fs,
    path::{Path, PathBuf},
    sync::Arc,
    thread,
    time::Duration,
};

use anyhow::{Context as _, bail};
use clap::Args;
use tokio::{runtime::Runtime, sync::oneshot, time::timeout};
use tracing::{debug, info, warn};

use super::{
    GlobalOptions, Usage,
    access_log::AccessOptions,
    ask, control,
    eyes::EyesOptions,
    import::import_all,
    signals::{Asked, Signals},
    stack::Stack,
    supervised::{self, ServiceOptions, Supervised},
    view::ViewOptions,
    watchdog,
};
use crate::{
    mount::{
        IoMode, Session, SessionOptions, busy,
        mountpoint::{self, Mountpoint},
    },
    observe::{Role, event},
    vfs::{Ino, Tree, Vfs},
};

/// How long the threads may take to see that the mount is gone.
const THREADS_GRACE: Duration = Duration::from_secs(2);

/// Fewer threads than this would let one that waits for the local disk hold up the others.
const THREADS_MIN: usize = 4;

/// Mount the store on a directory until Ctrl-C, SIGTERM or umount.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  lazystore mount --import ./src --list-root /tmp/store
  lazystore mount --store grpc+unix:///run/lazystore.sock --allow-other /nix/store
  lazystore mount --closure-of /nix/store/…-hello-2.12 -- /build/store")]
pub(super) struct Mount {
    /// The directory to mount on; created if it does not exist
    #[arg(value_name = "MOUNTPOINT", required_unless_present_any = ["only", "closure_of"])]
    mountpoint: Option<PathBuf>,

    /// Import a file or directory before mounting; may be repeated
    #[arg(long, value_name = "PATH")]
    import: Vec<PathBuf>,

    #[command(flatten)]
    view: ViewOptions,

    #[command(flatten)]
    access: AccessOptions,

    #[command(flatten)]
    eyes: EyesOptions,

    /// Let other users in, too (users other than root need user_allow_other in /etc/fuse.conf)
    #[arg(long)]
    allow_other: bool,

    /// Who opens and reads files that are here
    #[arg(long, value_name = "MODE", value_enum, default_value_t)]
    io_mode: IoMode,

    /// How many threads answer the kernel [default: the number of processors, at least 4]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=256))]
    threads: Option<u16>,

    #[command(flatten)]
    service: ServiceOptions,
}

impl Mount {
    pub(super) fn run(mut self, options: &GlobalOptions, runtime: &Runtime) -> anyhow::Result<()> {
        let place = self.mountpoint.take().or_else(|| self.view.take_place());
        let place = place.ok_or(Usage("MOUNTPOINT is missing: the directory to mount on"))?;
        // Before anything is mounted, so that no signal finds it unprepared.
        let mut signals = {
            let _context = runtime.enter();
            Signals::new()?
        };
        let eyes = self.eyes.open(Role::Mount)?;
        let mut stack = {
            let _context = runtime.enter();
            Stack::open(options)?
        };
        let stores = stack.stores();
        let mut imported = Vec::new();
        import_all(&self.import, None, &stores, options, runtime, |import| {
            imported.push(import.path_info.store_path.clone());
            Ok(())
        })?;
        let visible = runtime.block_on(self.view.visible(&stores, imported.iter().cloned()))?;
        let observer = self.access.observer(true, &visible)?;
        let tree = Arc::new(Tree::new(&stores));
        tree.tell();
        let vfs = Vfs::of(tree, visible, self.view.vfs());
        let vfs = Arc::new(vfs.observed_by(observer));
        for store_path in imported {
            // So that the root lists it, whatever else it lists.
            let name = store_path.to_string();
            let seen = runtime.block_on(vfs.lookup(Ino::ROOT, name.as_bytes()))?;
            vfs.forget(seen.ino, 1);
        }

        eyes.start(runtime.handle());
        let created = create_directory(&place)?;
        let result = self.serve(&place, vfs, runtime, &mut signals, &mut stack);
        if created {
            // It was empty when we made it. If it is not any more, it is not ours.
            let _ = fs::remove_dir(&place);
        }
        result
    }

    fn serve(
        &self,
        place: &Path,
        vfs: Arc<Vfs>,
        runtime: &Runtime,
        signals: &mut Signals,
        stack: &mut Stack<'_>,
    ) -> anyhow::Result<()> {
        let (mountpoint, device, stale) = mountpoint::mount(place, self.allow_other)?;
        if stale {
            warn!(
                event = event::STALE_MOUNT,
                mountpoint = %place.display(),
                "detached a dead mount that an earlier process had left here"
            );
        }
        let is_local = vfs.is_local() || runtime.block_on(vfs.lends());
        let watchdog = watchdog::start(mountpoint.path()).inspect_err(|error| {
            warn!(event = event::NO_CRASH_GUARD, "a crash would leave a dead mount: {error:#}")
        });
        let session = Session::start(
            device,
            vfs.clone(),
            runtime.handle(),
            SessionOptions { threads: self.threads(), io_mode: self.io_mode },
        )
        .inspect_err(|_| {
            if let Err(error) = mountpoint.detach() {
                warn!(event = event::MOUNT_LEFT, %error, "a dead mount is left behind");
            }
        })
        .context("cannot mount")?;
        if let Err(error) = mountpoint.read_further_ahead(is_local) {
            debug!(%error, "the kernel reads ahead as far as it does by default");
        }
        control::answer(&mountpoint, runtime.handle());
        info!(
            event = event::MOUNTED,
            mountpoint = %mountpoint.path().display(),
            "mounted; Ctrl-C unmounts"
        );
        let supervised = self.supervise(&mountpoint, vfs, runtime)?;

        let (ended_tx, mut ended) = oneshot::channel();
        thread::spawn(move || {
            session.join();
            let _ = ended_tx.send(());
        });
        runtime.block_on(async {
            loop {
                tokio::select! {
                    _ = &mut ended => {
                        info!(event = event::UNMOUNTED, "unmounted by somebody else");
                        return Ok(());
                    }
                    asked = signals.next() => match asked {
                        Asked::Reload => supervised.reload(|| stack.reload()),
                        Asked::Stop => break,
                    }
                }
            }
            supervised.stopping(self.service.drain);
            unmount(&mountpoint, &mut ended, signals, self.service.drain).await
        })?;
        // Its pipe closes with it.
        drop(watchdog);
        Ok(())
    }

    /// Tells the supervisor once the mount answers, and from then on how it is.
    fn supervise(
        &self,
        mountpoint: &Mountpoint,
        vfs: Arc<Vfs>,
        runtime: &Runtime,
    ) -> anyhow::Result<Supervised> {
        let supervised = Supervised::from_env();
        let probe = mountpoint.probe();
        if supervised.is_told() && !ask::answers(&probe) {
            bail!("the mount does not answer");
        }
        let path = mountpoint.path().display().to_string();
        let describe =
            move || format!("serving {path}; the kernel knows {} inodes", vfs.statfs().files);
        let is_alive = supervised::asked_by_a_thread(move || ask::answers(&probe));
        let _context = runtime.enter();
        supervised.ready(Box::new(describe), is_alive);
        Ok(supervised)
    }

    fn threads(&self) -> usize {
        match self.threads {
            Some(threads) => usize::from(threads),
            None => thread::available_parallelism().map_or(1, usize::from).max(THREADS_MIN),
        }
    }
}

/// Makes the directory if there is none. `true` if it was made.
fn create_directory(path: &Path) -> anyhow::Result<bool> {
    match fs::create_dir(path) {
        Ok(()) => Ok(true),
        // A dead mount cannot even be looked at; it is dealt with later.
        Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => Ok(false),
        Err(error) => {
            Err(error).with_context(|| format!("cannot create the directory {}", path.display()))
        }
    }
}

/// Unmounts, or, if somebody uses the mount, says who, and detaches it.
async fn unmount(
    mountpoint: &Mountpoint,
    ended: &mut oneshot::Receiver<()>,
    signals: &mut Signals,
    drain: Duration,
) -> anyhow::Result<()> {
    match mountpoint.unmount() {
        Ok(()) => {
            info!(event = event::UNMOUNTED, "unmounted");
            // The threads hold the store, which is left tidy by whoever lets go of it last.
            let _ = timeout(THREADS_GRACE, ended).await;
            return Ok(());
        }
        Err(mountpoint::Error::Busy(_)) => {}
        Err(error) => return Err(error.into()),
    }
    let device = mountpoint.device();
    let users = tokio::task::spawn_blocking(move || busy::users(device)).await?;
    for user in users.unwrap_or_default() {
        warn!(event = event::MOUNT_IN_USE, %user, "the mount is in use");
    }
    mountpoint.detach()?;
    warn!(
        event = event::MOUNT_DETACHED,
        "detached while in use: served for {} more seconds, or until the next signal",
        drain.as_secs_f64()
    );
    tokio::select! {
        _ = timeout(drain, ended) => {}
        () = signals.stop() => {}
    }
    Ok(())
}
