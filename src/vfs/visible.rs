//! Which names a view shows, and how its root lists.

use std::{collections::HashSet, fmt, sync::Arc};

use futures::{StreamExt as _, TryStreamExt as _, stream};
use indexmap::IndexMap;
use lru::LruCache;
use parking_lot::Mutex;
use tokio::sync::OwnedMutexGuard;

use super::{
    Error, Result,
    roots::{RootStream, Roots, remembered},
};
use crate::{castore::Node, nix::StorePath};

/// How many names of a listing are asked for at once.
const AT_ONCE: usize = 32;

/// Which store paths a view shows.
#[derive(Debug, Clone)]
pub enum Visible {
    /// Whatever the store has.
    Everything,
    /// These, as far as the store has them, and no others. The root always lists all of them.
    Only(Arc<HashSet<StorePath>>),
}

impl Visible {
    /// These store paths and no others.
    pub fn only(store_paths: impl IntoIterator<Item = StorePath>) -> Self {
        Visible::Only(Arc::new(store_paths.into_iter().collect()))
    }

    /// Whether the store path is shown if the store has it.
    pub fn shows(&self, store_path: &StorePath) -> bool {
        match self {
            Visible::Everything => true,
            Visible::Only(store_paths) => store_paths.contains(store_path),
        }
    }
}

/// The root of a view.
#[derive(Debug)]
pub(super) struct ViewRoot {
    roots: Arc<Roots>,
    visible: Visible,
    seen: Arc<Mutex<LruCache<StorePath, Node>>>,
    listing: Arc<tokio::sync::Mutex<RootListing>>,
}

impl ViewRoot {
    /// With `list_store`, the root lists everything that is visible; else, if that is everything in the store, only what
    /// has been looked up here.
    pub(super) fn new(roots: Arc<Roots>, visible: Visible, list_store: bool) -> Self {
        let seen = Arc::new(Mutex::new(remembered()));
        let listing = RootListing {
            entries: IndexMap::new(),
            roots: roots.clone(),
            visible: visible.clone(),
            list_store,
            seen: seen.clone(),
            walk: None,
            complete: false,
        };
        ViewRoot { roots, visible, seen, listing: Arc::new(tokio::sync::Mutex::new(listing)) }
    }

    /// The store path of that name. [`Error::NotFound`], without asking anyone, if there is none that may be seen here.
    fn store_path(&self, name: &[u8]) -> Result<StorePath> {
        let store_path = StorePath::from_base_name(name).map_err(|_| Error::NotFound)?;
        match self.visible.shows(&store_path) {
            true => Ok(store_path),
            false => Err(Error::NotFound),
        }
    }

    /// What the name stands for, if that is known. `None` if somebody has to be asked.
    pub(super) fn known(&self, name: &[u8]) -> Result<Option<Node>> {
        let store_path = self.store_path(name)?;
        let node = self.roots.known(&store_path);
        Ok(node.inspect(|node| self.saw(store_path, node)))
    }

    /// Asks what a name stands for.
    pub(super) async fn ask(&self, name: &[u8]) -> Result<Node> {
        let store_path = self.store_path(name)?;
        let node = self.roots.ask(&store_path).await?.ok_or(Error::NotFound)?;
        self.saw(store_path, &node);
        Ok(node)
    }

    fn saw(&self, store_path: StorePath, node: &Node) {
        // What is restricted lists all it has anyway.
        if matches!(self.visible, Visible::Everything) {
            self.seen.lock().put(store_path, node.clone());
        }
    }

    /// The listing, for one page of it. Whoever has it keeps the others waiting.
    pub(super) async fn listing(&self) -> OwnedMutexGuard<RootListing> {
        self.listing.clone().lock_owned().await
    }
}

/// The names that listings of the root have given so far, each at a place that it keeps: what was given at an offset
/// stays there, whatever appears in the store meanwhile, so that no listing loses or repeats an entry. All listings
/// of a view share it, since the kernel reads directories without opening them and does not tell listings apart.
///
/// It grows with the number of names that were listed, some 200 bytes each, and not with how often.
pub struct RootListing {
    entries: IndexMap<StorePath, Node>,
    roots: Arc<Roots>,
    visible: Visible,
    list_store: bool,
    seen: Arc<Mutex<LruCache<StorePath, Node>>>,
    /// The walk through the store that looks for more.
    walk: Option<RootStream>,
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
            if self.walk.is_none() {
                self.walk = Some(self.walk());
            }
            let Some(walk) = &mut self.walk else { continue };
            match walk.next().await {
                Some(Ok((store_path, node))) => {
                    self.entries.entry(store_path).or_insert(node);
                }
                // Whoever asks again has the walk begun again; what was found keeps its place.
                Some(Err(error)) => {
                    self.walk = None;
                    return Err(error.into());
                }
                None => {
                    self.walk = None;
                    self.complete = true;
                    for (store_path, node) in self.seen.lock().iter() {
                        if !self.entries.contains_key(store_path) {
                            self.entries.insert(store_path.clone(), node.clone());
                        }
                    }
                }
            }
        }
        Ok(self.entries.get_index(index))
    }

    fn walk(&self) -> RootStream {
        let store_paths = match &self.visible {
            Visible::Only(store_paths) => store_paths,
            Visible::Everything if self.list_store => return self.roots.list(),
            Visible::Everything => return stream::empty().boxed(),
        };
        // Those that are listed already need not be asked for again.
        let new = |path: &&StorePath| !self.entries.contains_key(*path);
        let new: Vec<_> = store_paths.iter().filter(new).cloned().collect();
        let roots = self.roots.clone();
        let found = stream::iter(new).map(move |store_path| {
            let roots = roots.clone();
            async move {
                let node = roots.get(&store_path).await?;
                Ok(node.map(|node| (store_path, node)))
            }
        });
        found.buffered(AT_ONCE).try_filter_map(async |found| Ok(found)).boxed()
    }
}

impl fmt::Debug for RootListing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RootListing").field("entries", &self.entries.len()).finish_non_exhaustive()
    }
}
