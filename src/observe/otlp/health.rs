//! Whether a collector takes what it is sent.

use std::{
    fmt,
    sync::atomic::{AtomicBool, Ordering::Relaxed},
};

use tracing::{info, warn};

use crate::observe::event;

/// Tells once that a collector takes nothing, and once that it does again.
#[derive(Debug)]
pub(super) struct Health {
    what: &'static str,
    is_failing: AtomicBool,
}

impl Health {
    /// `what` is sent.
    pub(super) fn new(what: &'static str) -> Self {
        Health { what, is_failing: AtomicBool::new(false) }
    }

    /// Takes note of how sending ended.
    pub(super) fn note<E: fmt::Display>(&self, outcome: &Result<(), E>) {
        match outcome {
            Ok(()) if self.is_failing.swap(false, Relaxed) => {
                info!(
                    event = event::COLLECTOR_BACK,
                    what = self.what,
                    "the collector answers again"
                );
            }
            Err(error) if !self.is_failing.swap(true, Relaxed) => {
                warn!(
                    event = event::COLLECTOR_LOST, what = self.what, %error,
                    "the collector takes nothing: what it is sent is lost until it answers (does it speak \
                     gRPC on that port?)"
                );
            }
            Ok(()) | Err(_) => {}
        }
    }
}
