//! Path infos in memory.

use std::sync::Arc;

use async_trait::async_trait;

use crate::{
    nix::{PathInfo, StorePathDigest},
    observe::tally::Cache,
    service::{
        Result,
        pathinfo::{PathInfoService, PathInfoStream},
        sharded_lru::ShardedLru,
    },
};

/// Keeps the path infos used last in memory, up to so many.
///
/// You want it before any store that is asked more than once for the same path. What another process puts in place of
/// a path info that is kept here is not seen.
///
/// It never remembers that a path info is absent, nor an error, and never answers a list.
#[derive(Debug)]
pub struct LruPathInfos {
    inner: Arc<dyn PathInfoService>,
    kept: ShardedLru<StorePathDigest, PathInfo>,
}

impl LruPathInfos {
    /// Keeps at most `entries_max` of the path infos that `inner` answers.
    pub fn new(inner: Arc<dyn PathInfoService>, entries_max: usize) -> Self {
        LruPathInfos { inner, kept: ShardedLru::new(entries_max) }
    }
}

#[async_trait]
impl PathInfoService for LruPathInfos {
    async fn get(&self, digest: &StorePathDigest) -> Result<Option<PathInfo>> {
        let kept = self.kept.get(digest);
        Cache::PathInfosInMemory.asked(&kept);
        if kept.is_some() {
            return Ok(kept);
        }
        let found = self.inner.get(digest).await?;
        if let Some(path_info) = &found {
            // A put may have overtaken this read.
            self.kept.insert_if_absent(*digest, path_info.clone(), 1);
        }
        Ok(found)
    }

    async fn put(&self, path_info: PathInfo) -> Result<PathInfo> {
        let stored = self.inner.put(path_info).await?;
        self.kept.insert(stored.store_path.digest(), stored.clone(), 1);
        Ok(stored)
    }

    fn list(&self) -> PathInfoStream {
        self.inner.list()
    }
}
