//! A directory brings along what lies below it.

use std::{
    collections::{HashMap, HashSet, hash_map::Entry},
    sync::Arc,
    time::Duration,
};

use async_trait::async_trait;
use futures::StreamExt as _;
use parking_lot::Mutex;
use tokio::sync::oneshot;

use crate::{
    castore::{Digest, Directory, SizeRule},
    observe::{event, span::carried},
    service::{
        Error, Result,
        directory::{DirectoryPutter, DirectoryService, DirectoryStream},
    },
};

/// How many closures arrive at once. Beyond that, single directories are asked for.
const FLIGHTS_MAX: usize = 64;

/// How many directories a closure may have. A peer that sends more is not listened to.
const CLOSURE_DIRECTORIES_MAX: usize = 1 << 22;

/// How long a directory is waited for that a closure will bring, before it is asked for alone: it may be the last of
/// many, on a slow line.
const WAIT_MAX: Duration = Duration::from_secs(1);

/// How often a closure is asked for that breaks off.
const ATTEMPTS_MAX: usize = 2;

/// Asks for the whole closure of a directory that is not here, hands out each directory as it arrives, and lets those
/// wait that will come.
///
/// You want it before a far store, above a layer that keeps what passes: whoever enters a tree will walk it, and then
/// needs no further request. A closure arrives to its end even if nobody waits for it any more.
///
/// It keeps nothing itself. What a broken closure has not brought is asked for when it is needed.
#[derive(Debug)]
pub struct ArrivingDirectories {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    inner: Arc<dyn DirectoryService>,
    arriving: Mutex<Arriving>,
}

/// What is on its way.
#[derive(Debug, Default)]
struct Arriving {
    flights: usize,
    /// Directories that will come: named by one that has come, or the root of a closure. With those who wait for each.
    expected: HashMap<Digest, Vec<Waiter>>,
}

type Waiter = oneshot::Sender<Outcome>;

/// What became of a directory that was expected.
#[derive(Debug, Clone)]
enum Outcome {
    Here(Arc<Directory>),
    /// The store does not have the closure.
    Absent,
    /// The store cannot be asked at all.
    Failed(Error),
    /// The closure ended without it.
    Unknown,
}

impl ArrivingDirectories {
    /// Over `inner`, which keeps what passes.
    pub fn new(inner: Arc<dyn DirectoryService>) -> Self {
        ArrivingDirectories { shared: Arc::new(Shared { inner, arriving: Mutex::default() }) }
    }

    /// Waits for `digest` if it will come; else lets it come, if there is room for that.
    fn board(&self, digest: &Digest) -> Option<oneshot::Receiver<Outcome>> {
        let (send, receive) = oneshot::channel();
        {
            let mut arriving = self.shared.arriving.lock();
            let is_full = arriving.flights >= FLIGHTS_MAX;
            match arriving.expected.entry(*digest) {
                Entry::Occupied(mut waiters) => {
                    waiters.get_mut().push(send);
                    return Some(receive);
                }
                Entry::Vacant(_) if is_full => return None,
                Entry::Vacant(place) => drop(place.insert(vec![send])),
            }
            arriving.flights += 1;
        }
        tokio::spawn(carried(Flight::new(self.shared.clone(), *digest).run()));
        Some(receive)
    }
}

#[async_trait]
impl DirectoryService for ArrivingDirectories {
    async fn get(&self, digest: &Digest) -> Result<Option<Arc<Directory>>> {
        let inner = &self.shared.inner;
        if let Some(directory) = inner.get_local(digest)? {
            return Ok(Some(directory));
        }
        let Some(mut arrival) = self.board(digest) else { return inner.get(digest).await };
        let outcome = match tokio::time::timeout(WAIT_MAX, &mut arrival).await {
            Ok(outcome) => outcome,
            Err(_) => tokio::select! {
                outcome = arrival => outcome,
                alone = inner.get(digest) => return alone,
            },
        };
        match outcome {
            Ok(Outcome::Here(directory)) => Ok(Some(directory)),
            Ok(Outcome::Absent) => Ok(None),
            Ok(Outcome::Failed(error)) => Err(error),
            Ok(Outcome::Unknown) | Err(_) => inner.get(digest).await,
        }
    }

