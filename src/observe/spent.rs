//! On what the time of one operation was spent.
//!
//! An operation is [watched](watch); whatever it waits for below says what that is ([`on`]). What one of them waits for
//! within another counts once, for the innermost. Work that others began and that is only waited for counts as what it
//! is waited as.

use std::{
    cell::Cell,
    time::{Duration, Instant},
};

use super::timing;

/// What time is spent on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Phase {
    /// A far store, or somebody who asks it already.
    Remote,
    /// The local disk.
    Disk,
    /// Checking what came.
    Verify,
}

/// How much was spent on each.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Spent {
    /// On far stores.
    pub remote: Duration,
    /// On the local disk.
    pub disk: Duration,
    /// On checking.
    pub verify: Duration,
}

impl Spent {
    /// All of it.
    pub fn sum(&self) -> Duration {
        self.remote + self.disk + self.verify
    }

    fn add(&mut self, phase: Phase, took: Duration) {
        match phase {
            Phase::Remote => self.remote += took,
            Phase::Disk => self.disk += took,
            Phase::Verify => self.verify += took,
        }
    }
}

tokio::task_local! {
    static SPENT: Cell<Spent>;
}

/// The outcome of an operation, and on what its time was spent, as far as that is known.
pub async fn watch<T>(operation: impl Future<Output = T>) -> (T, Spent) {
    SPENT
        .scope(Cell::default(), async {
            let outcome = operation.await;
            (outcome, SPENT.with(Cell::get))
        })
        .await
}

fn begin() -> Option<(Instant, Duration)> {
    let began = timing::now()?;
    SPENT.try_with(|spent| (began, spent.get().sum())).ok()
}

fn end(phase: Phase, begun: Option<(Instant, Duration)>) {
    let Some((began, before)) = begun else { return };
    // It fails where nobody watches, and then nothing was begun.
    let _ = SPENT.try_with(|spent| {
        let mut now = spent.get();
        let within = now.sum().saturating_sub(before);
        now.add(phase, began.elapsed().saturating_sub(within));
        spent.set(now);
    });
}

/// Spends the time of the operation that is watched here, if one is, on `phase` until `future` is done.
pub async fn on<T>(phase: Phase, future: impl Future<Output = T>) -> T {
    let begun = begin();
    let outcome = future.await;
    end(phase, begun);
    outcome
}

/// The same, without waiting.
pub fn here<T>(phase: Phase, work: impl FnOnce() -> T) -> T {
    let begun = begin();
    let outcome = work();
    end(phase, begun);
    outcome
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn what_is_spent_within_something_counts_once() {
        timing::switch_on();
        let sleep = |millis| tokio::time::sleep(Duration::from_millis(millis));
        let operation = on(Phase::Remote, async {
            sleep(20).await;
            on(Phase::Disk, sleep(60)).await;
            here(Phase::Verify, || std::thread::sleep(Duration::from_millis(40)));
        });
        let began = Instant::now();
        let ((), spent) = watch(operation).await;
        assert!(spent.sum() <= began.elapsed(), "{spent:?}");
        assert!(spent.remote >= Duration::from_millis(20), "{spent:?}");
        assert!(spent.disk >= Duration::from_millis(60), "{spent:?}");
        assert!(spent.verify >= Duration::from_millis(40), "{spent:?}");
        assert!(spent.remote < spent.disk + spent.verify, "{spent:?}");
    }

    #[tokio::test]
    async fn where_nobody_watches_nothing_happens() {
        timing::switch_on();
        assert_eq!(on(Phase::Disk, async { 7 }).await, 7);
    }
}
