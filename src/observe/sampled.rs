//! How long things take that happen so often that looking at the clock each time would be felt.

use std::{
    sync::atomic::{AtomicU32, AtomicU64, Ordering::Relaxed},
    time::Duration,
};

use super::{
    Histogram, Snapshot,
    counter::{SLOTS, slot},
    timing::{self, Moment},
};

/// One of so many is timed exactly.
const EVERY: u32 = 8;

/// The next one is to be timed exactly, however many there were since the last.
const DUE: u32 = 1 << 31;

/// Counts durations of `KINDS` kinds by their length: all are counted, but only some are timed exactly, and the others
/// are taken to have lasted as long as the next one that is. That is the first one after each [snapshot](Sampled::of)
/// and one in eight else. One that took long enough for the rough clock to see it counts as what that says.
#[derive(Debug)]
pub struct Sampled<const KINDS: usize>([Slot<KINDS>; SLOTS]);

/// What some threads count. What is needed for one that is not timed is together.
#[derive(Debug)]
#[repr(align(128))]
struct Slot<const KINDS: usize> {
    /// How many there were since the last that was timed, and [`DUE`].
    since: [AtomicU32; KINDS],
    /// How long that one took, in nanoseconds.
    last: [AtomicU64; KINDS],
    took: [Histogram; KINDS],
}

impl<const KINDS: usize> Sampled<KINDS> {
    /// Without any.
    pub const fn new() -> Self {
        Sampled(
            [const {
                Slot {
                    since: [const { AtomicU32::new(DUE) }; KINDS],
                    last: [const { AtomicU64::new(0) }; KINDS],
                    took: [const { Histogram::new() }; KINDS],
                }
            }; SLOTS],
        )
    }

    /// One begins, if times are taken. If it can wait for something, it is looked whether it did.
    #[inline]
    pub fn begin(&self, kind: usize, can_wait: bool) -> Option<Moment> {
        timing::begin(can_wait, || self.0[slot()].since[kind].load(Relaxed) >= EVERY - 1)
    }

    /// One that was done by the thread that began it is done. How long it took.
    #[inline]
    pub fn end(&self, kind: usize, began: Moment) -> Duration {
        let (slot, took) = (&self.0[slot()], began.elapsed());
        match began {
            Moment::Rough(_) if took >= timing::rough() => slot.took[kind].note(took),
            Moment::Unknown | Moment::Rough(_) => {
                slot.since[kind].fetch_add(1, Relaxed);
            }
            Moment::Exact(_) => {
                slot.took[kind].note(took);
                // The others did not take as long as the rough clock sees.
                slot.settle(kind, took.min(timing::rough()), 0);
            }
        }
        took
    }

    /// One took so long that says nothing about the others: it had to wait.
    pub fn waited(&self, kind: usize, took: Duration) {
        self.0[slot()].took[kind].note(took);
    }

    /// All of one kind up to now.
    pub fn of(&self, kind: usize) -> Snapshot {
        let mut all = Snapshot::default();
        for slot in &self.0 {
            slot.settle(kind, Duration::from_nanos(slot.last[kind].load(Relaxed)), DUE);
            all.add(&slot.took[kind].snapshot());
        }
        all
    }
}

impl<const KINDS: usize> Default for Sampled<KINDS> {
    fn default() -> Self {
        Self::new()
    }
}

impl<const KINDS: usize> Slot<KINDS> {
    /// Those that were not timed are taken to have lasted so long.
    fn settle(&self, kind: usize, each: Duration, next: u32) {
        let count = self.since[kind].swap(next, Relaxed) & !DUE;
        self.took[kind].note_many(each, count.into());
        self.last[kind].store(each.as_nanos() as u64, Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_are_counted_and_one_in_eight_is_timed() {
        timing::switch_on();
        let sampled = Sampled::<2>::new();
        let mut exact = 0;
        for _ in 0..800 {
            let began = sampled.begin(1, false).expect("times are taken");
            exact += u32::from(matches!(began, Moment::Exact(_)));
            sampled.end(1, began);
        }
        assert_eq!(exact, 100);
        assert_eq!((sampled.of(0).count(), sampled.of(1).count()), (0, 800));
        assert_eq!(sampled.of(1).count(), 800);
    }

    #[test]
    fn the_first_one_after_a_look_is_timed() {
        timing::switch_on();
        let sampled = Sampled::<1>::new();
        for _ in 0..5 {
            let began = sampled.begin(0, true).expect("times are taken");
            assert!(matches!(began, Moment::Exact(_)));
            sampled.end(0, began);
            sampled.of(0);
        }
        assert_eq!(sampled.of(0).count(), 5);
    }

    #[test]
    fn the_others_lasted_as_long_as_the_next_that_is_timed() {
        timing::switch_on();
        let sampled = Sampled::<1>::new();
        let one = |busy_for| {
            let began = sampled.begin(0, true).expect("times are taken");
            let start = std::time::Instant::now();
            while start.elapsed() < busy_for {}
            sampled.end(0, began);
        };
        one(Duration::ZERO);
        (0..16).for_each(|_| one(Duration::from_micros(200)));
        let above_100_us = sampled.of(0).places()[7..].iter().sum::<u64>();
        assert!(above_100_us >= 16, "{above_100_us}");
    }

    #[test]
    fn one_that_takes_long_is_seen_by_the_rough_clock_and_not_laid_upon_others() {
        timing::switch_on();
        let sampled = Sampled::<1>::new();
        let one = |sleep| {
            let began = sampled.begin(0, true).expect("times are taken");
            std::thread::sleep(sleep);
            sampled.end(0, began);
        };
        let (long, start) = (Duration::from_millis(100), std::time::Instant::now());
        one(Duration::ZERO);
        one(Duration::ZERO);
        one(long);
        sampled.waited(0, long);
        let all = start.elapsed() + long;
        let taken = sampled.of(0);
        assert_eq!(taken.count(), 4);
        let seconds = taken.seconds();
        assert!(seconds >= 0.18 && seconds < all.as_secs_f64() + 0.05, "{seconds} {all:?}");
    }

    #[test]
    fn nothing_is_lost_between_threads_and_looks() {
        timing::switch_on();
        let sampled = Sampled::<1>::new();
        std::thread::scope(|scope| {
            for _ in 0..20 {
                scope.spawn(|| {
                    for _ in 0..1000 {
                        let began = sampled.begin(0, true).expect("times are taken");
                        sampled.end(0, began);
                    }
                });
            }
            for _ in 0..50 {
                sampled.of(0);
            }
        });
        assert_eq!(sampled.of(0).count(), 20_000);
    }
}
