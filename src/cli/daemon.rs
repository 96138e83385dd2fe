//! `lazystore daemon`.

use std::{net::ToSocketAddrs as _, os::fd::OwnedFd, path::Path};

use anyhow::{Context as _, bail};
use clap::Args;
use futures::future::try_join_all;
use listenfd::ListenFd;
use tokio::{
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
            [] if listeners.is_empty() => listeners.push(bind(DEFAULT_LISTEN)?),
            addresses => {
                for address in addresses {
                    listeners.push(bind(address)?);
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
        Ok(())
    }
}

fn bind(address: &str) -> anyhow::Result<(String, Listener)> {
    let failed = || format!("cannot listen on {address}");
    if let Some(path) = address.strip_prefix("unix:") {
        let listener = Listener::unix(Path::new(path)).with_context(failed)?;
        return Ok((address.to_owned(), listener));
    }
    let resolved = address.to_socket_addrs().with_context(failed)?.next();
    let listener = Listener::tcp(resolved.with_context(failed)?).with_context(failed)?;
    // Port 0 means any: say which one it became.
    let bound = listener.local_address().map_or_else(|| address.to_owned(), |a| a.to_string());
    Ok((bound, listener))
}

fn passed_by_systemd() -> anyhow::Result<Vec<(String, Listener)>> {
    let mut passed = ListenFd::from_env();
    let mut listeners = Vec::new();
    for index in 0..passed.len() {
        // Whichever kind it is, `from_fd` finds out again; this only takes it out.
        let socket = match passed.take_unix_listener(index) {
            Ok(socket) => socket.map(OwnedFd::from),
            Err(_) => passed.take_tcp_listener(index)?.map(OwnedFd::from),
        };
        if let Some(socket) = socket {
            listeners.push((format!("socket {index} from systemd"), Listener::from_fd(socket)?));
        }
    }
    Ok(listeners)
}
