//! Numbers that many threads add to.

use std::{
    cell::Cell,
    sync::atomic::{AtomicI64, AtomicU64, AtomicUsize, Ordering::Relaxed},
};

/// Into how many parts what is counted often is cut, so that threads do not take one cache line from each other.
pub const SLOTS: usize = 8;

/// The part of this thread.
#[inline]
pub fn slot() -> usize {
    static NEXT: AtomicUsize = AtomicUsize::new(0);
    thread_local! {
        static SLOT: Cell<usize> = const { Cell::new(usize::MAX) };
    }
    SLOT.with(|slot| match slot.get() {
        usize::MAX => {
            let own = NEXT.fetch_add(1, Relaxed) % SLOTS;
            slot.set(own);
            own
        }
        own => own,
    })
}

/// A cache line.
#[derive(Debug)]
#[repr(align(128))]
struct Part(AtomicU64);

/// A number that grows.
#[derive(Debug)]
pub struct Counter([Part; SLOTS]);

impl Counter {
    /// At zero.
    pub const fn new() -> Self {
        Counter([const { Part(AtomicU64::new(0)) }; SLOTS])
    }

    /// Adds to it, without a lock.
    #[inline]
    pub fn add(&self, by: u64) {
        self.0[slot()].0.fetch_add(by, Relaxed);
    }

    /// What was added so far.
    pub fn get(&self) -> u64 {
        self.0.iter().map(|part| part.0.load(Relaxed)).fold(0, u64::wrapping_add)
    }
}

impl Default for Counter {
    fn default() -> Self {
        Self::new()
    }
}

/// How many there are of something.
#[derive(Debug, Default)]
pub struct Gauge(AtomicI64);

impl Gauge {
    /// None.
    pub const fn new() -> Self {
        Gauge(AtomicI64::new(0))
    }

    /// One more, until what is returned is dropped.
    pub fn hold(&'static self) -> Held {
        self.0.fetch_add(1, Relaxed);
        Held(self)
    }

    /// How many there are.
    pub fn get(&self) -> i64 {
        self.0.load(Relaxed)
    }
}

/// One of those that a gauge counts.
#[derive(Debug)]
pub struct Held(&'static Gauge);

impl Drop for Held {
    fn drop(&mut self) {
        self.0.0.fetch_sub(1, Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_is_lost_between_threads() {
        let counter = Counter::new();
        std::thread::scope(|scope| {
            for _ in 0..20 {
                scope.spawn(|| (0..1000).for_each(|by| counter.add(by)));
            }
        });
        assert_eq!(counter.get(), 20 * 499_500);
    }

    #[test]
    fn what_is_held_counts_until_it_is_dropped() {
        static GAUGE: Gauge = Gauge::new();
        let (one, _two) = (GAUGE.hold(), GAUGE.hold());
        assert_eq!(GAUGE.get(), 2);
        drop(one);
        assert_eq!(GAUGE.get(), 1);
    }
}
