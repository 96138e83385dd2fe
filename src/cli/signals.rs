//! What asks a command that runs on to stop.

use std::io;

use tokio::signal::unix::{Signal, SignalKind, signal};

/// The signals that tell to stop. Made before anything that takes long, so that none is missed.
pub(super) struct Signals {
    interrupt: Signal,
    terminate: Signal,
}

impl Signals {
    /// Needs the context of the runtime.
    pub(super) fn new() -> io::Result<Self> {
        Ok(Signals {
            interrupt: signal(SignalKind::interrupt())?,
            terminate: signal(SignalKind::terminate())?,
        })
    }

    /// Waits for the next one.
    pub(super) async fn next(&mut self) {
        tokio::select! {
            _ = self.interrupt.recv() => {}
            _ = self.terminate.recv() => {}
        }
    }
}
