//! Keeping a file that many blobs share out of the page cache, once they were read.

use std::{
    fs::File,
    num::NonZeroU64,
    sync::atomic::{AtomicU32, Ordering::Relaxed},
};

use rustix::fs::{Advice, fadvise};

/// The kernel gives up whole folios only. They lie at multiples of their length, and are no longer than this, in bytes.
const WINDOW_LEN: u64 = 2 << 20;

/// When so much of a window was read, the rest is not waited for, in bytes: a blob counts where it begins, so the last
/// of the window before may take the beginning of this one.
const WINDOW_READ_LEN: u32 = (WINDOW_LEN - (64 << 10) - 64) as u32;

/// Counts what was read of a file by those who keep what they read, and lets the kernel forget it a window at a time.
///
/// `RWF_DONTCACHE`, which serves blobs that have files of their own, would take a blob's neighbours out of memory as well:
/// those that read-ahead has just brought and that are mostly wanted next.
#[derive(Debug)]
pub struct ReadOnce {
    /// How many bytes were read of each window since it was forgotten last.
    windows: Box<[AtomicU32]>,
    /// How many bytes before each blob nobody reads.
    header_len: u32,
}

impl ReadOnce {
    /// For a file of up to `len_max` bytes, in which `header_len` bytes stand before each blob. What lies beyond is
    /// kept in memory.
    pub fn new(len_max: u64, header_len: u32) -> Self {
        let windows = (0..len_max.div_ceil(WINDOW_LEN)).map(|_| AtomicU32::new(0)).collect();
        ReadOnce { windows, header_len }
    }

    /// `len` bytes at `at` of `file` were read by somebody who keeps them.
    pub(super) fn passed(&self, file: &File, at: u64, len: usize) {
        let number = at / WINDOW_LEN;
        let Some(window) = usize::try_from(number).ok().and_then(|n| self.windows.get(n)) else {
            return;
        };
        let len = self.header_len.saturating_add(len as u32);
        let read = window.fetch_add(len, Relaxed).saturating_add(len);
        if read >= WINDOW_READ_LEN {
            window.store(0, Relaxed);
            // Advice: that it is not taken costs memory and nothing else.
            let _ =
                fadvise(file, number * WINDOW_LEN, NonZeroU64::new(WINDOW_LEN), Advice::DontNeed);
        }
    }
}
