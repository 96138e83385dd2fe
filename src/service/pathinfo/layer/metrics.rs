//! Counts what goes through.

use std::sync::Arc;

use async_trait::async_trait;
use futures::StreamExt as _;

use crate::{
    nix::{PathInfo, StorePathDigest},
    observe::{self, spent::Phase},
    service::{
        Result,
        counters::{Operation, collect, spending},
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
    /// Makes the counts known as those of `backend`, for as long as somebody counts.
    pub fn tell(self: &Arc<Self>, backend: &str) {
        let (counters, backend) = (Arc::downgrade(self), backend.to_owned());
        observe::register(move |scrape| {
            let Some(counters) = counters.upgrade() else { return false };
            collect(scrape, "path_info", &backend, &counters.operations());
            true
        });
    }

    /// Each operation, with its name.
    pub fn operations(&self) -> [(&'static str, &Operation); 3] {
        [("get", &self.get), ("put", &self.put), ("list", &self.list)]
    }
}

/// Counts calls, how long they take, answers that something is absent, and errors.
///
/// You want it around every backend. It never changes, delays or copies anything.
#[derive(Debug)]
pub struct MeasuredPathInfos {
    inner: Arc<dyn PathInfoService>,
    phase: Phase,
    counters: Arc<PathInfoCounters>,
}

impl MeasuredPathInfos {
    /// Counts what `inner` does in `counters`. Waiting for it is waiting for `phase`.
    pub fn new(
        inner: Arc<dyn PathInfoService>,
        counters: Arc<PathInfoCounters>,
        phase: Phase,
    ) -> Self {
        MeasuredPathInfos { inner, phase, counters }
    }
}

#[async_trait]
impl PathInfoService for MeasuredPathInfos {
    async fn get(&self, digest: &StorePathDigest) -> Result<Option<PathInfo>> {
        self.counters.get.find(self.phase, self.inner.get(digest)).await
    }

    async fn put(&self, path_info: PathInfo) -> Result<PathInfo> {
        self.counters.put.run(self.phase, self.inner.put(path_info)).await
    }

    fn list(&self) -> PathInfoStream {
        let counters = self.counters.clone();
        // Opening a list cannot fail: its first error comes in the stream.
        let _ = counters.list.ended(Ok(()));
        let items = spending(self.phase, self.inner.list());
        Box::pin(items.map(move |item| counters.list.continued(item)))
    }
}
