//! Several binary caches as one store: each archive is fetched when its path is first asked for.

use std::{sync::Arc, time::Duration};

use futures::{FutureExt as _, StreamExt as _, stream, stream::FuturesUnordered};
use tokio::{sync::Mutex, time::sleep};

use super::{
    SubstitutedBlobs,
    binary_cache::{BinaryCache, Told},
    catcher::{Catcher, Caught, warned},
    fault::CacheFault,
    flights::{Cargo, Flight, Flights},
    keeping::Keeping,
    records::{ArchiveRecords, ContentKey},
    transfer::transfer,
};
use crate::{
    castore::{Digest, Node, NodeRef},
    nix::{NarHash, PathInfo, StorePathDigest},
    observe::event,
    render::{RenderError, is_as_claimed},
    service::{Error, Result, blob::BlobService, directory::DirectoryService, local::offload},
};

/// How long the next cache is kept waiting for the one before it.
const NEXT_AFTER: Duration = Duration::from_secs(2);

/// How long it is waited for caches to say in which order they want to be asked.
const ORDER_WAIT_MAX: Duration = Duration::from_secs(2);

/// The priority of a cache that has not said anything yet: after all others.
const PRIORITY_UNKNOWN: u32 = u32::MAX;

/// How many blobs are looked for at once, to find out whether all of an archive is here.
const LOOKED_FOR_AT_ONCE: usize = 64;

/// How many archives are waited for at most to give a blob: the first may have begun before it was known that nobody
/// keeps that one.
const CATCHES_MAX: usize = 4;

/// Where archives go.
#[derive(Debug, Clone)]
pub struct Destination {
    /// Contents of files.
    pub blobs: Arc<dyn BlobService>,
    /// Directories.
    pub directories: Arc<dyn DirectoryService>,
    /// Which archives were stored.
    pub records: Arc<dyn ArchiveRecords>,
    /// Whether it may forget what it was given, and need not take everything.
    pub is_cache: bool,
    /// The longest blob that it keeps, in bytes.
    pub blob_len_max: u64,
}

/// Binary caches, and where what comes from them goes.
#[derive(Debug)]
pub struct Substituter {
    caches: Vec<Arc<BinaryCache>>,
    to: Destination,
    flights: Arc<Flights>,
    /// The caches in the order in which they are asked, once all have said where they want to be.
    order: Mutex<Option<Vec<Arc<BinaryCache>>>>,
}

/// What one of the caches told.
struct Found {
    cache: Arc<BinaryCache>,
    told: Told,
}

impl Substituter {
    /// Over some caches. Needs the context of a tokio runtime, in which they are asked for what they are.
    pub fn new(caches: Vec<BinaryCache>, to: Destination) -> Arc<Self> {
        let caches: Vec<_> = caches.into_iter().map(Arc::new).collect();
        for cache in &caches {
            let cache = cache.clone();
            tokio::spawn(async move {
                if let Err(error) = cache.info().await {
                    tracing::debug!(%error, "a binary cache does not say what it is");
                }
            });
        }
        Arc::new(Substituter { caches, to, flights: Arc::default(), order: Mutex::default() })
    }

    /// What the caches are called in errors.
    pub(super) fn endpoint(&self) -> Arc<str> {
        let names: Vec<_> = self.caches.iter().map(|cache| &**cache.endpoint()).collect();
        names.join(", ").into()
    }

    pub(super) fn to(&self) -> &Destination {
        &self.to
    }

