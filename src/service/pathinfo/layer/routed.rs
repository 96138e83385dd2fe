//! Several sources to read from, and one to write to.

use std::{collections::HashSet, sync::Arc};

use async_trait::async_trait;
use futures::{StreamExt as _, stream};

use crate::{
    castore::Node,
    nix::{NarHash, PathInfo, StorePathDigest},
    service::{
        Error, Result,
        in_turn::{Routed, first_that_has, pass_over},
        pathinfo::{NarCalculation, PathInfoService, PathInfoStream},
    },
};

/// Reads from the first of several sources that knows a store path, and writes to one, or to none.
///
/// You want it wherever a store is in more than one place, or is written elsewhere than it is read. A source that has failed
/// leaves it to those after it; that a path is absent is said only if all of them say so. The list is that of all sources,
/// each path once, as the first source that has it tells of it; where a source fails, the others are listed first, and
/// then the list ends with the error.
///
/// It never copies anything from one source to another. A list holds the 20 bytes of each path that has passed.
pub type RoutedPathInfos = Routed<dyn PathInfoService>;

/// A list on its way.
struct Listing {
    read: Arc<[Arc<dyn PathInfoService>]>,
    /// From which source it comes.
    at: usize,
    list: Option<PathInfoStream>,
    passed: HashSet<StorePathDigest>,
    failed: Option<Error>,
}

impl Listing {
    async fn next(state: Option<Self>) -> Option<(Result<PathInfo>, Option<Self>)> {
        let mut listing = state?;
        loop {
            let Some(list) = &mut listing.list else {
                let Some(one) = listing.read.get(listing.at) else {
                    return listing.failed.map(|error| (Err(error), None));
                };
                listing.list = Some(one.list());
                continue;
            };
            match list.next().await {
                Some(Ok(path_info)) => {
                    if listing.passed.insert(path_info.store_path.digest()) {
                        return Some((Ok(path_info), Some(listing)));
                    }
                }
                Some(Err(error)) => {
                    pass_over(error, &mut listing.failed);
                    (listing.at, listing.list) = (listing.at + 1, None);
                }
                None => (listing.at, listing.list) = (listing.at + 1, None),
            }
        }
    }
}

#[async_trait]
impl PathInfoService for RoutedPathInfos {
    async fn get(&self, digest: &StorePathDigest) -> Result<Option<PathInfo>> {
        let ask = |one: Arc<dyn PathInfoService>| async move { one.get(digest).await };
        Ok(first_that_has(&self.read, ask).await?.map(|(_, path_info)| path_info))
    }

    async fn put(&self, path_info: PathInfo) -> Result<PathInfo> {
        self.target()?.put(path_info).await
    }

    fn list(&self) -> PathInfoStream {
        let (read, passed) = (self.read.clone(), HashSet::new());
        let listing = Listing { read, at: 0, list: None, passed, failed: None };
        stream::unfold(Some(listing), Listing::next).boxed()
    }
}

/// Asks the first of several that can calculate an archive hash: one that has not the contents leaves it to those after it.
#[derive(Debug)]
pub struct RoutedNars(pub Vec<Arc<dyn NarCalculation>>);

#[async_trait]
impl NarCalculation for RoutedNars {
    async fn calculate_nar(&self, node: &Node) -> Result<NarHash> {
        let mut failed = None;
        for one in &self.0 {
            match one.calculate_nar(node).await {
                Ok(nar) => return Ok(nar),
                Err(error) => {
                    tracing::debug!(%error, "another calculates the hash of an archive");
                    failed = Some(error);
                }
            }
        }
        Err(failed.unwrap_or_else(|| Error::invalid("nobody calculates archive hashes")))
    }
}
