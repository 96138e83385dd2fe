//! Whether it is looked at the clock.
//!
//! It is where somebody asked for metrics or wants to hear of what is slow; else nothing here costs more than looking at
//! a flag.

use std::{
    sync::atomic::{AtomicBool, Ordering::Relaxed},
    time::Instant,
};

static ON: AtomicBool = AtomicBool::new(false);

/// From now on times are taken.
pub fn switch_on() {
    ON.store(true, Relaxed);
}

/// Whether times are taken.
#[inline]
pub fn is_on() -> bool {
    ON.load(Relaxed)
}

/// The time, if times are taken.
#[inline]
pub fn now() -> Option<Instant> {
    is_on().then(Instant::now)
}
