//! Whether a peer is worth asking at all.
//!
//! Once a peer has failed several times in a row, the next callers are told so at once instead of each finding it out
//! for itself. Meanwhile it is tried in the background by whoever owns the circuit, with a question that takes it no effort:
//! what made the callers wait may have been their questions.

use std::{
    collections::BTreeMap,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
    time::Duration,
};

use parking_lot::Mutex;
use tokio::time::Instant;

use crate::{
    observe::{self, event, names, tally::CIRCUIT_OPENINGS},
    service::Error,
};

/// The circuit opens after this many failures in a row, or once they took three quarters of a deadline together, in
/// which nobody got an answer: waiting is what it is there to spare.
const FAILURES_MAX: u32 = 4;

/// The state of one peer, shared by all calls to it.
#[derive(Debug)]
pub(crate) struct Circuit {
    endpoint: Arc<str>,
    deadline: Duration,
    state: Mutex<State>,
    /// The same as the state says, for those who count.
    is_open: Arc<AtomicBool>,
}

#[derive(Debug, Default)]
struct State {
    failures: u32,
    /// How long those failures took.
    cost: Duration,
    /// When an outcome was counted last. Calls that began before it tell nothing new: one cut connection fails many.
    counted_at: Option<Instant>,
    /// Why it is open, if it is.
    open: Option<Error>,
}

/// What a failure has told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum News {
    /// Nothing: of many calls that fail together only the first counts.
    None,
    /// Something to be logged.
    Failure,
    /// That nobody should be let through any more, which was not so before. It has been logged.
    Opened,
}

impl Circuit {
    /// Of a peer whose calls may take as long as `deadline`.
    pub(crate) fn new(endpoint: Arc<str>, deadline: Duration) -> Self {
        let is_open = Arc::new(AtomicBool::new(false));
        let (told, name) = (Arc::downgrade(&is_open), endpoint.clone());
        observe::register(move |scrape| {
            let Some(is_open) = told.upgrade() else { return false };
            scrape.count(&names::CIRCUITS_OPEN, &[&name], u64::from(is_open.load(Relaxed)));
            true
        });
        Circuit { endpoint, deadline, state: Mutex::default(), is_open }
    }

    /// What errors call the peer.
    pub(crate) fn endpoint(&self) -> &Arc<str> {
        &self.endpoint
    }

    /// Lets a call through, or says why not, at once.
    pub(crate) fn enter(&self) -> Result<(), Error> {
        let state = self.state.lock();
        let cause = match &state.open {
            None => return Ok(()),
            Some(Error::Unavailable { source, .. }) => source.to_string(),
            Some(cause) => cause.to_string(),
        };
        let what = format!("{cause} (not asked again before it has answered a try)");
        Err(Error::unavailable(&self.endpoint, what))
    }

    /// Something has come from the peer, whatever it is.
    pub(crate) fn answered(&self) {
        let mut state = self.state.lock();
        let was_open = state.open.is_some();
        if was_open {
            close(&self.endpoint);
        }
        *state = State { counted_at: Some(Instant::now()), ..State::default() };
        if was_open {
            self.is_open.store(false, Relaxed);
        }
        drop(state);
        if was_open {
            let endpoint = &*self.endpoint;
            tracing::info!(event = event::CIRCUIT_CLOSED, endpoint, "answers again");
        }
    }

    /// What was waited for since `began` did not come.
    pub(crate) fn failed(&self, began: Instant, cause: &Error) -> News {
        let now = Instant::now();
        let mut state = self.state.lock();
        let is_news = state.counted_at.is_none_or(|counted_at| began >= counted_at);
        if state.open.is_some() || !is_news {
            return News::None;
        }
        state.counted_at = Some(now);
        state.failures += 1;
        state.cost += now - began;
        if state.failures < FAILURES_MAX && state.cost < self.deadline * 3 / 4 {
            return News::Failure;
        }
        state.open = Some(cause.clone());
        *OUT_OF_REACH.lock().entry(self.endpoint.clone()).or_default() += 1;
        self.is_open.store(true, Relaxed);
        drop(state);
        CIRCUIT_OPENINGS.add(1);
        let endpoint = &*self.endpoint;
        tracing::warn!(
            event = event::CIRCUIT_OPENED,
            endpoint,
            error = %cause,
            "out of reach: tried now and then"
        );
        News::Opened
    }
}

impl Drop for Circuit {
    fn drop(&mut self) {
        if self.state.get_mut().open.is_some() {
            close(&self.endpoint);
        }
    }
}

