//! Whether it is better to ask for a chunk before it is sent.

use parking_lot::Mutex;
use tokio::sync::Notify;

/// After so many chunks in a row that were not there, the next are sent without asking.
const ABSENT_IN_A_ROW: u32 = 4;

/// While nothing is known, or what was asked for last was not there, so many are asked for at once.
const CAREFUL_QUESTIONS_MAX: u32 = 4;

/// Of so many chunks that are sent without asking, one is asked for: a store that takes what it has without a word
/// would never be found out otherwise.
const SENT_PER_QUESTION: u32 = 64;

/// So many bytes may be on their way without anybody knowing whether they are wanted,
const AT_RISK_BYTES_MIN: u64 = 512 << 10;
/// or this part of what was sent since the last that was there,
const AT_RISK_PART: u64 = 10;
/// but no more than this.
const AT_RISK_BYTES_MAX: u64 = 16 << 20;

/// Guesses from what was found whether chunks are there already.
///
/// Asking costs a request for a chunk that is not there; sending costs the bytes of one that is. Trees mostly have long
/// runs of either. So what is new is sent, and the first that turns out to be there makes us ask again. What may be
/// sent in vain until then is bounded by a part of what was sent and was wanted.
#[derive(Debug)]
pub(super) struct Guess {
    /// Questions cost nothing.
    always_asks: bool,
    state: Mutex<State>,
    changed: Notify,
}

#[derive(Debug, Default)]
struct State {
    sends: bool,
    /// What was found last was there.
    finds: bool,
    asking: u32,
    absent_in_a_row: u32,
    sent_since_question: u32,
    /// What was sent since the last that was there, and was wanted.
    wanted_bytes: u64,
    at_risk: u64,
}

/// What to do about a chunk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Way {
    /// Ask whether it is there.
    Ask,
    /// Send it, if it is not there.
    Send,
}

/// A chunk about which something is being done. Dropped without an outcome, it tells nothing.
#[derive(Debug)]
pub(super) struct Turn<'a> {
    guess: &'a Guess,
    way: Way,
    len: u64,
}

impl Guess {
    /// Knows nothing yet.
    pub(super) fn new(always_asks: bool) -> Self {
        Guess { always_asks, state: Mutex::default(), changed: Notify::new() }
    }

    /// What to do about a chunk that takes so many bytes to send. Waits while the outcome of others should be known first.
    pub(super) async fn turn(&self, len: u64) -> Turn<'_> {
        loop {
            let mut changed = std::pin::pin!(self.changed.notified());
            changed.as_mut().enable();
            if let Some(way) = self.state.lock().admit(len, self.always_asks) {
                return Turn { guess: self, way, len };
            }
            changed.await;
        }
    }
}

impl State {
    fn admit(&mut self, len: u64, always_asks: bool) -> Option<Way> {
        let asks = always_asks
            || match self.sends {
                true => self.sent_since_question >= SENT_PER_QUESTION,
                false if self.finds || self.asking < CAREFUL_QUESTIONS_MAX => true,
                false => return None,
            };
        if asks {
            self.asking += 1;
            self.sent_since_question = 0;
            return Some(Way::Ask);
        }
        let bound = (self.wanted_bytes / AT_RISK_PART).clamp(AT_RISK_BYTES_MIN, AT_RISK_BYTES_MAX);
        if self.at_risk > 0 && self.at_risk + len > bound {
            return None;
        }
        self.at_risk += len;
        self.sent_since_question += 1;
        Some(Way::Send)
    }

    fn found(&mut self, way: Way, len: u64, there: bool) {
        self.finds = there;
        if there {
            (self.sends, self.absent_in_a_row, self.wanted_bytes) = (false, 0, 0);
            return;
        }
        self.absent_in_a_row += 1;
        self.sends |= self.absent_in_a_row >= ABSENT_IN_A_ROW;
        if way == Way::Send {
            self.wanted_bytes += len;
        }
    }
}

impl Turn<'_> {
    /// What to do.
    pub(super) fn way(&self) -> Way {
        self.way
    }

    /// Tells the outcome.
    pub(super) fn found(self, there: bool) {
        self.guess.state.lock().found(self.way, self.len, there);
    }
}

impl Drop for Turn<'_> {
    fn drop(&mut self) {
        {
            let mut state = self.guess.state.lock();
            match self.way {
                Way::Ask => state.asking -= 1,
                Way::Send => state.at_risk -= self.len,
            }
        }
        self.guess.changed.notify_waiters();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LEN: u64 = 100 << 10;

    /// What chunks cost, of which `there` says which are there: questions in vain, and bytes in vain. So many are under way
    /// at once.
    async fn cost(there: &[bool], at_once: usize) -> (u64, u64) {
        use futures::{StreamExt as _, stream};

        let guess = Guess::new(false);
        let costs = stream::iter(there).map(|&there| {
            let guess = &guess;
            async move {
                let turn = guess.turn(LEN).await;
                tokio::time::sleep(std::time::Duration::from_millis(20)).await;
                let cost = match (turn.way(), there) {
                    (Way::Ask, false) => (1, 0),
                    (Way::Send, true) => (0, LEN),
                    _ => (0, 0),
                };
                turn.found(there);
                cost
            }
        });
        costs
            .buffer_unordered(at_once)
            .fold((0, 0), |sum, one| async move { (sum.0 + one.0, sum.1 + one.1) })
            .await
    }

    #[tokio::test(start_paused = true)]
    async fn what_is_all_new_is_sent_and_hardly_asked_for() {
        for at_once in [1, 64] {
            let (asked, in_vain) = cost(&[false; 1000], at_once).await;
            assert!(asked <= 20 && in_vain == 0, "{asked} {in_vain}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn what_is_mostly_there_is_hardly_sent_wherever_the_new_is() {
        let mixed: Vec<bool> =
            (0..1000u32).map(|n| n.wrapping_mul(2_654_435_761) >> 22 > 102).collect();
        let new_first: Vec<bool> = (0..1000).map(|n| n >= 100).collect();
        let new_last: Vec<bool> = (0..1000).map(|n| n < 900).collect();
        let islands: Vec<bool> = (0..1000).map(|n| n % 250 >= 25).collect();
        for there in [mixed, new_first, new_last, islands] {
            for at_once in [1, 64] {
                let (_, in_vain) = cost(&there, at_once).await;
                assert!(in_vain <= 20 * LEN, "{in_vain} of {} bytes", 1000 * LEN);
            }
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_chunk_that_is_given_up_holds_up_nobody() {
        let guess = Guess::new(false);
        for _ in 0..100 {
            drop(guess.turn(LEN).await);
        }
        for _ in 0..ABSENT_IN_A_ROW {
            guess.turn(LEN).await.found(false);
        }
        for _ in 0..SENT_PER_QUESTION {
            let turn = guess.turn(AT_RISK_BYTES_MAX * 2).await;
            assert_eq!(turn.way(), Way::Send);
        }
        assert_eq!(guess.turn(LEN).await.way(), Way::Ask);
    }
}
