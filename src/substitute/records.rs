//! Which archives were stored, and what was in them.

use std::{fmt, num::NonZeroUsize, sync::Arc};

use lru::LruCache;
use parking_lot::Mutex;

use crate::{
    castore::{Digest, Node},
    nix::{NarHash, PathInfo, StorePathDigest},
    service::{Result, local::LocalStore},
};

/// How many archives are remembered in memory.
const IN_MEMORY_MAX: NonZeroUsize = NonZeroUsize::new(65_536).expect("it is not zero");

/// The beginning of a digest, as a number: enough to find out in which archives a blob or directory may be.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ContentKey(pub u64);

impl From<&Digest> for ContentKey {
    fn from(digest: &Digest) -> Self {
        let (begin, _) = digest.as_bytes().split_first_chunk().expect("a digest is longer");
        ContentKey(u64::from_be_bytes(*begin))
    }
}

/// Remembers archives that were stored. May forget any of them.
pub trait ArchiveRecords: Send + Sync + fmt::Debug {
    /// What the contents of this archive were found to be.
    fn node(&self, nar: &NarHash) -> Result<Option<Node>>;

    /// Store paths in whose archives such a blob or directory was, each with its archive.
    fn holders(&self, key: ContentKey) -> Result<Vec<(StorePathDigest, NarHash)>>;

    /// Remembers the archive of `path_info`, with the blobs and directories that were in it. Blocks.
    fn record(&self, path_info: &PathInfo, contents: &[ContentKey]) -> Result<()>;
}

/// Remembers in a store directory: for ever in a store, for as long as there is room in a cache.
#[derive(Debug)]
pub struct RecordsInStore(Arc<LocalStore>);

impl RecordsInStore {
    /// In `store`, which must not be read only.
    pub fn new(store: Arc<LocalStore>) -> Result<Self> {
        store.prepare_archives()?;
        Ok(RecordsInStore(store))
    }
}

impl ArchiveRecords for RecordsInStore {
    fn node(&self, nar: &NarHash) -> Result<Option<Node>> {
        self.0.archive_node(nar)
    }

    fn holders(&self, key: ContentKey) -> Result<Vec<(StorePathDigest, NarHash)>> {
        self.0.archives_with(key.0)
    }

    fn record(&self, path_info: &PathInfo, contents: &[ContentKey]) -> Result<()> {
        let contents: Vec<_> = contents.iter().map(|key| key.0).collect();
        self.0.record_archive(path_info, &contents)
    }
}

/// Remembers for as long as this process runs, and not what was in the archives: for stores that forget nothing.
pub struct RecordsInMemory(Mutex<LruCache<NarHash, Node>>);

impl Default for RecordsInMemory {
    fn default() -> Self {
        RecordsInMemory(Mutex::new(LruCache::new(IN_MEMORY_MAX)))
    }
}

impl ArchiveRecords for RecordsInMemory {
    fn node(&self, nar: &NarHash) -> Result<Option<Node>> {
        Ok(self.0.lock().get(nar).cloned())
    }

    fn holders(&self, _: ContentKey) -> Result<Vec<(StorePathDigest, NarHash)>> {
        Ok(Vec::new())
    }

    fn record(&self, path_info: &PathInfo, _: &[ContentKey]) -> Result<()> {
        if let Some(info) = path_info.nar_info() {
            self.0.lock().put(info.nar, path_info.node.clone());
        }
        Ok(())
    }
}

impl fmt::Debug for RecordsInMemory {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("RecordsInMemory").field(&self.0.lock().len()).finish()
    }
}
