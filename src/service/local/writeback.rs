//! Bringing data to the disk in the background, so that a later sync has less to wait for.
#![allow(unsafe_code)] // One system call that no crate here wraps.

use std::{fs::File, os::fd::AsRawFd as _};

/// After how many bytes the kernel is told to bring them to the disk.
const STEP_BYTES: u64 = 8 << 20;

/// Up to where the kernel was told to write a growing file to the disk, in bytes.
#[derive(Debug, Clone, Default)]
pub struct Writeback {
    started: u64,
}

/// Whether something that was written to the file got lost on its way to the disk, so that reading it back may yield what
/// was there before. Waits for nothing but the first page, if that is on its way just now. Tells each loss once.
pub(super) fn has_lost_pages(file: &File) -> bool {
    // SAFETY: the call takes numbers only, and the descriptor is open.
    let checked =
        unsafe { libc::sync_file_range(file.as_raw_fd(), 0, 1, libc::SYNC_FILE_RANGE_WAIT_BEFORE) };
    checked != 0
}

impl From<u64> for Writeback {
    /// What lies before `started` is not our business.
    fn from(started: u64) -> Self {
        Writeback { started }
    }
}

impl Writeback {
    /// The file has `len` bytes now. Waits for nothing; that it fails does not matter.
    pub fn advance(&mut self, file: &File, len: u64) {
        let more = len - self.started;
        if more < STEP_BYTES {
            return;
        }
        let (offset, more) = (self.started as libc::off64_t, more as libc::off64_t);
        // SAFETY: the call takes numbers only, and the descriptor is open.
        unsafe {
            libc::sync_file_range(file.as_raw_fd(), offset, more, libc::SYNC_FILE_RANGE_WRITE)
        };
        self.started = len;
    }
}
