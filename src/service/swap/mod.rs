//! A store in place of which another can be put while it is in use.
//!
//! You want it where a process lives longer than its configuration. A call that began goes on with the store that it began
//! with; the next one asks the new store. All four services change at the same moment. It never waits, and costs an operation
//! that is answered at once some 20 ns.

mod blobs;
mod directories;
mod nars;
mod path_infos;

use std::sync::Arc;

use arc_swap::ArcSwap;

use super::Stores;

/// The place of a store.
#[derive(Debug, Clone)]
pub struct Swap(Arc<ArcSwap<Stores>>);

impl Swap {
    /// With the first one.
    pub fn new(stores: Stores) -> Self {
        Swap(Arc::new(ArcSwap::from_pointee(stores)))
    }

    /// The services of whichever store is there at the time.
    pub fn stores(&self) -> Stores {
        Stores {
            blobs: Arc::new(blobs::SwapBlobs(self.clone())),
            directories: Arc::new(directories::SwapDirectories(self.clone())),
            path_infos: Arc::new(path_infos::SwapPathInfos(self.clone())),
            nars: Arc::new(nars::SwapNars(self.clone())),
        }
    }

    /// Puts another store in place of the one that is there.
    pub fn put(&self, stores: Stores) {
        self.0.store(Arc::new(stores));
    }

    /// The store that is there now, for as long as a call takes.
    fn now(&self) -> Arc<Stores> {
        self.0.load_full()
    }

    /// Asks the store that is there now something that is answered at once.
    fn with<T>(&self, ask: impl FnOnce(&Stores) -> T) -> T {
        ask(&self.0.load())
    }
}

#[cfg(test)]
mod tests;
