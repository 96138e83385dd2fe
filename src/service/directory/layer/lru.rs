//! Directories in memory.

use std::sync::Arc;

use async_trait::async_trait;
use futures::StreamExt as _;

use crate::{
    castore::{Digest, Directory, SizeRule},
    observe::tally::Cache,
    service::{
        Result,
        directory::{DirectoryPutter, DirectoryService, DirectoryStream},
        sharded_lru::ShardedLru,
    },
};

/// Keeps the directories used last in memory, up to so many bytes.
///
/// You want it before any store that is walked more than once. What it keeps are the directories that were got one by
/// one and those that passed in a closure. A closure itself is always asked of the store below.
///
/// It never remembers that a directory is absent, nor an error, and never keeps what is written.
#[derive(Debug)]
pub struct LruDirectories {
    inner: Arc<dyn DirectoryService>,
    kept: Arc<ShardedLru<Digest, Arc<Directory>>>,
}

impl LruDirectories {
    /// Keeps at most `memory_bytes_max` bytes of what `inner` answers.
    pub fn new(inner: Arc<dyn DirectoryService>, memory_bytes_max: usize) -> Self {
        LruDirectories { inner, kept: Arc::new(ShardedLru::new(memory_bytes_max)) }
    }

    /// The bytes of memory that the directories kept take.
    pub fn memory(&self) -> usize {
        self.kept.weight()
    }
}

fn keep(kept: &ShardedLru<Digest, Arc<Directory>>, directory: &Arc<Directory>) {
    kept.insert(directory.digest(), directory.clone(), directory.memory());
}

#[async_trait]
impl DirectoryService for LruDirectories {
    async fn get(&self, digest: &Digest) -> Result<Option<Arc<Directory>>> {
        let kept = self.kept.get(digest);
        Cache::DirectoriesInMemory.asked(&kept);
        if kept.is_some() {
            return Ok(kept);
        }
        let found = self.inner.get(digest).await?;
        if let Some(directory) = &found {
            keep(&self.kept, directory);
        }
        Ok(found)
    }

    fn get_local(&self, digest: &Digest) -> Result<Option<Arc<Directory>>> {
        if let Some(directory) = self.kept.get(digest) {
            Cache::DirectoriesInMemory.hit();
            return Ok(Some(directory));
        }
        let found = self.inner.get_local(digest)?;
        // If there is none, whoever then gets it is counted.
        if let Some(directory) = &found {
            Cache::DirectoriesInMemory.missed();
            keep(&self.kept, directory);
        }
        Ok(found)
    }

    async fn get_closure(&self, root: &Digest) -> Result<Option<DirectoryStream>> {
        let Some(closure) = self.inner.get_closure(root).await? else { return Ok(None) };
        let kept = self.kept.clone();
        Ok(Some(Box::pin(closure.inspect(move |directory| {
            if let Ok(directory) = directory {
                keep(&kept, directory);
            }
        }))))
    }

    async fn put(&self, directory: Arc<Directory>) -> Result<()> {
        self.inner.put(directory).await
    }

    async fn put_closure(&self) -> Result<Box<dyn DirectoryPutter>> {
        self.inner.put_closure().await
    }

    async fn size_rule(&self) -> Result<SizeRule> {
        self.inner.size_rule().await
    }

    async fn sync(&self) -> Result<()> {
        self.inner.sync().await
    }
}
