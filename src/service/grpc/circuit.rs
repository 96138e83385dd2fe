//! Whether a peer is worth asking at all.
//!
//! Once a peer has failed several times in a row, the next callers are told so at once instead of each finding it out
//! for itself. After a while one of them is let through to try; its success ends it, for all.

use std::{sync::Arc, time::Duration};

use parking_lot::Mutex;
use tokio::time::Instant;

use crate::service::Error;

/// The circuit opens after this many failures in a row, or once they took three quarters of a deadline together, in
/// which nobody got an answer: waiting is what it is there to spare.
const FAILURES_MAX: u32 = 4;
/// How long it is open at first; then twice as long after each failed try,
const OPEN_MIN: Duration = Duration::from_secs(1);
/// up to this.
const OPEN_MAX: Duration = Duration::from_secs(15);

/// The state of one peer, shared by all calls to it.
#[derive(Debug)]
pub(super) struct Circuit {
    endpoint: Arc<str>,
    deadline: Duration,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    failures: u32,
    /// How long those failures took.
    cost: Duration,
    /// When an outcome was counted last. Calls that began before it tell nothing new: one cut connection fails many.
    counted_at: Option<Instant>,
    open: Option<Open>,
}

#[derive(Debug)]
struct Open {
    until: Instant,
    lasts: Duration,
    /// Whether somebody is trying.
    probing: bool,
    cause: Error,
}

/// The right to make one call. Dropped without an outcome, it counts for nothing: whoever gives up waiting says
/// nothing about the peer.
#[derive(Debug)]
pub(super) struct Permit<'a> {
    circuit: &'a Circuit,
    began: Instant,
    probe: bool,
}

impl Circuit {
    /// Of a peer whose calls may take as long as `deadline`.
    pub(super) fn new(endpoint: Arc<str>, deadline: Duration) -> Self {
        Circuit { endpoint, deadline, state: Mutex::default() }
    }

    /// Lets a call through, or says why not, at once.
    pub(super) fn enter(&self) -> Result<Permit<'_>, Error> {
        let began = Instant::now();
        let mut state = self.state.lock();
        let probe = match &mut state.open {
            None => false,
            Some(open) if began >= open.until && !open.probing => {
                open.probing = true;
                true
            }
            Some(open) => return Err(self.refusal(open, began)),
        };
        Ok(Permit { circuit: self, began, probe })
    }

    /// Something has come from the peer.
    pub(super) fn answered(&self) {
        let mut state = self.state.lock();
        let was_open = state.open.is_some();
        *state = State { counted_at: Some(Instant::now()), ..State::default() };
        drop(state);
        if was_open {
            tracing::info!(endpoint = &*self.endpoint, "answers again");
        }
    }

    /// What was waited for since `began` did not come. Tells whether that is to be logged: of many that fail together
    /// only the first is, and that the circuit opens is logged here.
    pub(super) fn failed(&self, began: Instant, cause: &Error) -> bool {
        let now = Instant::now();
        let mut state = self.state.lock();
        let is_news = state.counted_at.is_none_or(|counted_at| began >= counted_at);
        if state.open.is_some() || !is_news {
            return false;
        }
        state.counted_at = Some(now);
        state.failures += 1;
        state.cost += now - began;
        if state.failures < FAILURES_MAX && state.cost < self.deadline * 3 / 4 {
            return true;
        }
        let (lasts, cause) = (OPEN_MIN, cause.clone());
        state.open = Some(Open { until: now + lasts, lasts, probing: false, cause: cause.clone() });
        drop(state);
        let endpoint = &*self.endpoint;
        tracing::warn!(endpoint, error = %cause, "out of reach: asked only now and then");
        false
    }

    fn refusal(&self, open: &Open, now: Instant) -> Error {
        let seconds = open.until.saturating_duration_since(now).as_secs_f32();
        let when = match open.probing {
            true => "it is being tried just now".to_owned(),
            false => format!("it will be tried again in {seconds:.1} seconds"),
        };
        let cause = match &open.cause {
            Error::Unavailable { source, .. } => source.to_string(),
            cause => cause.to_string(),
        };
        Error::unavailable(&self.endpoint, format!("{cause} (not asked again: {when})"))
    }
}

impl Permit<'_> {
    /// The peer has answered, whatever it said.
    pub(super) fn answered(self) {
        self.circuit.answered();
    }

    /// The peer could not be reached, or did not answer in time. As [`Circuit::failed`].
    pub(super) fn failed(self, cause: &Error) -> bool {
        if self.probe
            && let Some(open) = &mut self.circuit.state.lock().open
        {
            open.lasts = (open.lasts * 2).min(OPEN_MAX);
            open.until = Instant::now() + open.lasts;
            open.probing = false;
            open.cause = cause.clone();
            return false;
        }
        self.circuit.failed(self.began, cause)
    }
}

impl Drop for Permit<'_> {
    fn drop(&mut self) {
        if self.probe
            && let Some(open) = &mut self.circuit.state.lock().open
        {
            open.probing = false;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const DEADLINE: Duration = Duration::from_secs(10);

    fn circuit() -> Circuit {
        Circuit::new("test".into(), DEADLINE)
    }

    async fn fail(circuit: &Circuit, after: Duration) {
        let permit = circuit.enter().expect("closed");
        tokio::time::sleep(after).await;
        permit.failed(&Error::unavailable("test", "down"));
    }

    #[tokio::test(start_paused = true)]
    async fn it_opens_after_four_quick_failures_or_a_deadline_of_waiting() {
        let quick = circuit();
        for _ in 0..4 {
            fail(&quick, Duration::from_millis(1)).await;
        }
        let refused = quick.enter().expect_err("open").to_string();
        assert!(refused.contains("down (not asked again: it will be tried again in"), "{refused}");
        let slow = circuit();
        for _ in 0..2 {
            fail(&slow, DEADLINE / 2).await;
        }
        slow.enter().expect_err("open");
        let slowest = circuit();
        fail(&slowest, DEADLINE).await;
        slowest.enter().expect_err("open");
    }

    #[tokio::test(start_paused = true)]
    async fn calls_that_fail_together_count_once_and_a_success_begins_anew() {
        let circuit = circuit();
        let permits: Vec<_> = (0..100).map(|_| circuit.enter().expect("closed")).collect();
        tokio::time::sleep(DEADLINE / 2).await;
        for permit in permits {
            permit.failed(&Error::unavailable("test", "cut"));
        }
        for _ in 0..10 {
            circuit.enter().expect("still closed").answered();
            tokio::time::sleep(Duration::from_millis(1)).await;
            fail(&circuit, Duration::from_millis(1)).await;
        }
    }

    #[tokio::test(start_paused = true)]
    async fn one_at_a_time_tries_and_its_success_lets_all_in() {
        let circuit = circuit();
        for _ in 0..4 {
            fail(&circuit, Duration::from_millis(1)).await;
        }
        for open in [1, 2, 4, 8, 15, 15] {
            tokio::time::sleep(Duration::from_secs(open) - Duration::from_millis(1)).await;
            circuit.enter().expect_err("not yet");
            tokio::time::sleep(Duration::from_millis(1)).await;
            let probe = circuit.enter().expect("one may try");
            circuit.enter().expect_err("only one");
            probe.failed(&Error::unavailable("test", "still down"));
        }
        tokio::time::sleep(OPEN_MAX).await;
        drop(circuit.enter().expect("one that gives up leaves its place to another"));
        circuit.enter().expect("another").answered();
        circuit.enter().expect("all").answered();
        circuit.enter().expect("all").answered();
    }
}
