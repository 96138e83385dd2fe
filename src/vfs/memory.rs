//! Giving memory back to the system.
#![allow(unsafe_code)] // One call of the C library that no crate here wraps.

/// Returns what the allocator holds in reserve. Takes milliseconds: only for after much was freed.
#[cfg(target_env = "gnu")]
pub(super) fn give_back() {
    // SAFETY: malloc_trim takes a number, and may be called by any thread at any time.
    unsafe { libc::malloc_trim(0) };
}

/// Other C libraries give memory back by themselves, or cannot be told to.
#[cfg(not(target_env = "gnu"))]
pub(super) fn give_back() {}
