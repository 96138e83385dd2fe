//! Takes connections, a bounded number of them.

use std::{io, sync::Arc, time::Duration};

use axum::Router;
use hyper_util::{
    rt::{TokioExecutor, TokioIo, TokioTimer},
    server::{conn::auto, graceful::GracefulShutdown},
    service::TowerToHyperService,
};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    sync::Semaphore,
    time::{sleep, timeout},
};

use super::{BinaryCache, answer::answer};
use crate::{
    observe::event,
    serve::{Listener, Running, listener::Bound, running::Counted},
};

/// What clients may cost.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Limits {
    /// How many connections there may be. Further ones wait to be taken.
    pub(crate) connections_max: usize,
    /// How long a client may take to say what it wants, also when it has nothing to ask.
    pub(crate) head_timeout: Duration,
    /// How much may stand before the contents of a request, in bytes.
    pub(crate) head_bytes_max: usize,
    /// How many requests of one connection are worked on at the same time.
    pub(crate) connection_streams_max: u32,
}

/// What clients of a binary cache may cost.
const LIMITS: Limits = Limits {
    connections_max: 1024,
    head_timeout: Duration::from_secs(60),
    head_bytes_max: 64 << 10,
    connection_streams_max: 128,
};

/// How often an idle client is asked whether it lives, and how long it may take to react.
const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(30);

/// How long to wait where the system has no room for another connection.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Answers for `cache` on `listener` until it is told to stop, and lets running answers end for a bounded time.
pub async fn serve(
    listener: Listener,
    cache: Arc<BinaryCache>,
    running: Running,
) -> io::Result<()> {
    let router = Router::new().fallback(answer).with_state(cache);
    serve_router(listener, router, LIMITS, running).await
}

/// Answers by `router`.
pub(crate) async fn serve_router(
    listener: Listener,
    router: Router,
    limits: Limits,
    running: Running,
) -> io::Result<()> {
    let (stopped, drain) = (running.stopped(), running.drain());
    let (graceful, places) =
        (GracefulShutdown::new(), Arc::new(Semaphore::new(limits.connections_max)));
    let server = Server { router, graceful, running, places, limits };
    let (listener, file) = listener.into_tokio()?;
    let take_all = async {
        loop {
            let place = server.places.clone().acquire_owned().await;
            let place = place.expect("nobody closes the semaphore");
            let taken = match &listener {
                Bound::Tcp(listener) => listener.accept().await.map(|(socket, _)| {
                    // Small answers are not to wait for more.
                    let _ = socket.set_nodelay(true);
                    server.start(socket, place);
                }),
                Bound::Unix(listener) => {
                    listener.accept().await.map(|(socket, _)| server.start(socket, place))
                }
            };
            if let Err(error) = taken {
                tracing::warn!(event = event::ACCEPT_FAILED, %error, "cannot take a connection");
                sleep(ACCEPT_PAUSE).await;
            }
        }
    };
    tokio::select! {
        () = take_all => {}
        () = stopped => {}
    }
    // While it still listens.
    drop(file);
    drop(listener);
    if timeout(drain, server.graceful.shutdown()).await.is_err() {
        server.running.give_up();
    }
    Ok(())
}

struct Server {
    router: Router,
    graceful: GracefulShutdown,
    running: Running,
    places: Arc<Semaphore>,
    limits: Limits,
}

impl Server {
    /// Answers on a connection, in a task of its own, which holds `place` meanwhile.
    fn start<P: Send + 'static>(
        &self,
        socket: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
        place: P,
    ) {
        let limits = self.limits;
        let mut builder = auto::Builder::new(TokioExecutor::new());
        builder
            .http1()
            .timer(TokioTimer::new())
            .header_read_timeout(limits.head_timeout)
            .max_buf_size(limits.head_bytes_max);
        builder
            .http2()
            .timer(TokioTimer::new())
            .max_concurrent_streams(limits.connection_streams_max)
            .max_header_list_size(limits.head_bytes_max as u32)
            .keep_alive_interval(KEEPALIVE_INTERVAL)
            .keep_alive_timeout(KEEPALIVE_INTERVAL);
        let socket = Counted::new(socket, self.running.enter());
        let service = TowerToHyperService::new(self.router.clone());
        let connection = builder.serve_connection(TokioIo::new(socket), service).into_owned();
        let connection = self.graceful.watch(connection);
        tokio::spawn(async move {
            if let Err(error) = connection.await {
                tracing::debug!(error, "a connection ended");
            }
            drop(place);
        });
    }
}
