//! Whether it is looked at the clock.
//!
//! It is where somebody asked for metrics, or, for what may have to wait, where somebody wants to hear of what is slow.
//! Else nothing here costs more than looking at a flag. To look at the clock twice is 2% of a request that is answered at
//! once.

use std::{
    sync::atomic::{AtomicU8, Ordering::Relaxed},
    time::Instant,
};

/// Nothing, what may have to wait, everything.
static LEVEL: AtomicU8 = AtomicU8::new(NOTHING);
const NOTHING: u8 = 0;
const WHAT_WAITS: u8 = 1;
const EVERYTHING: u8 = 2;

/// From now on times are taken of everything.
pub fn switch_on() {
    LEVEL.fetch_max(EVERYTHING, Relaxed);
}

/// From now on times are taken of what may have to wait.
pub fn switch_on_for_what_waits() {
    LEVEL.fetch_max(WHAT_WAITS, Relaxed);
}

/// The time, if times are taken.
#[inline]
pub fn now() -> Option<Instant> {
    (LEVEL.load(Relaxed) != NOTHING).then(Instant::now)
}

/// The time, for what never waits for more than the local disk, if times are taken of that, too.
#[inline]
pub fn now_of_everything() -> Option<Instant> {
    (LEVEL.load(Relaxed) == EVERYTHING).then(Instant::now)
}
