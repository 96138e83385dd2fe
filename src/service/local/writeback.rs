//! Bringing data to the disk in the background.
#![allow(unsafe_code)] // One system call that no crate here wraps.

use std::{fs::File, ops::Range, os::fd::AsRawFd as _};

/// Starts writing the bytes in `range` to the disk, without waiting for it. A hint, whose failure does not matter.
pub(super) fn start(file: &File, range: Range<u64>) {
    let (offset, len) = (range.start as libc::off64_t, (range.end - range.start) as libc::off64_t);
    // SAFETY: the call takes numbers only, and the descriptor is open.
    unsafe { libc::sync_file_range(file.as_raw_fd(), offset, len, libc::SYNC_FILE_RANGE_WRITE) };
}
