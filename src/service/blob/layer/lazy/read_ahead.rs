//! How much is fetched before it is asked for.
//!
//! Nothing as long as reading looks random: what a program maps or looks up is not paid for with what it never touches.
//! Whoever has read a mebibyte in a row gets something ahead. How much depends on what waiting costs: from a store that
//! answers at once an eighth of the run so far, from one that is far away a quarter, and from two mebibytes on as much as the
//! whole run, so that a long sequential reader never waits for a round trip. That much can be for nothing.

use std::{
    ops::Range,
    sync::atomic::{AtomicU64, Ordering::Relaxed},
    time::Duration,
};

/// A run that is shorter, in bytes, is not sequential reading yet.
const RUN_LEN_MIN: u64 = 1 << 20;

/// From here on, in bytes, a run gets as much ahead as it is long.
const RUN_LEN_LONG: u64 = 2 << 20;

/// The most that is fetched ahead, in bytes.
const AHEAD_LEN_MAX: u64 = 16 << 20;

/// How far a read may begin from the end of a run and still belong to it, in bytes: the kernel has several reads of one
/// reader under way, which may overtake each other.
const SLACK_LEN: u64 = 2 << 20;

/// A store that takes longer to begin an answer, in microseconds, is far away.
const FAR_MICROS: u64 = 3_000;

/// How many readers of a blob are told apart.
const RUNS_MAX: usize = 4;

/// A stretch that was read in order.
#[derive(Debug, Clone, Copy)]
struct Run {
    end: u64,
    len: u64,
}

/// What was read of a blob lately.
#[derive(Debug, Default)]
pub(super) struct Runs {
    /// The one that was extended last comes last.
    runs: Vec<Run>,
}

impl Runs {
    /// Takes note of a read, and tells up to where it is worth fetching, in bytes from the beginning of the blob.
    pub(super) fn note(&mut self, range: &Range<u64>, is_far: bool) -> u64 {
        let belongs = |run: &Run| {
            range.start <= run.end && run.end - range.start <= SLACK_LEN.min(run.len)
                || range.start > run.end && range.start - run.end <= SLACK_LEN.min(run.len / 2)
        };
        let run = match self.runs.iter().rposition(belongs) {
            Some(index) => {
                let run = self.runs.remove(index);
                let end = run.end.max(range.end);
                Run { end, len: run.len + (end - run.end) }
            }
            None => Run { end: range.end, len: range.end - range.start },
        };
        if self.runs.len() == RUNS_MAX {
            self.runs.remove(0);
        }
        self.runs.push(run);
        let ahead = match run.len {
            0..RUN_LEN_MIN => 0,
            _ if !is_far => (run.len / 8).min(AHEAD_LEN_MAX),
            RUN_LEN_MIN..RUN_LEN_LONG => run.len / 4,
            _ => run.len.min(AHEAD_LEN_MAX),
        };
        range.end.max(run.end).saturating_add(ahead)
    }
}

/// How long a store takes until the first bytes of an answer are here.
#[derive(Debug, Default)]
pub(super) struct Latency {
    /// The mean of late, in microseconds; 0 as long as nothing is known.
    micros: AtomicU64,
}

impl Latency {
    /// Takes note of an answer. The last ones count most.
    pub(super) fn note(&self, took: Duration) {
        let took = u64::try_from(took.as_micros()).unwrap_or(u64::MAX).max(1);
        let before = match self.micros.load(Relaxed) {
            0 => took,
            before => before,
        };
        self.micros.store((before / 4 * 3).saturating_add(took / 4).max(1), Relaxed);
    }

    /// Whether waiting is dear.
    pub(super) fn is_far(&self) -> bool {
        self.micros.load(Relaxed) > FAR_MICROS
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const KIB: u64 = 1 << 10;
    const MIB: u64 = 1 << 20;

    /// What is fetched in all if what was fetched is not fetched again.
    fn fetched(is_far: bool, reads: impl Iterator<Item = Range<u64>>) -> u64 {
        let mut runs = Runs::default();
        let mut fetched = crate::service::range_set::RangeSet::default();
        for read in reads {
            let end = runs.note(&read, is_far);
            fetched.insert(read.start..end);
        }
        fetched.len()
    }

    #[test]
    fn random_reading_fetches_nothing_ahead() {
        let random = (0..1000u64).map(|n| (n * 7919) % 10_007 * MIB).map(|at| at..at + 4 * KIB);
        assert_eq!(fetched(true, random), 1000 * 4 * KIB);
    }

    #[test]
    fn a_mebibyte_from_the_middle_costs_less_than_two() {
        for step in [4 * KIB, 128 * KIB, 256 * KIB, MIB] {
            let reads = (0..MIB / step).map(|n| 500 * MIB + n * step..500 * MIB + (n + 1) * step);
            assert!(fetched(true, reads) <= MIB + MIB / 4, "{step}");
        }
    }

    #[test]
    fn at_most_half_is_for_nothing_and_the_window_is_bounded() {
        for len in [MIB, 2 * MIB, 5 * MIB, 30 * MIB, 100 * MIB] {
            let reads = || (0..len / (128 * KIB)).map(|n| n * 128 * KIB..(n + 1) * 128 * KIB);
            assert!(fetched(false, reads()) <= len + len / 8, "{len} near");
            let fetched = fetched(true, reads());
            assert!(fetched <= 2 * len && fetched <= len + AHEAD_LEN_MAX, "{len}: {fetched}");
            assert!(len < 30 * MIB || fetched >= len + AHEAD_LEN_MAX, "{len}: {fetched}");
        }
    }

    #[test]
    fn reads_that_overtake_each_other_are_one_run() {
        let mut runs = Runs::default();
        let mut end = 0;
        for pair in 0..20 {
            let at = pair * 2 * MIB;
            if pair > 0 {
                runs.note(&(at + MIB..at + 2 * MIB), true);
                end = runs.note(&(at..at + MIB), true);
            } else {
                runs.note(&(at..at + MIB), true);
                end = runs.note(&(at + MIB..at + 2 * MIB), true);
            }
        }
        assert_eq!(end, 40 * MIB + AHEAD_LEN_MAX);
        assert_eq!(runs.runs.len(), 1);
    }

    #[test]
    fn several_readers_are_told_apart() {
        let mut runs = Runs::default();
        for step in 0..40 {
            for reader in 0..RUNS_MAX as u64 {
                let at = reader * 1000 * MIB + step * 256 * KIB;
                let end = runs.note(&(at..at + 256 * KIB), true);
                assert!(step < 8 || end > at + MIB, "{reader} {step}");
            }
        }
    }

    #[test]
    fn a_store_is_far_while_its_answers_take_long() {
        let latency = Latency::default();
        assert!(!latency.is_far(), "nothing is known");
        for _ in 0..10 {
            latency.note(Duration::from_millis(20));
        }
        assert!(latency.is_far());
        for _ in 0..10 {
            latency.note(Duration::from_micros(200));
        }
        assert!(!latency.is_far());
    }
}
