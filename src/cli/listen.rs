//! Listening, and stopping: what `daemon` and `serve` share.

use std::{future::Future, io, net::ToSocketAddrs as _, os::fd::OwnedFd, path::Path};

use anyhow::{Context as _, bail};
use futures::future::{BoxFuture, FutureExt as _, try_join_all};
use listenfd::ListenFd;
use tokio::sync::watch;
use tracing::info;

use super::signals::Signals;
use crate::serve::Listener;

/// Where to listen, each with its name: at `addresses`, and on what systemd passes; without both at `default`.
pub(super) fn listeners(
    addresses: &[String],
    default: &str,
) -> anyhow::Result<Vec<(String, Listener)>> {
    let mut listeners = passed_by_systemd()?;
    match addresses {
        [] if listeners.is_empty() => listeners.push(bind(default)?),
        addresses => {
            for address in addresses {
                listeners.push(bind(address)?);
            }
        }
    }
    Ok(listeners)
}

/// Serves on all listeners, until a signal comes and what is under way is finished, or a second one comes.
pub(super) async fn serve_all<F>(
    listeners: Vec<(String, Listener)>,
    mut signals: Signals,
    serve: impl Fn(Listener, BoxFuture<'static, ()>) -> F,
) -> anyhow::Result<()>
where
    F: Future<Output = io::Result<()>>,
{
    let (stop, stopping) = watch::channel(false);
    let servers = try_join_all(listeners.into_iter().map(|(address, listener)| {
        info!(%address, "listening");
        let mut stopping = stopping.clone();
        let stopped = async move {
            // An error means that the sender is gone, which is a reason to stop too.
            let _ = stopping.wait_for(|stop| *stop).await;
        };
        serve(listener, stopped.boxed())
    }));
    let mut servers = std::pin::pin!(servers);
    tokio::select! {
        ended = &mut servers => {
            ended.context("cannot go on serving")?;
            bail!("all listeners were closed");
        }
        () = signals.next() => {}
    }
    info!("stopping: requests under way are finished, a second signal ends them");
    stop.send_replace(true);
    tokio::select! {
        ended = &mut servers => { ended.context("cannot end cleanly")?; }
        () = signals.next() => {}
    }
    Ok(())
}

pub(super) fn bind(address: &str) -> anyhow::Result<(String, Listener)> {
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
