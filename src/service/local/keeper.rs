//! The thread that keeps a cache within its bound, so that hardly anybody ever waits for room.

use std::{
    sync::{
        Arc,
        mpsc::{self, RecvTimeoutError, SyncSender},
    },
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use super::{inner::Inner, sweep::Sweeper};

use crate::observe::event;

/// How often it looks, at least.
const TICK: Duration = Duration::from_secs(1);

/// How long what has arrived may stay where only its own process sees it.
const PUBLISH_EVERY: Duration = Duration::from_secs(5);

/// How often one looks whether directories and path infos take too much.
const SWEEP_EVERY: Duration = Duration::from_secs(60);

/// How often the directory is measured, since processes that are killed leave the count wrong.
const MEASURE_EVERY: Duration = Duration::from_secs(600);

/// The thread. It ends when this is dropped, which waits for it.
#[derive(Debug)]
pub(super) struct Keeper {
    /// Wakes it; it ends once this is gone.
    wake: Option<SyncSender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Keeper {
    pub(super) fn start(inner: Arc<Inner>) -> std::io::Result<Self> {
        let (wake, woken) = mpsc::sync_channel(1);
        let thread = thread::Builder::new().name("cache keeper".to_owned()).spawn(move || {
            let mut published = Instant::now();
            let mut measured = None;
            let mut swept: Option<Instant> = None;
            let mut sweeper = Sweeper::default();
            loop {
                if measured.is_none_or(|at: Instant| at.elapsed() >= MEASURE_EVERY) {
                    measured = Some(Instant::now());
                    tell("measure", inner.measure());
                }
                inner.let_go();
                if published.elapsed() >= PUBLISH_EVERY {
                    tell("bring to disk", inner.publish());
                    published = Instant::now();
                }
                if swept.is_none_or(|at| at.elapsed() >= SWEEP_EVERY) {
                    swept = Some(Instant::now());
                    tell("sweep", inner.sweep(&mut sweeper));
                }
                if inner.is_filling() {
                    tell("make room in", inner.keep_room());
                }
                match woken.recv_timeout(TICK) {
                    Ok(()) | Err(RecvTimeoutError::Timeout) => {}
                    Err(RecvTimeoutError::Disconnected) => break,
                }
            }
            tell("bring to disk", inner.publish());
        })?;
        Ok(Keeper { wake: Some(wake), thread: Some(thread) })
    }

    /// Makes it look now.
    pub(super) fn wake(&self) {
        if let Some(wake) = &self.wake {
            // If that is full, it is awake already.
            let _ = wake.try_send(());
        }
    }
}

impl Drop for Keeper {
    fn drop(&mut self) {
        self.wake = None;
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

fn tell(what: &str, result: crate::service::Result<()>) {
    if let Err(error) = result {
        tracing::warn!(
            event = event::CACHE_FAILED,
            %error,
            "cannot {what} the cache; it is tried again"
        );
    }
}