    /// The caches, the one to ask first first.
    async fn ordered(&self) -> Vec<Arc<BinaryCache>> {
        if self.caches.len() < 2 {
            return self.caches.clone();
        }
        let mut order = self.order.lock().await;
        if let Some(order) = &*order {
            return order.clone();
        }
        let unsaid = self.caches.iter().filter(|cache| cache.priority().is_none());
        let infos = futures::future::join_all(unsaid.map(|cache| cache.info().map(drop)));
        // Without them it goes on, and they are asked last.
        let all_said = tokio::time::timeout(ORDER_WAIT_MAX, infos).await.is_ok()
            && self.caches.iter().all(|cache| cache.priority().is_some());
        let mut ordered = self.caches.clone();
        ordered.sort_by_key(|cache| cache.priority().unwrap_or(PRIORITY_UNKNOWN));
        if all_said {
            *order = Some(ordered.clone());
        }
        ordered
    }

    /// What is known of a store path, whose contents have then been stored. `None` if no cache has it. A cache that
    /// fails leaves it to the others; only if none has it, that is an error.
    pub(super) async fn get(
        self: &Arc<Self>,
        digest: &StorePathDigest,
    ) -> Result<Option<PathInfo>> {
        let mut left = self.ordered().await;
        let mut failed = None;
        loop {
            let found = match ask_in_turn(&mut left, digest).await {
                Ok(found) => found,
                Err(error) => {
                    failed.get_or_insert(error);
                    None
                }
            };
            let Some(Found { cache, told }) = found else {
                return failed.map_or(Ok(None), Err);
            };
            match self.contents(&cache, &told).await {
                Ok(node) => return Ok(Some(told.file.into_path_info(node))),
                Err(error) => {
                    let path = &told.file.store_path;
                    tracing::warn!(
                        event = event::CALL_FAILED,
                        %path,
                        %error,
                        "an archive could not be fetched"
                    );
                    failed.get_or_insert(error);
                }
            }
        }
    }

    /// The contents of the archive that is told of, which are here or come now.
    async fn contents(self: &Arc<Self>, cache: &Arc<BinaryCache>, told: &Told) -> Result<Node> {
        let nar = told.file.info.nar;
        let fault = || cache.wrong(CacheFault::ContentAddress(told.file.store_path.clone()));
        if told.claim.is_some_and(|claim| claim.holds_for(&nar) == Some(false)) {
            return Err(fault());
        }
        let known = warned("archives are not remembered", self.to.records.node(&nar)).flatten();
        let node = match known {
            Some(node) if self.to.is_cache || self.is_here(&node).await? => node,
            _ => self.board(cache, told, Arc::default()).outcome().await?,
        };
        if let Some(claim) = &told.claim
            && claim.holds_for(&nar) != Some(true)
        {
            let blobs: Arc<dyn BlobService> = Arc::new(SubstitutedBlobs::new(self.clone()));
            match is_as_claimed(&blobs, &self.to.directories, &node, claim).await {
                Ok(true) => {}
                Ok(false) => return Err(fault()),
                Err(RenderError::Service(error)) => return Err(error),
                Err(error) => return Err(Error::unavailable(cache.endpoint(), error)),
            }
        }
        Ok(node)
    }

    /// Whether one of the caches would be believed this of a path, whose contents were found in the archive that it
    /// tells of. Asks nobody.
    pub(super) fn believes(&self, path_info: &PathInfo) -> Result<bool> {
        let Some(info) = path_info.nar_info() else { return Ok(false) };
        Ok(self.caches.iter().any(|cache| cache.would_be_believed(path_info))
            && self.to.records.node(&info.nar)?.as_ref() == Some(&path_info.node))
    }

    /// Whether all that is below `node` is at its destination.
    async fn is_here(&self, node: &Node) -> Result<bool> {
        let Destination { blobs, directories, .. } = &self.to;
        let root = match node {
            Node::Symlink { .. } => return Ok(true),
            Node::File { digest, .. } => return blobs.has(digest).await,
            Node::Directory { digest, .. } => digest,
        };
        let Some(mut closure) = directories.get_closure(root).await? else { return Ok(false) };
        while let Some(directory) = closure.next().await {
            let Ok(directory) = directory else { return Ok(false) };
            let files: Vec<Digest> = directory
                .entries()
                .filter_map(|entry| match entry.node {
                    NodeRef::File { digest, .. } => Some(digest),
                    NodeRef::Directory { .. } | NodeRef::Symlink { .. } => None,
                })
                .collect();
            let questions = files.into_iter().map(|digest| {
                let blobs = blobs.clone();
                async move { blobs.has(&digest).await }
            });
            let mut answers = stream::iter(questions).buffer_unordered(LOOKED_FOR_AT_ONCE);
            while let Some(has) = answers.next().await {
                if !has? {
                    return Ok(false);
                }
            }
        }
        Ok(true)
    }

