//! Path infos in the memory of this process.

use std::{collections::BTreeMap, sync::Arc};

use async_trait::async_trait;
use futures::StreamExt as _;
use parking_lot::RwLock;

use crate::{
    nix::{PathInfo, StorePathDigest},
    service::{
        Error, Result,
        pathinfo::{PathInfoService, PathInfoStream},
    },
};

/// Keeps path infos in memory, without bound, until it is dropped. For tests and trials.
#[derive(Debug, Clone, Default)]
pub struct MemoryPathInfos {
    path_infos: Arc<RwLock<BTreeMap<StorePathDigest, PathInfo>>>,
}

impl MemoryPathInfos {
    /// Without path infos.
    pub fn new() -> Self {
        Self::default()
    }
}

#[async_trait]
impl PathInfoService for MemoryPathInfos {
    async fn get(&self, digest: &StorePathDigest) -> Result<Option<PathInfo>> {
        Ok(self.path_infos.read().get(digest).cloned())
    }

    async fn put(&self, path_info: PathInfo) -> Result<PathInfo> {
        path_info.check().map_err(Error::invalid)?;
        self.path_infos.write().insert(path_info.store_path.digest(), path_info.clone());
        Ok(path_info)
    }

    fn list(&self) -> PathInfoStream {
        let digests: Vec<_> = self.path_infos.read().keys().copied().collect();
        let path_infos = self.path_infos.clone();
        let list = digests.into_iter().filter_map(move |d| path_infos.read().get(&d).cloned());
        futures::stream::iter(list.map(Ok)).boxed()
    }
}
