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

/// How far the kernel may have read ahead, in windows: what was forgotten before comes back by that. It reads twice its
/// read-ahead, which is 8 MiB on some disks.
const READ_AHEAD_WINDOWS: usize = 8;

/// Set for a window that was forgotten once.
const FORGOTTEN: u32 = 1 << 31;

/// Counts what was read of a file by those who keep what they read, and lets the kernel forget it a window at a time.
///
/// `RWF_DONTCACHE`, which serves blobs that have files of their own, would take a blob's neighbours out of memory as well:
/// those that read-ahead has just brought and that are mostly wanted next.
#[derive(Debug)]
pub struct ReadOnce {
    /// How many bytes were read of each window since it was forgotten last, and whether it ever was.
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
        let number = usize::try_from(at / WINDOW_LEN).unwrap_or(usize::MAX);
        let Some(window) = self.windows.get(number) else { return };
        let len = self.header_len.saturating_add(len as u32);
        let count = |before: u32| match (before & !FORGOTTEN).saturating_add(len) {
            WINDOW_READ_LEN.. => FORGOTTEN,
            read => before & FORGOTTEN | read,
        };
        let (Ok(before) | Err(before)) =
            window.fetch_update(Relaxed, Relaxed, |before| Some(count(before)));
        if count(before) != FORGOTTEN {
            return;
        }
        let ahead = self.windows[number..].iter().take(1 + READ_AHEAD_WINDOWS);
        let windows =
            ahead.take_while(|window| window.load(Relaxed) & FORGOTTEN != 0).count() as u64;
        let len = NonZeroU64::new(windows * WINDOW_LEN);
        let _ = fadvise(file, number as u64 * WINDOW_LEN, len, Advice::DontNeed);
    }
}
