//! Counts what goes through.

use std::sync::Arc;

use async_trait::async_trait;
use futures::StreamExt as _;

use crate::{
    castore::{Digest, Directory, SizeRule},
    service::{
        Result,
        counters::Operation,
        directory::{DirectoryPutter, DirectoryService, DirectoryStream},
    },
};

/// Counts of each operation of a directory service.
#[derive(Debug, Default)]
pub struct DirectoryCounters {
    get: Operation,
    get_closure: Operation,
    put: Operation,
    put_closure: Operation,
    sync: Operation,
}

impl DirectoryCounters {
    /// Each operation, with its name.
    pub fn operations(&self) -> [(&'static str, &Operation); 5] {
        [
            ("get", &self.get),
            ("get_closure", &self.get_closure),
            ("put", &self.put),
            ("put_closure", &self.put_closure),
            ("sync", &self.sync),
        ]
    }
}

/// Counts calls, answers that something is absent, errors, and bytes of canonical messages.
///
/// You want it around every backend. It never changes, delays or copies anything.
#[derive(Debug)]
pub struct MeasuredDirectories {
    inner: Arc<dyn DirectoryService>,
    counters: Arc<DirectoryCounters>,
}

impl MeasuredDirectories {
    /// Counts what `inner` does in `counters`.
    pub fn new(inner: Arc<dyn DirectoryService>, counters: Arc<DirectoryCounters>) -> Self {
        MeasuredDirectories { inner, counters }
    }
}

#[async_trait]
impl DirectoryService for MeasuredDirectories {
    async fn get(&self, digest: &Digest) -> Result<Option<Arc<Directory>>> {
        let found = self.counters.get.found(self.inner.get(digest).await)?;
        if let Some(directory) = &found {
            self.counters.get.moved(directory.encoded().len());
        }
        Ok(found)
    }

    /// Not counted: that it is not here says nothing, and when it is, that is no request.
    fn get_local(&self, digest: &Digest) -> Result<Option<Arc<Directory>>> {
        self.inner.get_local(digest)
    }

    async fn get_closure(&self, root: &Digest) -> Result<Option<DirectoryStream>> {
        let found = self.inner.get_closure(root).await;
        let Some(closure) = self.counters.get_closure.found(found)? else { return Ok(None) };
        let counters = self.counters.clone();
        Ok(Some(Box::pin(closure.map(move |directory| {
            let directory = counters.get_closure.continued(directory)?;
            counters.get_closure.moved(directory.encoded().len());
            Ok(directory)
        }))))
    }

    async fn put(&self, directory: Arc<Directory>) -> Result<()> {
        self.counters.put.moved(directory.encoded().len());
        self.counters.put.ended(self.inner.put(directory).await)
    }

    async fn put_closure(&self) -> Result<Box<dyn DirectoryPutter>> {
        let inner = self.counters.put_closure.ended(self.inner.put_closure().await)?;
        Ok(Box::new(MeasuredPutter { inner, counters: self.counters.clone() }))
    }

    async fn size_rule(&self) -> Result<SizeRule> {
        self.inner.size_rule().await
    }

    async fn sync(&self) -> Result<()> {
        self.counters.sync.ended(self.inner.sync().await)
    }
}

struct MeasuredPutter {
    inner: Box<dyn DirectoryPutter>,
    counters: Arc<DirectoryCounters>,
}

#[async_trait]
impl DirectoryPutter for MeasuredPutter {
    async fn put(&mut self, directory: Arc<Directory>) -> Result<()> {
        self.counters.put_closure.moved(directory.encoded().len());
        self.counters.put_closure.continued(self.inner.put(directory).await)
    }

    async fn finish(self: Box<Self>) -> Result<Digest> {
        self.counters.put_closure.continued(self.inner.finish().await)
    }
}
