//! The cache by itself, for those who look after it.

use std::{
    io,
    path::{Path, PathBuf},
    sync::Arc,
};

use super::Error;
use crate::service::{
    self,
    directory::backend::LocalDirectories,
    local::{LocalStore, Verified, default_size_max},
    pathinfo::backend::LocalPathInfos,
};

/// A cache that is open without a bound: nothing goes from it that is not asked for.
#[derive(Debug)]
pub struct OpenCache {
    store: Arc<LocalStore>,
}

/// How much the cache in `dir` may take of the disk unless its user says, in bytes. The directory need not be there.
pub fn default_cache_size(dir: &Path) -> io::Result<u64> {
    let there = dir.ancestors().find(|dir| dir.is_dir()).unwrap_or(Path::new("/"));
    default_size_max(there)
}

impl OpenCache {
    /// Opens the cache in `dir`.
    pub fn new(dir: PathBuf) -> Result<Self, Error> {
        let address = format!("the cache in {}", dir.display());
        let store = LocalStore::open_cache(&dir, Some(i64::MAX as u64));
        let store = store.map_err(|source| Error::Open { address, source })?;
        Ok(OpenCache { store })
    }

    /// The directory's services share this.
    pub fn store(&self) -> &LocalStore {
        &self.store
    }

    /// Looks at everything in the cache, and removes what is damaged. Blocks.
    pub fn verify(&self, verified: &Verified) -> service::Result<()> {
        self.store.verify_blobs(verified)?;
        LocalDirectories::new(self.store.clone()).verify(verified)?;
        LocalPathInfos::new(self.store.clone()).verify(verified)
    }
}
