//! Counts what goes through.

use std::sync::Arc;

use async_trait::async_trait;
use futures::StreamExt as _;

use crate::{
    nix::{PathInfo, StorePathDigest},
    service::{
        Result,
        counters::{Backend, counters},
        pathinfo::{PathInfoService, PathInfoStream},
    },
};

counters! {
    /// Counts of each operation of a path info service.
    PathInfoCounters of "path_info":
    get put list
}

/// Counts calls, how long they take, answers that something is absent, and errors.
///
/// You want it around every backend. It never changes, delays or copies anything.
#[derive(Debug)]
pub struct MeasuredPathInfos {
    inner: Arc<dyn PathInfoService>,
    backend: Backend,
    counters: Arc<PathInfoCounters>,
}

impl MeasuredPathInfos {
    /// Counts what `inner` does, which is `backend`, in `counters`.
    pub fn new(
        inner: Arc<dyn PathInfoService>,
        counters: Arc<PathInfoCounters>,
        backend: Backend,
    ) -> Self {
        MeasuredPathInfos { inner, backend, counters }
    }
}

#[async_trait]
impl PathInfoService for MeasuredPathInfos {
    async fn get(&self, digest: &StorePathDigest) -> Result<Option<PathInfo>> {
        let get = &self.counters.get;
        get.find(&get.begin(&self.backend, Some(digest)), self.inner.get(digest)).await
    }

    async fn put(&self, path_info: PathInfo) -> Result<PathInfo> {
        let put = &self.counters.put;
        let call = put.begin(&self.backend, Some(&path_info.store_path));
        put.run(&call, self.inner.put(path_info)).await
    }

    fn list(&self) -> PathInfoStream {
        let counters = self.counters.clone();
        let call = counters.list.begin(&self.backend, None);
        // Opening a list cannot fail: its first error comes in the stream.
        let _ = counters.list.ended(Ok(()));
        let items = call.follow(self.inner.list());
        Box::pin(items.map(move |item| counters.list.continued(item)))
    }
}
