//! How long things take.

use std::{
    sync::atomic::{AtomicU64, Ordering::Relaxed},
    time::Duration,
};

/// The bounds that are told apart, in seconds, as text and as nanoseconds: from what memory answers to what a deadline
/// ends.
pub const BOUNDS: [(&str, u64); 23] = [
    ("0.000001", 1_000),
    ("0.0000025", 2_500),
    ("0.000005", 5_000),
    ("0.00001", 10_000),
    ("0.000025", 25_000),
    ("0.00005", 50_000),
    ("0.0001", 100_000),
    ("0.00025", 250_000),
    ("0.0005", 500_000),
    ("0.001", 1_000_000),
    ("0.0025", 2_500_000),
    ("0.005", 5_000_000),
    ("0.01", 10_000_000),
    ("0.025", 25_000_000),
    ("0.05", 50_000_000),
    ("0.1", 100_000_000),
    ("0.25", 250_000_000),
    ("0.5", 500_000_000),
    ("1", 1_000_000_000),
    ("2.5", 2_500_000_000),
    ("5", 5_000_000_000),
    ("10", 10_000_000_000),
    ("30", 30_000_000_000),
];

/// The bounds, and what is longer than all of them.
const PLACES: usize = BOUNDS.len() + 1;

fn place_of(nanos: u64) -> usize {
    BOUNDS.partition_point(|(_, bound)| *bound < nanos)
}

/// Counts durations by their length. Counting is two relaxed additions.
#[derive(Debug)]
pub struct Histogram {
    places: [AtomicU64; PLACES],
    nanos: AtomicU64,
}

/// What was counted up to a moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Snapshot {
    places: [u64; PLACES],
    nanos: u64,
}

impl Histogram {
    /// Without any.
    pub const fn new() -> Self {
        Histogram { places: [const { AtomicU64::new(0) }; PLACES], nanos: AtomicU64::new(0) }
    }

    /// Counts one.
    #[inline]
    pub fn note(&self, took: Duration) {
        self.note_many(took, 1);
    }

    /// Counts so many that took as long each.
    #[inline]
    pub fn note_many(&self, took: Duration, count: u64) {
        let nanos = u64::try_from(took.as_nanos()).unwrap_or(u64::MAX);
        self.places[place_of(nanos)].fetch_add(count, Relaxed);
        self.nanos.fetch_add(nanos.wrapping_mul(count), Relaxed);
    }

    /// What was counted so far.
    pub fn snapshot(&self) -> Snapshot {
        let nanos = self.nanos.load(Relaxed);
        Snapshot { places: std::array::from_fn(|place| self.places[place].load(Relaxed)), nanos }
    }
}

impl Default for Histogram {
    fn default() -> Self {
        Self::new()
    }
}

impl Snapshot {
    /// Counts one, where there is a lock around it.
    pub fn note(&mut self, took: Duration) {
        let nanos = u64::try_from(took.as_nanos()).unwrap_or(u64::MAX);
        self.places[place_of(nanos)] += 1;
        self.nanos = self.nanos.wrapping_add(nanos);
    }

    /// Counts what another has counted as well.
    pub fn add(&mut self, other: &Snapshot) {
        self.nanos = self.nanos.wrapping_add(other.nanos);
        for (place, count) in self.places.iter_mut().zip(other.places) {
            *place = place.wrapping_add(count);
        }
    }

    /// How many there were between each bound and the one before it, and, last, above all of them.
    pub fn places(&self) -> &[u64] {
        &self.places
    }

    /// How many there were.
    pub fn count(&self) -> u64 {
        self.places.iter().sum()
    }

    /// How long they took together, in seconds.
    pub fn seconds(&self) -> f64 {
        Duration::from_nanos(self.nanos).as_secs_f64()
    }

    /// How many there were up to each bound.
    pub fn up_to(&self) -> impl Iterator<Item = (&'static str, u64)> {
        let mut sum = 0;
        BOUNDS.iter().zip(self.places).map(move |((bound, _), count)| {
            sum += count;
            (*bound, sum)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_bounds_are_what_they_are_written_as() {
        for (text, nanos) in BOUNDS {
            let seconds: f64 = text.parse().expect("a number");
            assert!((seconds * 1e9 - nanos as f64).abs() < 1e-3, "{text}");
        }
        assert!(BOUNDS.is_sorted_by(|a, b| a.1 < b.1));
    }

    #[test]
    fn a_duration_counts_up_to_the_first_bound_that_it_does_not_exceed() {
        let histogram = Histogram::new();
        for nanos in [0, 1_000, 1_001, 1_000_000_000, 31_000_000_000] {
            histogram.note(Duration::from_nanos(nanos));
        }
        let mut snapshot = histogram.snapshot();
        let up_to: Vec<_> = snapshot.up_to().collect();
        let at = |bound| up_to.iter().find(|(text, _)| *text == bound).map(|(_, count)| *count);
        assert_eq!((at("0.000001"), at("0.0000025"), at("0.5")), (Some(2), Some(3), Some(3)));
        assert_eq!((at("1"), at("30"), snapshot.count()), (Some(4), Some(4), 5));
        assert!((snapshot.seconds() - 32.000_002_001).abs() < 1e-9);
        snapshot.add(&histogram.snapshot());
        assert_eq!(snapshot.count(), 10);
    }
}