/// The endpoints of all open circuits of this process, with how many each has. It is locked last.
static OUT_OF_REACH: Mutex<BTreeMap<Arc<str>, usize>> = Mutex::new(BTreeMap::new());

/// The peers of this process that are out of reach now, in the order of their names.
pub(crate) fn out_of_reach() -> Vec<Arc<str>> {
    OUT_OF_REACH.lock().keys().cloned().collect()
}

fn close(endpoint: &Arc<str>) {
    let mut all = OUT_OF_REACH.lock();
    if let Some(count) = all.get_mut(endpoint) {
        *count -= 1;
        if *count == 0 {
            all.remove(endpoint);
        }
    }
}

/// How long is paused after the first try that failed; twice as long after each,
const TRY_PAUSE_MIN: Duration = Duration::from_secs(1);
/// up to this: so long after a peer is back it may still count as away.
const TRY_PAUSE_MAX: Duration = Duration::from_secs(5);

/// Tries `peer` in the background, until it answers or nobody has it any more.
pub(crate) fn try_until_it_answers<P, F>(
    peer: &Arc<P>,
    is_answering: impl Fn(Arc<P>) -> F + Send + 'static,
) where
    P: Send + Sync + 'static,
    F: Future<Output = bool> + Send,
{
    let peer = Arc::downgrade(peer);
    tokio::spawn(async move {
        let mut pause = TRY_PAUSE_MIN;
        while let Some(peer) = peer.upgrade() {
            if is_answering(peer).await {
                return;
            }
            tokio::time::sleep(pause).await;
            pause = (pause * 2).min(TRY_PAUSE_MAX);
        }
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    const DEADLINE: Duration = Duration::from_secs(10);

    fn circuit() -> Circuit {
        Circuit::new("test".into(), DEADLINE)
    }

    async fn fail(circuit: &Circuit, after: Duration) -> News {
        circuit.enter().expect("closed");
        let began = Instant::now();
        tokio::time::sleep(after).await;
        circuit.failed(began, &Error::unavailable("test", "down"))
    }

    #[tokio::test(start_paused = true)]
    async fn it_opens_after_four_quick_failures_or_a_deadline_of_waiting() {
        let quick = circuit();
        for news in [News::Failure, News::Failure, News::Failure, News::Opened] {
            assert_eq!(fail(&quick, Duration::from_millis(1)).await, news);
        }
        let refused = quick.enter().expect_err("open").to_string();
        assert!(refused.contains("down (not asked again"), "{refused}");
        let slow = circuit();
        for news in [News::Failure, News::Opened] {
            assert_eq!(fail(&slow, DEADLINE / 2).await, news);
        }
        let slowest = circuit();
        assert_eq!(fail(&slowest, DEADLINE).await, News::Opened);
    }

    #[tokio::test(start_paused = true)]
    async fn calls_that_fail_together_count_once_and_an_answer_begins_anew() {
        let circuit = circuit();
        let began = Instant::now();
        tokio::time::sleep(DEADLINE / 2).await;
        for number in 0..100 {
            let news = circuit.failed(began, &Error::unavailable("test", "cut"));
            assert_eq!(news, if number == 0 { News::Failure } else { News::None });
        }
        for _ in 0..10 {
            circuit.enter().expect("still closed");
            circuit.answered();
            tokio::time::sleep(Duration::from_millis(1)).await;
            assert_eq!(fail(&circuit, Duration::from_millis(1)).await, News::Failure);
        }
    }

    #[tokio::test(start_paused = true)]
    async fn who_is_out_of_reach_is_known_until_it_answers_or_nobody_asks_any_more() {
        let known = || out_of_reach().contains(&"lost".into());
        let [one, other] = [0, 1].map(|_| Circuit::new("lost".into(), DEADLINE));
        assert!(!known());
        for circuit in [&one, &other] {
            fail(circuit, DEADLINE).await;
            assert!(known());
        }
        one.answered();
        assert!(known());
        one.answered();
        assert!(known());
        drop(other);
        assert!(!known());
        drop(one);
        assert!(!known());
    }

    #[tokio::test(start_paused = true)]
    async fn an_answer_closes_it() {
        let circuit = circuit();
        fail(&circuit, DEADLINE).await;
        circuit.enter().expect_err("open");
        circuit.answered();
        circuit.enter().expect("closed");
        assert_eq!(fail(&circuit, Duration::from_millis(1)).await, News::Failure);
    }
}
