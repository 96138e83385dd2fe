//! Listening, and stopping: what `daemon` and `serve` share.

use std::{io, net::ToSocketAddrs as _, path::Path};

use anyhow::{Context as _, bail};
use futures::future::{FutureExt as _, try_join_all};
use tracing::{info, warn};

use super::{
    signals::{Asked, Signals},
    supervised::{self, Supervised},
};
use crate::{
    observe::event,
    serve::{Listener, Running},
};

/// Where to listen, each with its name: at `addresses`, and on what systemd passes; without both at `default`.
pub(super) fn listeners(
    addresses: &[String],
    default: &str,
) -> anyhow::Result<Vec<(String, Listener)>> {
    let mut listeners = supervised::passed()?;
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

/// Serves on all listeners, until a signal comes and what is under way is finished, or takes longer than it may, or a
/// second signal comes. Meanwhile files are read again by `reload`.
pub(super) async fn serve_all<F>(
    listeners: Vec<(String, Listener)>,
    mut signals: Signals,
    running: Running,
    serve: impl Fn(Listener, Running) -> F,
    mut reload: impl FnMut() -> anyhow::Result<()>,
) -> anyhow::Result<()>
where
    F: Future<Output = io::Result<()>>,
{
    let supervised = Supervised::from_env();
    let names: Vec<_> = listeners.iter().map(|(name, _)| name.as_str()).collect();
    let listening = format!("listening on {}", names.join(", "));
    let servers = try_join_all(listeners.into_iter().map(|(address, listener)| {
        info!(event = event::LISTENING, %address, "listening");
        serve(listener, running.clone())
    }));
    let mut servers = std::pin::pin!(servers);
    // Whoever connects from now on is answered: the sockets are open.
    let count = running.clone();
    let describe = move || format!("{listening}; {} connections", count.connections());
    supervised.ready(Box::new(describe), Box::new(|| supervised::runtime_runs().boxed()));
    loop {
        tokio::select! {
            ended = &mut servers => {
                ended.context("cannot go on serving")?;
                bail!("all listeners were closed");
            }
            asked = signals.next() => match asked {
                Asked::Reload => supervised.reload(&mut reload),
                Asked::Stop => break,
            }
        }
    }
    info!(
        event = event::STOPPING,
        "stopping: requests under way are finished, a second signal ends them"
    );
    supervised.stopping(running.drain());
    running.stop();
    tokio::select! {
        ended = &mut servers => { ended.context("cannot end cleanly")?; }
        () = signals.stop() => {}
    }
    match running.cut_off() {
        0 => {}
        connections => warn!(
            event = event::CONNECTIONS_CUT,
            connections,
            drain_seconds = running.drain().as_secs_f64(),
            "cut off: connections whose requests did not end in time"
        ),
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
