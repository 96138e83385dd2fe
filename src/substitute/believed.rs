//! What lies in the cache is not believed because it lies there.

use std::sync::Arc;

use async_trait::async_trait;

use super::substituter::Substituter;
use crate::{
    nix::{PathInfo, StorePathDigest},
    service::{
        Result,
        pathinfo::{PathInfoService, PathInfoStream},
    },
};

/// Of the path infos that were kept, those that binary caches would be believed.
///
/// You want it over a directory that other stores are cached in as well, or that was filled when more was believed: what
/// nobody trusted vouches for, or whose contents were not seen to come out of the archive that is vouched for, counts as
/// absent. What is put is put.
#[derive(Debug)]
pub struct BelievedPathInfos {
    near: Arc<dyn PathInfoService>,
    substituter: Arc<Substituter>,
}

impl BelievedPathInfos {
    /// Those of `near` that `substituter` believes.
    pub fn new(near: Arc<dyn PathInfoService>, substituter: Arc<Substituter>) -> Self {
        BelievedPathInfos { near, substituter }
    }
}

#[async_trait]
impl PathInfoService for BelievedPathInfos {
    async fn get(&self, digest: &StorePathDigest) -> Result<Option<PathInfo>> {
        let Some(path_info) = self.near.get(digest).await? else { return Ok(None) };
        Ok(self.substituter.believes(&path_info)?.then_some(path_info))
    }

    async fn put(&self, path_info: PathInfo) -> Result<PathInfo> {
        self.near.put(path_info).await
    }

    fn list(&self) -> PathInfoStream {
        self.near.list()
    }
}
