//! What the `metrics` layers count.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use super::Result;

/// Counts of one operation of one service. Counting is one relaxed addition, without locks.
#[derive(Debug, Default)]
pub struct Operation {
    calls: AtomicU64,
    absent: AtomicU64,
    errors: AtomicU64,
    bytes: AtomicU64,
}

/// The counts of an [`Operation`] at one moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Counts {
    /// How often it was called.
    pub calls: u64,
    /// How often the answer was that the object is absent.
    pub absent: u64,
    /// How often it failed, be it at the call or later, in a stream.
    pub errors: u64,
    /// How many bytes of contents went through it.
    pub bytes: u64,
}

impl Operation {
    /// The counts so far.
    pub fn counts(&self) -> Counts {
        Counts {
            calls: self.calls.load(Relaxed),
            absent: self.absent.load(Relaxed),
            errors: self.errors.load(Relaxed),
            bytes: self.bytes.load(Relaxed),
        }
    }

    /// Counts a call and how it ended.
    pub(super) fn ended<T>(&self, result: Result<T>) -> Result<T> {
        self.calls.fetch_add(1, Relaxed);
        self.continued(result)
    }

    /// Counts a call that may find nothing.
    pub(super) fn found<T>(&self, result: Result<Option<T>>) -> Result<Option<T>> {
        if matches!(result, Ok(None)) {
            self.absent.fetch_add(1, Relaxed);
        }
        self.ended(result)
    }

    /// Counts what came later in a call that was counted before.
    pub(super) fn continued<T>(&self, result: Result<T>) -> Result<T> {
        if result.is_err() {
            self.errors.fetch_add(1, Relaxed);
        }
        result
    }

    /// Counts contents.
    pub(super) fn moved(&self, bytes: usize) {
        self.bytes.fetch_add(bytes as u64, Relaxed);
    }
}