    fn get_local(&self, digest: &Digest) -> Result<Option<Arc<Directory>>> {
        self.shared.inner.get_local(digest)
    }

    async fn get_closure(&self, root: &Digest) -> Result<Option<DirectoryStream>> {
        self.shared.inner.get_closure(root).await
    }

    async fn put(&self, directory: Arc<Directory>) -> Result<()> {
        self.shared.inner.put(directory).await
    }

    async fn put_closure(&self) -> Result<Box<dyn DirectoryPutter>> {
        self.shared.inner.put_closure().await
    }

    async fn size_rule(&self) -> Result<SizeRule> {
        self.shared.inner.size_rule().await
    }

    async fn sync(&self) -> Result<()> {
        self.shared.inner.sync().await
    }
}

/// One closure on its way. When it ends, however it ends, nothing is expected of it any more.
struct Flight {
    shared: Arc<Shared>,
    root: Digest,
    /// What it has brought.
    brought: HashSet<Digest>,
    /// What it will bring, as far as that is known. Another may bring it first.
    due: HashSet<Digest>,
    outcome: Outcome,
}

impl Flight {
    fn new(shared: Arc<Shared>, root: Digest) -> Self {
        let due = HashSet::from([root]);
        Flight { shared, root, brought: HashSet::new(), due, outcome: Outcome::Unknown }
    }

    async fn run(mut self) {
        for attempt in 1..=ATTEMPTS_MAX {
            let error = match self.arrive().await {
                Ok(true) => return,
                Ok(false) => {
                    self.outcome = Outcome::Absent;
                    return;
                }
                Err(error) => error,
            };
            let root = &self.root;
            match error {
                // Before anything came, all that could be tried was tried.
                Error::Unavailable { .. } if !self.brought.is_empty() && attempt < ATTEMPTS_MAX => {
                }
                Error::Unavailable { .. } | Error::TimedOut { .. } | Error::Offline { .. } => {
                    self.outcome = Outcome::Failed(error);
                    return;
                }
                // Each directory may be right all the same.
                Error::Corrupt { .. } | Error::Invalid(_) | Error::Unsupported { .. } => {
                    tracing::error!(
                        event = event::CORRUPT,
                        %root,
                        %error,
                        "a closure is wrong: its directories are asked for one by one"
                    );
                    return;
                }
            }
        }
    }

    /// Reads the closure. `false` if it is absent.
    async fn arrive(&mut self) -> Result<bool> {
        let Some(mut closure) = self.shared.inner.get_closure(&self.root).await? else {
            return Ok(false);
        };
        while let Some(directory) = closure.next().await {
            self.bring(directory?);
            if self.brought.len() > CLOSURE_DIRECTORIES_MAX {
                let what = format!("the closure of directory {} does not end", self.root);
                return Err(Error::invalid(what));
            }
        }
        Ok(true)
    }

    fn bring(&mut self, directory: Arc<Directory>) {
        let digest = directory.digest();
        if !self.brought.insert(digest) {
            return;
        }
        self.due.remove(&digest);
        let waiters = {
            let mut arriving = self.shared.arriving.lock();
            for (child, _) in directory.directories() {
                if !self.brought.contains(&child) && self.due.insert(child) {
                    arriving.expected.entry(child).or_default();
                }
            }
            arriving.expected.remove(&digest)
        };
        tell(waiters.into_iter().flatten(), &Outcome::Here(directory));
    }
}

impl Drop for Flight {
    fn drop(&mut self) {
        let waiters: Vec<_> = {
            let mut arriving = self.shared.arriving.lock();
            arriving.flights -= 1;
            self.due.iter().filter_map(|digest| arriving.expected.remove(digest)).collect()
        };
        tell(waiters.into_iter().flatten(), &self.outcome);
    }
}

fn tell(waiters: impl Iterator<Item = Waiter>, outcome: &Outcome) {
    for waiter in waiters {
        // It may have given up.
        let _ = waiter.send(outcome.clone());
    }
}

#[cfg(test)]
mod tests;
