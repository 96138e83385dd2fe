//! `lazystore daemon`.

use std::{fs, io, os::unix::fs::FileTypeExt as _, path::Path};

use anyhow::{Context as _, bail};
use clap::Args;
use futures::future::try_join_all;
use listenfd::ListenFd;
use tokio::{
    net::{TcpListener, UnixListener, UnixStream},
    signal::unix::{SignalKind, signal},
    sync::watch,
};
use tracing::info;

use super::GlobalOptions;
use crate::serve::grpc::{self, Listener};

const DEFAULT_LISTEN: &str = "[::1]:8000";

/// Serve the store to others over gRPC, in both dialects.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  lazystore daemon
  lazystore daemon --listen unix:/run/lazystore.sock --listen 127.0.0.1:8000

A socket that systemd passes is used instead of the default.")]
pub(super) struct Daemon {
    /// Where to listen: host:port or unix:/path; may be repeated [default: [::1]:8000]
    #[arg(long, value_name = "ADDR")]
    listen: Vec<String>,
}

impl Daemon {
    pub(super) async fn run(&self, options: &GlobalOptions) -> anyhow::Result<()> {
        let mut interrupt = signal(SignalKind::interrupt())?;
        let mut terminate = signal(SignalKind::terminate())?;
        let stores = options.open()?;
        let mut listeners = passed_by_systemd()?;
        match self.listen.as_slice() {
            [] if listeners.is_empty() => listeners.push(bind(DEFAULT_LISTEN).await?),
            addresses => {
                for address in addresses {
                    listeners.push(bind(address).await?);
                }
            }
        }
        let (stop, stopping) = watch::channel(false);
        let servers = try_join_all(listeners.into_iter().map(|(address, listener)| {
            info!(%address, "listening");
            let mut stopping = stopping.clone();
            grpc::serve(listener, stores.clone(), async move {
                // An error means that the sender is gone, which is a reason to stop too.
                let _ = stopping.wait_for(|stop| *stop).await;
            })
        }));
        let mut servers = std::pin::pin!(servers);
        tokio::select! {
            ended = &mut servers => {
                ended.context("cannot go on serving")?;
                bail!("all listeners were closed");
            }
            _ = interrupt.recv() => {}
            _ = terminate.recv() => {}
        }
        info!("stopping: requests under way are finished, a second signal ends them");
        stop.send_replace(true);
        tokio::select! {
            ended = &mut servers => { ended.context("cannot end cleanly")?; }
            _ = interrupt.recv() => {}
            _ = terminate.recv() => {}
        }
        stores.blobs.sync().await?;
        for address in &self.listen {
            if let Some(path) = address.strip_prefix("unix:") {
                let _ = fs::remove_file(path);
            }
        }
        Ok(())
    }
}

async fn bind(address: &str) -> anyhow::Result<(String, Listener)> {
    let failed = || format!("cannot listen on {address}");
    let listener = match address.strip_prefix("unix:") {
        Some(path) => {
            remove_dead_socket(Path::new(path)).await.with_context(failed)?;
            Listener::Unix(UnixListener::bind(path).with_context(failed)?)
        }
        None => Listener::Tcp(TcpListener::bind(address).await.with_context(failed)?),
    };
    // Port 0 means any: say which one it became.
    let address = match &listener {
        Listener::Tcp(listener) => listener.local_addr()?.to_string(),
        Listener::Unix(_) => address.to_owned(),
    };
    Ok((address, listener))
}

/// A socket that a killed daemon left behind would keep the next one from starting.
async fn remove_dead_socket(path: &Path) -> io::Result<()> {
    let is_socket = fs::symlink_metadata(path).is_ok_and(|found| found.file_type().is_socket());
    if is_socket && UnixStream::connect(path).await.is_err() {
        fs::remove_file(path)?;
    }
    Ok(())
}

fn passed_by_systemd() -> anyhow::Result<Vec<(String, Listener)>> {
    let mut passed = ListenFd::from_env();
    let mut listeners = Vec::new();
    for index in 0..passed.len() {
        let name = format!("socket {index} from systemd");
        if let Ok(Some(listener)) = passed.take_unix_listener(index) {
            listener.set_nonblocking(true)?;
            listeners.push((name, Listener::Unix(UnixListener::from_std(listener)?)));
        } else if let Some(listener) = passed.take_tcp_listener(index)? {
            listener.set_nonblocking(true)?;
            listeners.push((name, Listener::Tcp(TcpListener::from_std(listener)?)));
        }
    }
    Ok(listeners)
}
