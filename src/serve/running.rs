//! How servers end, and how many they serve meanwhile.

use std::{
    io,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering::Relaxed},
    },
    task::{Context, Poll},
    time::Duration,
};

use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    sync::watch,
};
use tonic::transport::server::Connected;

/// For how long requests under way are waited for when a server is to stop, if nobody says.
pub const DRAIN_DEFAULT: Duration = Duration::from_secs(10);

/// Shared by all servers of a process: tells them to stop, and counts their connections.
#[derive(Debug, Clone)]
pub struct Running {
    stop: Arc<watch::Sender<bool>>,
    drain: Duration,
    connections: Arc<AtomicUsize>,
    /// Whether some server did not wait any longer.
    gave_up: Arc<AtomicBool>,
}

/// A connection that is served, until this is dropped.
#[derive(Debug)]
pub(super) struct Place(Arc<AtomicUsize>);

impl Drop for Place {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Relaxed);
    }
}

impl Running {
    /// Of servers that wait up to `drain` for requests under way when they are told to stop.
    pub fn new(drain: Duration) -> Self {
        Running {
            stop: Arc::new(watch::Sender::new(false)),
            drain,
            connections: Arc::default(),
            gave_up: Arc::default(),
        }
    }

    /// Tells them to stop: nobody is let in any more, and what is under way is ended.
    pub fn stop(&self) {
        self.stop.send_replace(true);
    }

    /// For how long requests under way are waited for.
    pub fn drain(&self) -> Duration {
        self.drain
    }

    /// How many connections there are.
    pub fn connections(&self) -> usize {
        self.connections.load(Relaxed)
    }

    /// Returns once they were told to stop.
    pub(super) fn stopped(&self) -> impl Future<Output = ()> + Send + 'static {
        let mut stopping = self.stop.subscribe();
        async move {
            // An error means that nobody can tell any more, which is a reason to stop too.
            let _ = stopping.wait_for(|stop| *stop).await;
        }
    }

    pub(super) fn enter(&self) -> Place {
        self.connections.fetch_add(1, Relaxed);
        Place(self.connections.clone())
    }

    /// A server stops waiting for requests that are under way.
    pub(super) fn give_up(&self) {
        self.gave_up.store(true, Relaxed);
    }

    /// How many connections are cut off by the end of the process, as their requests did not end in time.
    pub fn cut_off(&self) -> usize {
        match self.gave_up.load(Relaxed) {
            true => self.connections(),
            false => 0,
        }
    }
}

/// A connection that is counted.
#[derive(Debug)]
pub(super) struct Counted<S> {
    socket: S,
    _place: Place,
}

impl<S> Counted<S> {
    pub(super) fn new(socket: S, place: Place) -> Self {
        Counted { socket, _place: place }
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Counted<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.socket).poll_read(context, buffer)
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Counted<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.socket).poll_write(context, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.socket).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.socket).poll_shutdown(context)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        pieces: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.socket).poll_write_vectored(context, pieces)
    }

    fn is_write_vectored(&self) -> bool {
        self.socket.is_write_vectored()
    }
}

impl<S: Connected> Connected for Counted<S> {
    type ConnectInfo = S::ConnectInfo;

    fn connect_info(&self) -> S::ConnectInfo {
        self.socket.connect_info()
    }
}
