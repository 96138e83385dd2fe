//! How often something may be told.

use std::time::{Duration, Instant};

use parking_lot::Mutex;

/// Lets so many through in a stretch of time, and counts the others.
#[derive(Debug)]
pub struct Rate {
    often: u32,
    stretch: Duration,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    /// When the stretch began.
    began: Option<Instant>,
    told: u32,
    held_back: u64,
}

impl Rate {
    /// Up to `often` in each `stretch`.
    pub const fn new(often: u32, stretch: Duration) -> Self {
        let state = Mutex::new(State { began: None, told: 0, held_back: 0 });
        Rate { often, stretch, state }
    }

    /// Whether one may be told now; if so, how many were not told since the last that was.
    pub fn pass(&self, now: Instant) -> Option<u64> {
        let mut state = self.state.lock();
        if state.began.is_none_or(|began| now.saturating_duration_since(began) >= self.stretch) {
            (state.began, state.told) = (Some(now), 0);
        }
        if state.told == self.often {
            state.held_back += 1;
            return None;
        }
        state.told += 1;
        Some(std::mem::take(&mut state.held_back))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_flood_is_cut_and_told_of_later() {
        let rate = Rate::new(3, Duration::from_secs(10));
        let start = Instant::now();
        let passed: Vec<_> = (0..100).filter_map(|_| rate.pass(start)).collect();
        assert_eq!(passed, [0, 0, 0]);
        assert_eq!(rate.pass(start + Duration::from_secs(9)), None);
        assert_eq!(rate.pass(start + Duration::from_secs(10)), Some(98));
        assert_eq!(rate.pass(start + Duration::from_secs(10)), Some(0));
    }
}