    /// Lets an archive arrive, if it is not arriving.
    fn board(&self, cache: &Arc<BinaryCache>, told: &Told, catcher: Arc<Catcher>) -> Arc<Flight> {
        let (cache, told, to) = (cache.clone(), told.clone(), self.to.clone());
        // A cache evicts what nobody names, so what its archives are said to be is looked at by whoever asks.
        let claim = told.unproven_claim().filter(|_| !to.is_cache);
        let cargo = Cargo { nar: told.file.info.nar, claim };
        self.flights.board(cargo, catcher, |catcher| arrive(cache, told, to, catcher))
    }

    /// Fetches again the archive in which a directory or blob was, and waits for it to have come. `false` if it is not
    /// known to have been in any.
    pub(super) async fn restore(&self, digest: &Digest) -> Result<bool> {
        let Some(flight) = self.flight_with(digest, Arc::default()).await? else {
            return Ok(false);
        };
        flight.outcome().await?;
        Ok(true)
    }

    /// Fetches again the archive in which a blob was, and waits for it to pass. `None` if it is not known to have been
    /// in any. `size` is its length in bytes, if that is known.
    pub(super) async fn catch(&self, digest: &Digest, size: Option<u64>) -> Result<Option<Caught>> {
        let mut spills = size.is_some_and(|size| size > self.to.blob_len_max);
        for _ in 0..CATCHES_MAX {
            let catcher = Arc::new(Catcher::default());
            let mut waits = catcher.wait_for(digest);
            if spills {
                catcher.spill();
            }
            let Some(flight) = self.flight_with(digest, catcher.clone()).await? else {
                return Ok(None);
            };
            if !Arc::ptr_eq(&flight.catcher, &catcher) {
                waits = flight.catcher.wait_for(digest);
                if spills {
                    flight.catcher.spill();
                }
            }
            // It may have passed before.
            let near = warned("the cache cannot be read", self.to.blobs.open_local(digest));
            if let Some(blob) = near.flatten() {
                return Ok(Some(Caught::File(blob)));
            }
            if let Ok(caught) = waits.await {
                return Ok(Some(caught));
            }
            flight.outcome().await?;
            let near = warned("the cache cannot be read", self.to.blobs.open_local(digest));
            if let Some(blob) = near.flatten() {
                return Ok(Some(Caught::File(blob)));
            }
            // Nobody kept it.
            spills = true;
        }
        let what = format!("blob {digest} does not come out of its archive again");
        Err(Error::unavailable(&self.endpoint(), what))
    }

    /// An archive in which this was, on its way: one that is arriving already, or else one that is asked for.
    async fn flight_with(
        &self,
        digest: &Digest,
        catcher: Arc<Catcher>,
    ) -> Result<Option<Arc<Flight>>> {
        let holders = self.to.records.holders(ContentKey::from(digest))?;
        if let Some(flight) = holders.iter().find_map(|(_, nar)| self.flights.running(nar)) {
            return Ok(Some(flight));
        }
        let holder = self.holder(digest, holders).await?;
        Ok(holder.map(|Found { cache, told }| self.board(&cache, &told, catcher)))
    }

