//! Counts what goes through.

use std::sync::Arc;

use async_trait::async_trait;
use futures::StreamExt as _;

use crate::{
    nix::{PathInfo, StorePathDigest},
    service::{
        Result,
        counters::Operation,
        pathinfo::{PathInfoService, PathInfoStream},
    },
};

/// Counts of each operation of a path info service.
#[derive(Debug, Default)]
pub struct PathInfoCounters {
    get: Operation,
    put: Operation,
    list: Operation,
}

impl PathInfoCounters {
    /// Each operation, with its name.
    pub fn operations(&self) -> [(&'static str, &Operation); 3] {
        [("get", &self.get), ("put", &self.put), ("list", &self.list)]
    }
}

/// Counts calls, answers that something is absent, and errors.
///
/// You want it around every backend. It never changes, delays or copies anything.
#[derive(Debug)]
pub struct MeasuredPathInfos {
    inner: Arc<dyn PathInfoService>,
    counters: Arc<PathInfoCounters>,
}

impl MeasuredPathInfos {
    /// Counts what `inner` does in `counters`.
    pub fn new(inner: Arc<dyn PathInfoService>, counters: Arc<PathInfoCounters>) -> Self {
        MeasuredPathInfos { inner, counters }
    }
}

#[async_trait]
impl PathInfoService for MeasuredPathInfos {
    async fn get(&self, digest: &StorePathDigest) -> Result<Option<PathInfo>> {
        self.counters.get.found(self.inner.get(digest).await)
    }

    async fn put(&self, path_info: PathInfo) -> Result<PathInfo> {
        self.counters.put.ended(self.inner.put(path_info).await)
    }

    fn list(&self) -> PathInfoStream {
        let counters = self.counters.clone();
        // Opening a list cannot fail: its first error comes in the stream.
        let _ = counters.list.ended(Ok(()));
        Box::pin(self.inner.list().map(move |item| counters.list.continued(item)))
    }
}
