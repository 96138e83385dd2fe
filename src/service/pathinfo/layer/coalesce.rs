//! One question for all who ask the same at the same time.

use std::sync::Arc;

use async_trait::async_trait;

use crate::{
    nix::{PathInfo, StorePathDigest},
    service::{
        Result,
        pathinfo::{PathInfoService, PathInfoStream},
        single_flight::SingleFlight,
    },
};

/// Joins those who ask for the same path info at the same time.
///
/// You want it before a store that is far away. Who gives up waiting takes nothing from the others; if nobody is left,
/// the question is given up.
///
/// It never remembers anything.
#[derive(Debug)]
pub struct CoalescedPathInfos {
    inner: Arc<dyn PathInfoService>,
    flights: SingleFlight<StorePathDigest, Option<PathInfo>>,
}

impl CoalescedPathInfos {
    /// Asks `inner` once for all.
    pub fn new(inner: Arc<dyn PathInfoService>) -> Self {
        CoalescedPathInfos { inner, flights: SingleFlight::default() }
    }
}

#[async_trait]
impl PathInfoService for CoalescedPathInfos {
    async fn get(&self, digest: &StorePathDigest) -> Result<Option<PathInfo>> {
        let (inner, wanted) = (self.inner.clone(), *digest);
        self.flights.run(wanted, || async move { inner.get(&wanted).await }).await
    }

    async fn put(&self, path_info: PathInfo) -> Result<PathInfo> {
        self.inner.put(path_info).await
    }

    fn list(&self) -> PathInfoStream {
        self.inner.list()
    }
}
