//! One piece of work for all who want the same thing at the same time.

use std::{collections::HashMap, fmt, future::Future, hash::Hash};

use futures::{
    FutureExt as _,
    future::{BoxFuture, Shared},
};
use parking_lot::Mutex;

use super::Result;
use crate::observe::span::carried;

/// Joins callers with equal keys onto one running future.
///
/// Any caller may be dropped: the others drive the work on, and it is dropped with the last of them. Nothing is
/// remembered once it is done, errors neither.
pub struct SingleFlight<K: Hash + Eq + Clone, V: Clone> {
    flights: Mutex<HashMap<K, Flight<V>>>,
}

struct Flight<V: Clone> {
    work: Shared<BoxFuture<'static, Result<V>>>,
    aboard: usize,
}

impl<K: Hash + Eq + Clone, V: Clone> Default for SingleFlight<K, V> {
    fn default() -> Self {
        SingleFlight { flights: Mutex::default() }
    }
}

impl<K: Hash + Eq + Clone, V: Clone> fmt::Debug for SingleFlight<K, V> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SingleFlight").field("running", &self.running()).finish()
    }
}

impl<K: Hash + Eq + Clone, V: Clone> SingleFlight<K, V> {
    /// The result of the work for `key`: of what is running, or else of what `start` returns.
    pub async fn run<F>(&self, key: K, start: impl FnOnce() -> F) -> Result<V>
    where
        F: Future<Output = Result<V>> + Send + 'static,
    {
        let work = {
            let mut flights = self.flights.lock();
            let flight = flights
                .entry(key.clone())
                .or_insert_with(|| Flight { work: carried(start()).boxed().shared(), aboard: 0 });
            flight.aboard += 1;
            flight.work.clone()
        };
        let _aboard = Aboard { flights: &self.flights, key: &key };
        work.await
    }

    /// How many pieces of work are running.
    pub fn running(&self) -> usize {
        self.flights.lock().len()
    }
}

/// A caller that waits; the last to leave takes the flight out of the map.
struct Aboard<'a, K: Hash + Eq, V: Clone> {
    flights: &'a Mutex<HashMap<K, Flight<V>>>,
    key: &'a K,
}

impl<K: Hash + Eq, V: Clone> Drop for Aboard<'_, K, V> {
    fn drop(&mut self) {
        let mut flights = self.flights.lock();
        let Some(flight) = flights.get_mut(self.key) else { return };
        flight.aboard -= 1;
        if flight.aboard == 0 {
            let abandoned = flights.remove(self.key);
            // What the work holds is given back without the lock.
            drop(flights);
            drop(abandoned);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::{
        sync::{
            Arc,
            atomic::{AtomicUsize, Ordering},
        },
        time::Duration,
    };

    use super::*;

    #[tokio::test]
    async fn those_who_want_the_same_share_one_run() {
        let flights = SingleFlight::default();
        let runs = Arc::new(AtomicUsize::new(0));
        let work = || {
            let runs = runs.clone();
            async move {
                tokio::time::sleep(Duration::from_millis(10)).await;
                Ok(runs.fetch_add(1, Ordering::SeqCst))
            }
        };
        let (a, b, other) =
            tokio::join!(flights.run(1, work), flights.run(1, work), flights.run(2, work));
        assert_eq!(a.expect("works"), b.expect("works"));
        other.expect("works");
        assert_eq!(runs.load(Ordering::SeqCst), 2);
        assert_eq!(flights.running(), 0);
    }

    #[tokio::test]
    async fn a_waiter_that_leaves_takes_nothing_with_it() {
        let flights = Arc::new(SingleFlight::default());
        let work = || async {
            tokio::time::sleep(Duration::from_millis(20)).await;
            Ok(7)
        };
        let first = tokio::spawn({
            let flights = flights.clone();
            async move { flights.run((), work).await }
        });
        tokio::task::yield_now().await;
        let second = flights.run((), || async { Ok(8) });
        first.abort();
        assert_eq!(second.await.expect("works"), 7);
        let _ = first.await;
        assert_eq!(flights.running(), 0);
    }
}
