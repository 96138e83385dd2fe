//! Pauses before something is tried again.

use std::{
    hash::{BuildHasher as _, Hasher as _, RandomState},
    time::Duration,
};

use tokio::time::Instant;

/// The longest pause after the first attempt; it doubles with each. A pause is a random part of it, so that those who
/// failed together do not come again together.
const PAUSE: Duration = Duration::from_millis(250);

/// Attempts at something, which are made while there is time.
pub(crate) struct Attempts {
    deadline: Instant,
    pause: Duration,
    made: u32,
}

impl Attempts {
    /// The first is being made.
    pub(crate) fn until(deadline: Instant) -> Self {
        Attempts { deadline, pause: PAUSE, made: 1 }
    }

    /// When to make the next one. `None` if so many were made, or there is no more time.
    pub(crate) fn next(&mut self, attempts_max: u32) -> Option<Instant> {
        let next = Instant::now() + random_part(self.pause);
        if self.made >= attempts_max || next >= self.deadline {
            return None;
        }
        self.made += 1;
        self.pause *= 2;
        Some(next)
    }
}

/// A random time of up to `most`.
fn random_part(most: Duration) -> Duration {
    // The keys of each are random, and nothing here is worth guessing.
    let random = RandomState::new().build_hasher().finish() >> 32;
    most.mul_f64(random as f64 / f64::from(u32::MAX))
}