    /// A cache that still has an archive in which this was.
    async fn holder(
        &self,
        digest: &Digest,
        holders: Vec<(StorePathDigest, NarHash)>,
    ) -> Result<Option<Found>> {
        let mut failed = None;
        for (path, nar) in holders {
            match self.find(&path, &nar).await {
                Ok(Some(found)) => return Ok(Some(found)),
                Ok(None) => {
                    let what = format!("the archive in which {digest} was is in no cache any more");
                    failed.get_or_insert(Error::unavailable(&self.endpoint(), what));
                }
                Err(error) => {
                    failed.get_or_insert(error);
                }
            }
        }
        failed.map_or(Ok(None), Err)
    }

    /// A cache that has this very archive for the store path.
    async fn find(&self, digest: &StorePathDigest, nar: &NarHash) -> Result<Option<Found>> {
        let mut left = self.ordered().await;
        while let Some(found) = ask_in_turn(&mut left, digest).await? {
            if found.told.file.info.nar == *nar {
                return Ok(Some(found));
            }
        }
        Ok(None)
    }
}

/// Asks one cache after the other, the next as soon as one has nothing, fails, or is slow. What stays in `left` are
/// those that have not answered before the first that has something. An error only if nobody has it.
async fn ask_in_turn(
    left: &mut Vec<Arc<BinaryCache>>,
    digest: &StorePathDigest,
) -> Result<Option<Found>> {
    let mut answers = FuturesUnordered::new();
    let mut next = 0;
    let mut answered: Vec<Arc<BinaryCache>> = Vec::new();
    let mut failed = None;
    let found = loop {
        if answers.is_empty() {
            let Some(cache) = left.get(next) else { break None };
            answers.push(ask(cache.clone(), *digest));
            next += 1;
        }
        tokio::select! {
            Some((cache, answer)) = answers.next() => {
                answered.push(cache.clone());
                match answer {
                    Ok(Some(told)) => break Some(Found { cache, told }),
                    Ok(None) => {}
                    Err(error) => {
                        let cache = &**cache.endpoint();
                        tracing::debug!(%error, cache, "the next cache is asked");
                        failed.get_or_insert(error);
                    }
                }
            }
            () = sleep(NEXT_AFTER), if next < left.len() => {
                answers.push(ask(left[next].clone(), *digest));
                next += 1;
            }
        }
    };
    left.retain(|cache| !answered.iter().any(|answered| Arc::ptr_eq(answered, cache)));
    match (found, failed) {
        (None, Some(error)) => Err(error),
        (found, _) => Ok(found),
    }
}

async fn ask(
    cache: Arc<BinaryCache>,
    digest: StorePathDigest,
) -> (Arc<BinaryCache>, Result<Option<Told>>) {
    let told = cache.told(&digest).await;
    (cache, told)
}

/// Brings an archive to its destination, and remembers it.
async fn arrive(
    cache: Arc<BinaryCache>,
    told: Told,
    to: Destination,
    catcher: Arc<Catcher>,
) -> Result<Node> {
    let keeping = Keeping::new(to.blobs.clone(), to.directories.clone(), to.is_cache, catcher);
    let services = Arc::new(keeping.clone());
    // A cache evicts what nobody names; elsewhere it would stay.
    let looks_first = !to.is_cache;
    let ingested = transfer(&cache, &told, services.clone(), services, looks_first).await?;
    tracing::debug!(
        path = %told.file.store_path, cache = &**cache.endpoint(),
        bytes = ingested.nar.size, new_bytes = ingested.counts.new_bytes, "an archive has come"
    );
    if !to.is_cache {
        to.blobs.sync().await?;
        to.directories.sync().await?;
    }
    let node = ingested.node.clone();
    let path_info = told.file.into_path_info(ingested.node);
    let is_cache = to.is_cache;
    let record = move || to.records.record(&path_info, &keeping.seen());
    match offload(cache.endpoint(), record).await {
        // What is not remembered could not be fetched again.
        Err(error) if is_cache => Err(error),
        recorded => {
            warned("an archive is not remembered", recorded);
            Ok(node)
        }
    }
}
