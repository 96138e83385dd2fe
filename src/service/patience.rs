//! How long a stream may keep its reader waiting.

use std::{
    future::Future,
    pin::pin,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::Duration,
};

use tokio::time::Instant;

/// The slowest that a stream may be for long, in bytes a second.
const RATE_MIN: u64 = 1024;
/// Less patience than this is none: timers are no finer.
const PATIENCE_MIN: Duration = Duration::from_millis(2);

/// An allowance of waiting. It is spent by waiting, and earned by bytes that arrive, but never grows beyond what it was
/// at first. So a stream that stands still ends, and so does one that only trickles; how long its reader takes between
/// messages does not matter.
#[derive(Debug)]
pub(crate) struct Patience {
    left: Duration,
    most: Duration,
    arrived: Arc<AtomicU64>,
    paid: u64,
}

impl Patience {
    /// An allowance of at most `most`, of which `spent` is gone. `arrived` counts the bytes of the stream.
    pub(crate) fn new(most: Duration, spent: Duration, arrived: Arc<AtomicU64>) -> Self {
        Patience { left: most.saturating_sub(spent), most, arrived, paid: 0 }
    }

    /// The output of `next`, unless patience ends before.
    pub(crate) async fn wait<T>(&mut self, next: impl Future<Output = T>) -> Option<T> {
        let mut next = pin!(next);
        loop {
            self.earn();
            let began = Instant::now();
            let done = tokio::time::timeout(self.left, &mut next).await;
            self.left = self.left.saturating_sub(began.elapsed());
            if let Ok(output) = done {
                return Some(output);
            }
            self.earn();
            if self.left < PATIENCE_MIN {
                return None;
            }
        }
    }

    fn earn(&mut self) {
        let arrived = self.arrived.load(Relaxed);
        let earned = Duration::from_secs(1)
            .saturating_mul((arrived - self.paid).min(1 << 30) as u32)
            / RATE_MIN as u32;
        self.paid = arrived;
        self.left = (self.left + earned).min(self.most);
    }
}

#[cfg(test)]
mod tests {
    use std::future::pending;

    use super::*;

    const MOST: Duration = Duration::from_secs(10);

    #[tokio::test(start_paused = true)]
    async fn a_stream_that_stands_still_or_trickles_ends_in_time() {
        for bytes_a_second in [0, 1, 100] {
            let arrived = Arc::new(AtomicU64::new(0));
            let mut patience = Patience::new(MOST, Duration::from_secs(4), arrived.clone());
            let trickle = tokio::spawn(async move {
                loop {
                    tokio::time::sleep(Duration::from_secs(1)).await;
                    arrived.fetch_add(bytes_a_second, Relaxed);
                }
            });
            let began = Instant::now();
            assert!(patience.wait(pending::<()>()).await.is_none());
            let took = began.elapsed();
            assert!(took >= MOST - Duration::from_secs(4) && took < MOST, "{took:?}");
            trickle.abort();
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_slow_stream_that_goes_on_is_waited_for() {
        let arrived = Arc::new(AtomicU64::new(0));
        let mut patience = Patience::new(MOST, Duration::ZERO, arrived.clone());
        for _ in 0..100 {
            let step = async {
                for _ in 0..5 {
                    tokio::time::sleep(Duration::from_secs(1)).await;
                    arrived.fetch_add(2 * RATE_MIN, Relaxed);
                }
            };
            assert!(patience.wait(step).await.is_some());
            // What its reader does meanwhile is not waiting.
            tokio::time::sleep(MOST * 2).await;
        }
    }
}
