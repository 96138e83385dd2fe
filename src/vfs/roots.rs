//! The names in the root of the mount: which there are, and how they are listed.

use std::{fmt, num::NonZeroUsize, sync::Arc};

use futures::StreamExt as _;
use indexmap::IndexMap;
use lru::LruCache;
use parking_lot::Mutex;
use tokio::sync::OwnedMutexGuard;

use super::Result;
use crate::{
    castore::Node,
    nix::StorePath,
    service::pathinfo::{PathInfoService, PathInfoStream},
};

/// How many names are remembered with their contents: about 20 MB of them.
pub const ROOT_NAMES_MAX: usize = 65_536;

/// Resolves and lists top-level names.
#[derive(Debug)]
pub struct Roots {
    path_infos: Arc<dyn PathInfoService>,
    /// What has been looked up. Absent names are not remembered: they may appear at any time.
    known: Arc<Mutex<LruCache<StorePath, Node>>>,
    listing: Arc<tokio::sync::Mutex<RootListing>>,
}

impl Roots {
    /// Over `path_infos`. With `list_store`, the root lists everything there; else what has been looked up here.
    pub fn new(path_infos: Arc<dyn PathInfoService>, list_store: bool) -> Self {
        let bound = NonZeroUsize::new(ROOT_NAMES_MAX).expect("the bound is not 0");
        let known = Arc::new(Mutex::new(LruCache::new(bound)));
        let listing = RootListing {
            entries: IndexMap::new(),
            path_infos: path_infos.clone(),
            list_store,
            known: known.clone(),
            walk: None,
            complete: false,
        };
        Roots { path_infos, known, listing: Arc::new(tokio::sync::Mutex::new(listing)) }
    }

    /// What the name stands for, if it has been looked up before.
    pub fn known(&self, name: &[u8]) -> Option<Node> {
        let store_path = StorePath::from_base_name(name).ok()?;
        self.known.lock().get(&store_path).cloned()
    }

    /// Asks what a name stands for that is not known. One that is no store path is absent without asking anyone, and
    /// one whose digest is known under another name is absent too.
    pub async fn ask(&self, name: &[u8]) -> Result<Option<Node>> {
        let Ok(store_path) = StorePath::from_base_name(name) else { return Ok(None) };
        let Some(path_info) = self.path_infos.get(&store_path.digest()).await? else {
            return Ok(None);
        };
        if path_info.store_path != store_path {
            return Ok(None);
        }
        self.known.lock().put(store_path, path_info.node.clone());
        Ok(Some(path_info.node))
    }

    /// The listing, for one page of it. Whoever has it keeps the others waiting.
    pub async fn listing(&self) -> OwnedMutexGuard<RootListing> {
        self.listing.clone().lock_owned().await
    }
}

/// The names that listings of the root have given so far, each at a place that it keeps: what was given at an offset
/// stays there, whatever appears in the store meanwhile, so that no listing loses or repeats an entry. All listings
/// share it, since the kernel reads directories without opening them and does not tell listings apart.
///
/// It grows with the number of names that were listed, some 200 bytes each, and not with how often.
pub struct RootListing {
    entries: IndexMap<StorePath, Node>,
    path_infos: Arc<dyn PathInfoService>,
    list_store: bool,
    known: Arc<Mutex<LruCache<StorePath, Node>>>,
    /// The walk through the store that looks for more.
    walk: Option<PathInfoStream>,
    /// Whether such a walk came to its end since the listing was begun.
    complete: bool,
}

impl RootListing {
    /// Begins a listing: what has appeared since the last one began will be found.
    pub fn begin(&mut self) {
        self.walk = None;
        self.complete = false;
    }

    /// The entry at `index`, read from the store as far as needed. `None` past the end.
    pub async fn get(&mut self, index: usize) -> Result<Option<(&StorePath, &Node)>> {
        while self.entries.len() <= index && !self.complete {
            let walk = self.walk.get_or_insert_with(|| match self.list_store {
                true => self.path_infos.list(),
                false => futures::stream::empty().boxed(),
            });
            match walk.next().await {
                Some(Ok(path_info)) => {
                    self.entries.entry(path_info.store_path).or_insert(path_info.node);
                }
                // Whoever asks again has the walk begun again; what was found keeps its place.
                Some(Err(error)) => {
                    self.walk = None;
                    return Err(error.into());
                }
                None => {
                    self.walk = None;
                    self.complete = true;
                    for (store_path, node) in self.known.lock().iter() {
                        if !self.entries.contains_key(store_path) {
                            self.entries.insert(store_path.clone(), node.clone());
                        }
                    }
                }
            }
        }
        Ok(self.entries.get_index(index))
    }
}

impl fmt::Debug for RootListing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RootListing").field("entries", &self.entries.len()).finish_non_exhaustive()
    }
}
