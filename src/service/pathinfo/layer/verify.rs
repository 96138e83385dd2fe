//! Path infos are those that were asked for.

use std::sync::Arc;

use async_trait::async_trait;

use crate::{
    nix::{PathInfo, StorePathDigest},
    service::{
        Error, Result,
        pathinfo::{PathInfoService, PathInfoStream},
    },
};

/// Compares the store path in an answer with what was asked for, and with what was put.
///
/// You want it before a store that does not stand for its answers. It never checks signatures, nor that the contents
/// are what the path info says: those have digests of their own.
#[derive(Debug)]
pub struct VerifiedPathInfos {
    endpoint: Arc<str>,
    inner: Arc<dyn PathInfoService>,
}

impl VerifiedPathInfos {
    /// Verifies `inner`, which errors call `endpoint`.
    pub fn new(endpoint: &str, inner: Arc<dyn PathInfoService>) -> Self {
        VerifiedPathInfos { endpoint: endpoint.into(), inner }
    }
}

/// Refuses a path info that is not the one asked for.
pub(crate) fn check_path(
    endpoint: &str,
    asked: &StorePathDigest,
    path_info: PathInfo,
) -> Result<PathInfo> {
    if path_info.store_path.digest() == *asked {
        return Ok(path_info);
    }
    let got = &path_info.store_path;
    Err(Error::corrupt(endpoint, format!("asked for the store path {asked}-…, got {got}")))
}

#[async_trait]
impl PathInfoService for VerifiedPathInfos {
    async fn get(&self, digest: &StorePathDigest) -> Result<Option<PathInfo>> {
        match self.inner.get(digest).await? {
            Some(path_info) => check_path(&self.endpoint, digest, path_info).map(Some),
            None => Ok(None),
        }
    }

    async fn put(&self, path_info: PathInfo) -> Result<PathInfo> {
        let (path, node) = (path_info.store_path.clone(), path_info.node.clone());
        let stored = self.inner.put(path_info).await?;
        if stored.store_path != path || stored.node != node {
            let got = &stored.store_path;
            let what = format!("{path} was put, but {got} or other contents were stored");
            return Err(Error::corrupt(&self.endpoint, what));
        }
        Ok(stored)
    }

    fn list(&self) -> PathInfoStream {
        self.inner.list()
    }
}
