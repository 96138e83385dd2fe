//! What the names in the root of a tree stand for.

use std::{num::NonZeroUsize, pin::Pin, sync::Arc};

use futures::{Stream, StreamExt as _, TryStreamExt as _};
use lru::LruCache;
use parking_lot::Mutex;

use crate::{
    castore::Node,
    nix::StorePath,
    service::{self, pathinfo::PathInfoService},
};

/// How many names are remembered with their contents: about 20 MB of them.
pub const ROOT_NAMES_MAX: usize = 65_536;

/// Names with what they stand for.
pub(super) type RootStream = Pin<Box<dyn Stream<Item = service::Result<(StorePath, Node)>> + Send>>;

/// Resolves top-level names, for all views.
#[derive(Debug)]
pub(super) struct Roots {
    path_infos: Arc<dyn PathInfoService>,
    /// What has been looked up. Absent names are not remembered: they may appear at any time.
    known: Mutex<LruCache<StorePath, Node>>,
}

/// So many names, the one that was not used for longest given up first.
pub(super) fn remembered<T>() -> LruCache<StorePath, T> {
    LruCache::new(NonZeroUsize::new(ROOT_NAMES_MAX).expect("the bound is not 0"))
}

impl Roots {
    /// Over `path_infos`.
    pub(super) fn new(path_infos: Arc<dyn PathInfoService>) -> Self {
        Roots { path_infos, known: Mutex::new(remembered()) }
    }

    /// What the name stands for, if it has been looked up before.
    pub(super) fn known(&self, store_path: &StorePath) -> Option<Node> {
        self.known.lock().get(store_path).cloned()
    }

    /// Asks what a name stands for. One whose digest is known under another name is absent.
    pub(super) async fn ask(&self, store_path: &StorePath) -> service::Result<Option<Node>> {
        let Some(path_info) = self.path_infos.get(&store_path.digest()).await? else {
            return Ok(None);
        };
        if path_info.store_path != *store_path {
            return Ok(None);
        }
        self.known.lock().put(path_info.store_path, path_info.node.clone());
        Ok(Some(path_info.node))
    }

    /// What the name stands for, from memory or by asking.
    pub(super) async fn get(&self, store_path: &StorePath) -> service::Result<Option<Node>> {
        match self.known(store_path) {
            Some(node) => Ok(Some(node)),
            None => self.ask(store_path).await,
        }
    }

    /// Everything in the store.
    pub(super) fn list(&self) -> RootStream {
        self.path_infos.list().map_ok(|info| (info.store_path, info.node)).boxed()
    }
}
