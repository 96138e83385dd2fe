//! Tells the supervisor that a service makes progress, for as long as it does: sd_watchdog_enabled(3).
//!
//! What counts as progress must not depend on others. A remote that is dead is a normal day, which a restart does not
//! end; so what is asked is answered by this process alone.

use std::{env, time::Duration};

use futures::future::BoxFuture;
use tokio::time::{MissedTickBehavior, timeout};
use tracing::error;

use crate::observe::event;

/// After how long without a message the supervisor acts, in microseconds.
const TIME_VARIABLE: &str = "WATCHDOG_USEC";
/// Which process it waits for.
const PROCESS_VARIABLE: &str = "WATCHDOG_PID";

/// The shortest time between two messages.
const INTERVAL_MIN: Duration = Duration::from_millis(10);

/// Asks whether a service makes progress. Whoever does not answer makes none.
pub(in crate::cli) type IsAlive = Box<dyn Fn() -> BoxFuture<'static, bool> + Send + Sync>;

/// A supervisor that waits for messages.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Watchdog {
    /// How often one is sent: twice as often as it has to be.
    interval: Duration,
}

impl Watchdog {
    /// As the environment says.
    pub(super) fn from_env() -> Option<Self> {
        let variable = |name| env::var(name).ok();
        Self::from(variable(TIME_VARIABLE)?, variable(PROCESS_VARIABLE), std::process::id())
    }

    fn from(time: String, process: Option<String>, own: u32) -> Option<Self> {
        let micros = time.parse::<u64>().ok().filter(|micros| *micros > 0)?;
        let is_ours = process.is_none_or(|p| p.is_empty() || p.parse() == Ok(own));
        let interval = Duration::from_micros(micros / 2).max(INTERVAL_MIN);
        is_ours.then_some(Watchdog { interval })
    }

    /// Calls `tell` for as long as `is_alive` says so.
    pub(super) async fn tell(self, is_alive: IsAlive, tell: impl Fn() + Send) {
        let mut was_alive = true;
        let mut beat = tokio::time::interval(self.interval);
        beat.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            beat.tick().await;
            // Three quarters of what the supervisor waits may pass between two messages, and no more.
            let lives = timeout(self.interval / 2, is_alive()).await.unwrap_or(false);
            match lives {
                true => tell(),
                // Once, and not with every beat.
                false if was_alive => error!(
                    event = event::NO_PROGRESS,
                    "no progress: the supervisor is not told of any"
                ),
                false => {}
            }
            was_alive = lives;
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::{
        Arc,
        atomic::{AtomicUsize, Ordering::Relaxed},
    };

    use futures::FutureExt as _;

    use super::*;

    #[test]
    fn a_supervisor_waits_for_one_process_and_some_time() {
        let of = |time: &str, process: Option<&str>| {
            Watchdog::from(time.to_owned(), process.map(str::to_owned), 7).map(|w| w.interval)
        };
        let second = Some(Duration::from_secs(1));
        for process in [None, Some(""), Some("7")] {
            assert_eq!(of("2000000", process), second);
        }
        for process in ["8", "x", "-7"] {
            assert_eq!(of("2000000", Some(process)), None);
        }
        for time in ["", "0", "-1", "soon", "99999999999999999999999"] {
            assert_eq!(of(time, None), None);
        }
        assert_eq!(of("1", None), Some(INTERVAL_MIN));
    }

    #[tokio::test(start_paused = true)]
    async fn it_is_told_only_of_progress_and_in_time() {
        let watchdog = Watchdog { interval: Duration::from_secs(1) };
        let told = Arc::new(AtomicUsize::new(0));
        let asked = Arc::new(AtomicUsize::new(0));
        let is_alive = {
            let asked = asked.clone();
            Box::new(move || match asked.fetch_add(1, Relaxed) {
                // It lives, then says that it does not, then says nothing, then lives again.
                0..5 | 15.. => async { true }.boxed(),
                5..10 => async { false }.boxed(),
                10..15 => std::future::pending().boxed(),
            })
        };
        let teller = told.clone();
        tokio::spawn(watchdog.tell(is_alive, move || _ = teller.fetch_add(1, Relaxed)));
        let mut counts = Vec::new();
        for _ in 0..4 {
            tokio::time::sleep(Duration::from_millis(4_950)).await;
            counts.push(told.swap(0, Relaxed));
        }
        assert_eq!(counts[..3], [5, 0, 0], "{counts:?}");
        assert!(counts[3] >= 4, "{counts:?}");
    }
}
