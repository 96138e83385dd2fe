//! How much may be under way.

use parking_lot::{Condvar, Mutex};

/// Counts bytes and entries that are under way, and makes those wait who would exceed the bounds.
#[derive(Debug)]
pub(super) struct Budget {
    /// What is left; nothing once it is closed.
    left: Mutex<Option<Room>>,
    freed: Condvar,
}

/// Some bytes and entries.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Room {
    pub(super) bytes: usize,
    pub(super) entries: usize,
}

impl Budget {
    pub(super) fn new(all: Room) -> Self {
        Budget { left: Mutex::new(Some(all)), freed: Condvar::new() }
    }

    /// Takes room, which must be less than there is in all. `false` if nobody will ever free any.
    pub(super) fn take(&self, room: Room) -> bool {
        let mut left = self.left.lock();
        self.freed.wait_while(&mut left, |left| {
            left.is_some_and(|left| left.bytes < room.bytes || left.entries < room.entries)
        });
        let Some(left) = &mut *left else { return false };
        left.bytes -= room.bytes;
        left.entries -= room.entries;
        true
    }

    /// Gives back what was taken.
    pub(super) fn give_back(&self, room: Room) {
        if let Some(left) = &mut *self.left.lock() {
            left.bytes += room.bytes;
            left.entries += room.entries;
        }
        self.freed.notify_one();
    }

    /// Wakes whoever waits, for good.
    pub(super) fn close(&self) {
        *self.left.lock() = None;
        self.freed.notify_all();
    }
}
