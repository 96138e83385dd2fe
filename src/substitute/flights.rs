//! Archives that are arriving, each once, for all who want something of it.

use std::{collections::HashMap, future::Future, sync::Arc};

use parking_lot::Mutex;
use tokio::sync::{Semaphore, watch};

use super::catcher::Catcher;
use crate::{
    castore::Node,
    nix::{ContentClaim, NarHash},
    observe::span::carried,
    service::{Error, Result},
};

/// How many archives arrive at once, at least and at most: one for each processor. Each takes some threads, some 20 MB,
/// and the memory of its decompressor.
const ARRIVING: (usize, usize) = (2, 8);

/// The archives that are arriving. One that has begun arrives to its end, whoever waits for it.
#[derive(Debug)]
pub(super) struct Flights {
    arriving: Mutex<HashMap<Cargo, Arc<Flight>>>,
    room: Semaphore,
}

/// What arrives. Those who want it share how that ends, so it must end the same for all of them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) struct Cargo {
    pub(super) nar: NarHash,
    /// Without which nothing of the archive is stored.
    pub(super) claim: Option<ContentClaim>,
}

/// An archive that is arriving.
#[derive(Debug)]
pub(super) struct Flight {
    pub(super) catcher: Arc<Catcher>,
    outcome: watch::Receiver<Option<Result<Node>>>,
}

impl Default for Flights {
    fn default() -> Self {
        let processors =
            std::thread::available_parallelism().map_or(1, |processors| processors.get());
        let room = Semaphore::new(processors.clamp(ARRIVING.0, ARRIVING.1));
        Flights { arriving: Mutex::default(), room }
    }
}

impl Flights {
    /// What is running for this archive, whatever it holds.
    pub(super) fn running(&self, nar: &NarHash) -> Option<Arc<Flight>> {
        self.arriving.lock().get(&Cargo { nar: *nar, claim: None }).cloned()
    }

    /// What is running for this, or else what `start` returns. Needs the context of a tokio runtime.
    pub(super) fn board<F>(
        self: &Arc<Self>,
        cargo: Cargo,
        catcher: Arc<Catcher>,
        start: impl FnOnce(Arc<Catcher>) -> F,
    ) -> Arc<Flight>
    where
        F: Future<Output = Result<Node>> + Send + 'static,
    {
        let mut arriving = self.arriving.lock();
        if let Some(flight) = arriving.get(&cargo) {
            return flight.clone();
        }
        let (tell, outcome) = watch::channel(None);
        let flight = Arc::new(Flight { catcher: catcher.clone(), outcome });
        arriving.insert(cargo, flight.clone());
        let work = start(catcher.clone());
        let landing = Landing { flights: self.clone(), cargo, catcher };
        tokio::spawn(carried(async move {
            let outcome = match landing.flights.room.acquire().await {
                Ok(_room) => work.await,
                Err(closed) => Err(Error::unavailable("the archive", closed)),
            };
            drop(landing);
            tell.send_replace(Some(outcome));
        }));
        flight
    }
}

/// Takes the flight out of the map, however it ended: also if it panicked.
struct Landing {
    flights: Arc<Flights>,
    cargo: Cargo,
    catcher: Arc<Catcher>,
}

impl Drop for Landing {
    fn drop(&mut self) {
        self.flights.arriving.lock().remove(&self.cargo);
        self.catcher.close();
    }
}

impl Flight {
    /// What the archive holds, once all of it has come.
    pub(super) async fn outcome(&self) -> Result<Node> {
        let mut outcome = self.outcome.clone();
        let stopped = || Error::unavailable("the archive", "it was given up");
        match outcome.wait_for(Option::is_some).await {
            Ok(outcome) => outcome.clone().unwrap_or_else(|| Err(stopped())),
            Err(_) => Err(stopped()),
        }
    }
}
