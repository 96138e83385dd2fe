//! A near store before a far one.

use std::sync::Arc;

use async_trait::async_trait;

use crate::{
    nix::{PathInfo, StorePathDigest},
    observe::{event, tally::Cache},
    service::{
        Result,
        pathinfo::{PathInfoService, PathInfoStream},
    },
};

/// Reads near first; what comes from far is put near.
///
/// You want it wherever the far store is slower than a disk. What is written goes to the far store, then to the near
/// one; what is listed is what the far store has.
///
/// It never fails because of the near store: what goes wrong there is logged, and the far store answers. It never
/// remembers that a path info is absent, nor an error, and never asks again for one that is near: signatures that are
/// added far later are not seen.
#[derive(Debug)]
pub struct CachedPathInfos {
    near: Arc<dyn PathInfoService>,
    far: Arc<dyn PathInfoService>,
}

impl CachedPathInfos {
    /// Puts `near` before `far`.
    pub fn new(near: Arc<dyn PathInfoService>, far: Arc<dyn PathInfoService>) -> Self {
        CachedPathInfos { near, far }
    }

    async fn put_near(&self, path_info: &PathInfo) {
        if let Err(error) = self.near.put(path_info.clone()).await {
            let path = &path_info.store_path;
            tracing::warn!(
                event = event::CACHE_FAILED,
                %path,
                %error,
                "the near store does not take a path info"
            );
        }
    }
}

#[async_trait]
impl PathInfoService for CachedPathInfos {
    async fn get(&self, digest: &StorePathDigest) -> Result<Option<PathInfo>> {
        match self.near.get(digest).await {
            Ok(Some(path_info)) => {
                Cache::PathInfos.hit();
                return Ok(Some(path_info));
            }
            Ok(None) => {}
            Err(error) => {
                tracing::warn!(
                    event = event::CACHE_FAILED,
                    %error,
                    "the near store cannot read a path info"
                )
            }
        }
        Cache::PathInfos.missed();
        let found = self.far.get(digest).await?;
        if let Some(path_info) = &found {
            self.put_near(path_info).await;
        }
        Ok(found)
    }

    async fn put(&self, path_info: PathInfo) -> Result<PathInfo> {
        let stored = self.far.put(path_info).await?;
        self.put_near(&stored).await;
        Ok(stored)
    }

    fn list(&self) -> PathInfoStream {
        self.far.list()
    }
}
