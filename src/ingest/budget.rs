//! How much may be under way.

use parking_lot::{Condvar, Mutex};

/// Counts bytes and entries that are under way, and makes those wait who would exceed the bounds.
#[derive(Debug)]
pub(super) struct Budget {
    left: Mutex<Left>,
    freed: Condvar,
}

#[derive(Debug)]
struct Left {
    bytes: usize,
    entries: usize,
    closed: bool,
}

impl Budget {
    pub(super) fn new(bytes: usize, entries: usize) -> Self {
        Budget { left: Mutex::new(Left { bytes, entries, closed: false }), freed: Condvar::new() }
    }

    /// Takes room for one entry of `bytes`, which must be fewer than there are in all. `false` if nobody will ever
    /// free any.
    pub(super) fn take(&self, bytes: usize) -> bool {
        let mut left = self.left.lock();
        self.freed.wait_while(&mut left, |left| {
            !left.closed && (left.bytes < bytes || left.entries == 0)
        });
        if left.closed {
            return false;
        }
        left.bytes -= bytes;
        left.entries -= 1;
        true
    }

    /// Gives back what was taken for one entry.
    pub(super) fn give_back(&self, bytes: usize) {
        let mut left = self.left.lock();
        left.bytes += bytes;
        left.entries += 1;
        self.freed.notify_one();
    }

    /// Wakes whoever waits, for good.
    pub(super) fn close(&self) {
        self.left.lock().closed = true;
        self.freed.notify_all();
    }
}
