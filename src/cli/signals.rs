//! What asks a command that runs on to stop, or to read its files again.

use std::{fs::File, io};

use tokio::signal::unix::{Signal, SignalKind, signal};

/// The terminal that a process belongs to.
const TERMINAL: &str = "/dev/tty";

/// The signals that tell to do something. Made before anything that takes long, so that none is missed.
pub(super) struct Signals {
    interrupt: Signal,
    terminate: Signal,
    hangup: Signal,
    /// Whether there was a terminal at the beginning.
    had_terminal: bool,
}

/// What a signal asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Asked {
    /// To end.
    Stop,
    /// To read all files again.
    Reload,
}

impl Signals {
    /// Needs the context of the runtime.
    pub(super) fn new() -> io::Result<Self> {
        Ok(Signals {
            interrupt: signal(SignalKind::interrupt())?,
            terminate: signal(SignalKind::terminate())?,
            hangup: signal(SignalKind::hangup())?,
            had_terminal: has_terminal(),
        })
    }

    /// Waits for the next one.
    pub(super) async fn next(&mut self) -> Asked {
        tokio::select! {
            _ = self.interrupt.recv() => Asked::Stop,
            _ = self.terminate.recv() => Asked::Stop,
            // The same signal says that the terminal was closed, and with it what runs there ends.
            _ = self.hangup.recv() => match self.had_terminal && !has_terminal() {
                true => Asked::Stop,
                false => Asked::Reload,
            },
        }
    }

    /// Waits for the next one that tells to stop.
    pub(super) async fn stop(&mut self) {
        while self.next().await != Asked::Stop {}
    }
}

fn has_terminal() -> bool {
    File::open(TERMINAL).is_ok()
}
