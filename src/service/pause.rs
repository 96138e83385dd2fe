//! Pauses before something is tried again.

use std::{
    hash::{BuildHasher as _, Hasher as _, RandomState},
    time::Duration,
};

/// A random time of up to `most`, so that those who failed together do not come again together.
pub(crate) fn random_part(most: Duration) -> Duration {
    // The keys of each are random, and nothing here is worth guessing.
    let random = RandomState::new().build_hasher().finish() >> 32;
    most.mul_f64(random as f64 / f64::from(u32::MAX))
}
