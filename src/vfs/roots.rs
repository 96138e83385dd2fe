//! The names in the root of the mount: which there are, and how they are listed.

use std::{collections::HashSet, num::NonZeroUsize, sync::Arc};

use futures::StreamExt as _;
use lru::LruCache;
use parking_lot::Mutex;

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
    list_store: bool,
    /// What has been looked up. Absent names are not remembered: they may appear at any time.
    known: Mutex<LruCache<StorePath, Node>>,
}

impl Roots {
    /// Over `path_infos`. With `list_store`, the root lists everything there; else what has been looked up here.
    pub fn new(path_infos: Arc<dyn PathInfoService>, list_store: bool) -> Self {
        let bound = NonZeroUsize::new(ROOT_NAMES_MAX).expect("the bound is not 0");
        Roots { path_infos, list_store, known: Mutex::new(LruCache::new(bound)) }
    }

    /// What the name stands for. A name that is no store path is absent without asking anyone, and one whose digest
    /// is known under another name is absent too.
    pub async fn get(&self, name: &[u8]) -> Result<Option<Node>> {
        let Ok(store_path) = StorePath::from_base_name(name) else { return Ok(None) };
        if let Some(node) = self.known.lock().get(&store_path) {
            return Ok(Some(node.clone()));
        }
        let Some(path_info) = self.path_infos.get(&store_path.digest()).await? else {
            return Ok(None);
        };
        if path_info.store_path != store_path {
            return Ok(None);
        }
        self.known.lock().put(store_path, path_info.node.clone());
        Ok(Some(path_info.node))
    }

    /// Starts a listing.
    pub fn list(&self) -> RootListing {
        let stream = match self.list_store {
            true => self.path_infos.list(),
            false => futures::stream::empty().boxed(),
        };
        let known = self.known.lock().iter().map(|(p, n)| (p.clone(), n.clone())).collect();
        RootListing { stream: Some(stream), known, names: HashSet::new(), entries: Vec::new() }
    }
}

/// One listing of the root, for one open directory. What was given at an offset stays there, whatever appears in the
/// store meanwhile, so that no entry is lost or repeated.
pub struct RootListing {
    stream: Option<PathInfoStream>,
    /// What had been looked up when the listing began.
    known: Vec<(StorePath, Node)>,
    names: HashSet<StorePath>,
    entries: Vec<(StorePath, Node)>,
}

impl RootListing {
    /// The entry at `index`, read from the store as far as needed. `None` past the end.
    pub async fn get(&mut self, index: usize) -> Result<Option<&(StorePath, Node)>> {
        while self.entries.len() <= index {
            let Some(stream) = &mut self.stream else { break };
            match stream.next().await.transpose()? {
                Some(path_info) => self.add(path_info.store_path, path_info.node),
                None => {
                    self.stream = None;
                    for (store_path, node) in std::mem::take(&mut self.known) {
                        self.add(store_path, node);
                    }
                }
            }
        }
        Ok(self.entries.get(index))
    }

    fn add(&mut self, store_path: StorePath, node: Node) {
        if self.names.insert(store_path.clone()) {
            self.entries.push((store_path, node));
        }
    }
}
