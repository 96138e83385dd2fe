//! What binary caches know of store paths.

use std::sync::Arc;

use async_trait::async_trait;
use futures::{FutureExt as _, StreamExt as _, future::ready};

use super::substituter::Substituter;
use crate::{
    nix::{PathInfo, StorePathDigest},
    service::{
        Error, Result,
        pathinfo::{PathInfoService, PathInfoStream},
    },
};

/// The path infos of binary caches. To know one is to have its contents: its archive is fetched, unless it is known what
/// was in it and that is still here.
///
/// Nothing can be put, and nobody can tell what all there is.
#[derive(Debug)]
pub struct SubstitutedPathInfos {
    substituter: Arc<Substituter>,
}

impl SubstitutedPathInfos {
    /// Those of `substituter`.
    pub fn new(substituter: Arc<Substituter>) -> Self {
        SubstitutedPathInfos { substituter }
    }

    fn unsupported(&self, what: &'static str) -> Error {
        Error::Unsupported { endpoint: self.substituter.endpoint(), what }
    }
}

#[async_trait]
impl PathInfoService for SubstitutedPathInfos {
    async fn get(&self, digest: &StorePathDigest) -> Result<Option<PathInfo>> {
        self.substituter.get(digest).await
    }

    async fn put(&self, _: PathInfo) -> Result<PathInfo> {
        Err(self.unsupported("be written to"))
    }

    fn list(&self) -> PathInfoStream {
        let error =
            self.unsupported("list what it has: a binary cache can only be asked for a path");
        ready(Err(error)).into_stream().boxed()
    }
}
