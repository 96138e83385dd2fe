//! Whether it is looked at the clock, and at which.
//!
//! It is where somebody wants to know: by metrics, spans or the slow log. Else nothing here costs more than looking at a
//! flag. What waits for a network is always timed exactly. What is answered at once [may be](begin) only now and then:
//! between, the rough clock is looked at, which costs an eighth and tells no more than that it did not take long, or none.

use std::{
    sync::atomic::{AtomicU8, AtomicU64, Ordering::Relaxed},
    time::{Duration, Instant},
};

use rustix::time::{ClockId, clock_getres, clock_gettime};

static LEVEL: AtomicU8 = AtomicU8::new(NOTHING);
const NOTHING: u8 = 0;
const MOST: u8 = 1;
const ALL: u8 = 2;

/// What the rough clock cannot tell from nothing, in nanoseconds: two of its steps, as a step may come at any moment.
static ROUGH_NANOS: AtomicU64 = AtomicU64::new(0);

/// From this many of what the rough clock cannot tell on it is exact enough.
const MANY: u32 = 10;

/// From now on times are taken.
pub fn switch_on() {
    switch_to(MOST);
}

/// From now on times are taken because what takes `bound` or longer is to be known: exactly, if that is little.
pub fn switch_on_for(bound: Duration) {
    match bound < look_at_rough_clock() * MANY {
        true => switch_to(ALL),
        false => switch_to(MOST),
    }
}

fn switch_to(level: u8) {
    ROUGH_NANOS.store(look_at_rough_clock().as_nanos() as u64, Relaxed);
    LEVEL.fetch_max(level, Relaxed);
}

/// What [`rough`] is: a step of the clock is 1 to 10 ms, as the kernel was built.
fn look_at_rough_clock() -> Duration {
    Duration::try_from(clock_getres(ClockId::MonotonicCoarse)).unwrap_or_default() * 2
}

/// The time, if times are taken.
#[inline]
pub fn now() -> Option<Instant> {
    (LEVEL.load(Relaxed) != NOTHING).then(Instant::now)
}

/// The time, if times are taken, for what is timed exactly only if it is due: else roughly, or, if it cannot wait for
/// anything, not at all.
#[inline]
pub fn begin(can_wait: bool, is_due: impl FnOnce() -> bool) -> Option<Moment> {
    match LEVEL.load(Relaxed) {
        NOTHING => None,
        MOST if !is_due() => Some(match can_wait {
            true => Moment::Rough(rough_now()),
            false => Moment::Unknown,
        }),
        _ => Some(Moment::Exact(Instant::now())),
    }
}

/// What takes less may be nothing for the [rough](Moment::Rough) clock.
#[inline]
pub fn rough() -> Duration {
    Duration::from_nanos(ROUGH_NANOS.load(Relaxed))
}

#[inline]
fn rough_now() -> Duration {
    // The clock is never before the start of the machine.
    Duration::try_from(clock_gettime(ClockId::MonotonicCoarse)).unwrap_or_default()
}

/// When something began.
#[derive(Debug, Clone, Copy)]
pub enum Moment {
    /// Somewhen.
    Unknown,
    /// To a few milliseconds, since the machine was started.
    Rough(Duration),
    /// To the nanosecond.
    Exact(Instant),
}

impl Moment {
    /// How long it is ago; nothing if that is not known.
    #[inline]
    pub fn elapsed(self) -> Duration {
        match self {
            Moment::Unknown => Duration::ZERO,
            Moment::Rough(began) => rough_now().saturating_sub(began),
            Moment::Exact(began) => began.elapsed(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_due_is_timed_roughly_but_not_wrongly() {
        switch_on();
        assert!(rough() > Duration::ZERO && rough() <= Duration::from_millis(20), "{:?}", rough());
        let [none, rough_one, exact_one] = [(false, false), (true, false), (false, true)]
            .map(|(can_wait, is_due)| begin(can_wait, || is_due).expect("times are taken"));
        assert!(matches!((none, none.elapsed()), (Moment::Unknown, Duration::ZERO)));
        assert!(matches!((rough_one, exact_one), (Moment::Rough(_), Moment::Exact(_))));
        std::thread::sleep(Duration::from_millis(50));
        let (exactly, roughly) = (exact_one.elapsed(), rough_one.elapsed());
        assert!(exactly >= Duration::from_millis(50));
        assert!(roughly + rough() >= exactly, "{roughly:?} {exactly:?}");
    }
}
