//! What all views of a store have in common.

use std::sync::Arc;

use parking_lot::Mutex;

use super::{
    InodeTable,
    holders::{ViewId, ViewIds},
    roots::Roots,
    siblings::Siblings,
};
use crate::{
    observe,
    service::{Stores, blob::BlobService, directory::DirectoryService},
};

/// The inodes of a store, what is known of its names, and the services that bring and keep its contents.
///
/// It belongs to nobody: what may be seen of it, and by whom, is the business of its [views](super::Vfs). Any number of
/// them may share one; what one of them brings here is here for all.
pub struct Tree {
    pub(super) blobs: Arc<dyn BlobService>,
    pub(super) directories: Arc<dyn DirectoryService>,
    pub(super) roots: Arc<Roots>,
    pub(super) inodes: InodeTable,
    /// Where files are fetched ahead.
    pub(super) siblings: Option<Arc<Siblings>>,
    views: Mutex<ViewIds>,
}

impl Tree {
    /// Over a store.
    pub fn new(stores: &Stores) -> Self {
        Tree {
            blobs: stores.blobs.clone(),
            directories: stores.directories.clone(),
            roots: Arc::new(Roots::new(stores.path_infos.clone())),
            inodes: InodeTable::new(),
            siblings: Siblings::new(&stores.blobs).map(Arc::new),
            views: Mutex::default(),
        }
    }

    /// The inodes that the kernels of all views know.
    pub fn inodes(&self) -> &InodeTable {
        &self.inodes
    }

    /// Makes the numbers of this tree known, for as long as it lives.
    pub fn tell(self: &Arc<Self>) {
        let tree = Arc::downgrade(self);
        observe::register(move |scrape| {
            let Some(tree) = tree.upgrade() else { return false };
            scrape.count(&observe::names::INODES, &[], tree.inodes.len() as u64);
            true
        });
    }

    pub(super) fn begin_view(&self) -> ViewId {
        self.views.lock().take()
    }

    pub(super) fn end_view(&self, view: ViewId) {
        self.inodes.forget_all(view);
        self.views.lock().give_back(view);
    }
}
