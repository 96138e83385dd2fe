//! Operations that take long are told of, but not more than some of them when everything does.

use std::{
    sync::atomic::{AtomicU64, Ordering::Relaxed},
    time::{Duration, Instant},
};

use super::{Counter, Rate};

/// In nanoseconds; the largest number for never.
static BOUND_NANOS: AtomicU64 = AtomicU64::new(u64::MAX);

static RATE: Rate = Rate::new(10, Duration::from_secs(10));

/// How many took long, told or not.
pub static SLOW: Counter = Counter::new();

/// From now on what takes `bound` or longer is slow; nothing is if that is zero.
pub fn set_bound(bound: Duration) {
    let nanos = match bound.is_zero() {
        true => u64::MAX,
        false => u64::try_from(bound.as_nanos()).unwrap_or(u64::MAX),
    };
    BOUND_NANOS.store(nanos, Relaxed);
}

/// Whether an operation that took so long is to be told of; if so, how many were not since the last one.
#[inline]
pub fn is_told(took: Duration) -> Option<u64> {
    let bound = BOUND_NANOS.load(Relaxed);
    if bound == u64::MAX || took.as_nanos() < u128::from(bound) {
        return None;
    }
    SLOW.add(1);
    RATE.pass(Instant::now())
}

/// As milliseconds with three digits behind the point, as times stand in logs.
pub fn millis(took: Duration) -> f64 {
    took.as_micros() as f64 / 1e3
}

/// Logs a request that took long: `tell!({ what it was }, took, spent, held_back)`, with what it was as fields of the log.
macro_rules! tell {
    ({ $($what:tt)* }, $took:expr, $spent:expr, $held_back:expr) => {{
        use $crate::observe::{event, slow::millis, spent::Spent};

        let (took, spent): (std::time::Duration, Spent) = ($took, $spent);
        tracing::warn!(
            event = event::SLOW_OPERATION,
            $($what)*
            took_ms = millis(took),
            remote_ms = millis(spent.remote),
            verify_ms = millis(spent.verify),
            disk_ms = millis(spent.disk),
            other_ms = millis(took.saturating_sub(spent.sum())),
            held_back = $held_back,
            "a request took long"
        );
    }};
}
pub(crate) use tell;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_is_slow_until_a_bound_is_set_and_floods_are_counted_but_not_told() {
        assert_eq!(is_told(Duration::MAX), None);
        set_bound(Duration::from_secs(1));
        assert_eq!(is_told(Duration::from_millis(999)), None);
        let told = (0..50).filter(|_| is_told(Duration::from_secs(1)).is_some()).count();
        assert_eq!((told, SLOW.get()), (10, 50));
        set_bound(Duration::ZERO);
        assert_eq!(is_told(Duration::MAX), None);
    }
}
