//! The path infos of whichever store is there.

use async_trait::async_trait;

use super::Swap;
use crate::{
    nix::{PathInfo, StorePathDigest},
    service::{
        Result,
        pathinfo::{PathInfoService, PathInfoStream},
    },
};

/// Forwards everything.
#[derive(Debug)]
pub(super) struct SwapPathInfos(pub(super) Swap);

#[async_trait]
impl PathInfoService for SwapPathInfos {
    async fn get(&self, digest: &StorePathDigest) -> Result<Option<PathInfo>> {
        self.0.now().path_infos.get(digest).await
    }

    async fn put(&self, path_info: PathInfo) -> Result<PathInfo> {
        self.0.now().path_infos.put(path_info).await
    }

    fn list(&self) -> PathInfoStream {
        self.0.with(|stores| stores.path_infos.list())
    }
}
