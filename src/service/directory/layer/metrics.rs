//! Counts what goes through.

use std::sync::Arc;

use async_trait::async_trait;
use futures::StreamExt as _;

use crate::{
    castore::{Digest, Directory, SizeRule},
    observe::{
        self,
        spent::{self, Phase},
    },
    service::{
        Result,
        counters::{Operation, collect, spending},
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
    /// Makes the counts known as those of `backend`, for as long as somebody counts.
    pub fn tell(self: &Arc<Self>, backend: &str) {
        let (counters, backend) = (Arc::downgrade(self), backend.to_owned());
        observe::register(move |scrape| {
            let Some(counters) = counters.upgrade() else { return false };
            collect(scrape, "directory", &backend, &counters.operations());
            true
        });
    }

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

/// Counts calls, how long they take, answers that something is absent, errors, and bytes of canonical messages.
///
/// You want it around every backend. It never changes, delays or copies anything.
#[derive(Debug)]
pub struct MeasuredDirectories {
    inner: Arc<dyn DirectoryService>,
    phase: Phase,
    counters: Arc<DirectoryCounters>,
}

impl MeasuredDirectories {
    /// Counts what `inner` does in `counters`. Waiting for it is waiting for `phase`.
    pub fn new(
        inner: Arc<dyn DirectoryService>,
        counters: Arc<DirectoryCounters>,
        phase: Phase,
    ) -> Self {
        MeasuredDirectories { inner, phase, counters }
    }
}

#[async_trait]
impl DirectoryService for MeasuredDirectories {
    async fn get(&self, digest: &Digest) -> Result<Option<Arc<Directory>>> {
        let found = self.counters.get.find(self.phase, self.inner.get(digest)).await?;
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
        let found = self.inner.get_closure(root);
        let found = self.counters.get_closure.find(self.phase, found).await?;
        let Some(closure) = found else { return Ok(None) };
        let counters = self.counters.clone();
        Ok(Some(Box::pin(spending(self.phase, closure).map(move |directory| {
            let directory = counters.get_closure.continued(directory)?;
            counters.get_closure.moved(directory.encoded().len());
            Ok(directory)
        }))))
    }

    async fn put(&self, directory: Arc<Directory>) -> Result<()> {
        self.counters.put.moved(directory.encoded().len());
        self.counters.put.run(self.phase, self.inner.put(directory)).await
    }

    async fn put_closure(&self) -> Result<Box<dyn DirectoryPutter>> {
        let inner = self.counters.put_closure.run(self.phase, self.inner.put_closure()).await?;
        Ok(Box::new(MeasuredPutter { inner, phase: self.phase, counters: self.counters.clone() }))
    }

    async fn size_rule(&self) -> Result<SizeRule> {
        self.inner.size_rule().await
    }

    async fn sync(&self) -> Result<()> {
        self.counters.sync.run(self.phase, self.inner.sync()).await
    }
}

struct MeasuredPutter {
    inner: Box<dyn DirectoryPutter>,
    phase: Phase,
    counters: Arc<DirectoryCounters>,
}

#[async_trait]
impl DirectoryPutter for MeasuredPutter {
    async fn put(&mut self, directory: Arc<Directory>) -> Result<()> {
        self.counters.put_closure.moved(directory.encoded().len());
        let put = spent::on(self.phase, self.inner.put(directory)).await;
        self.counters.put_closure.continued(put)
    }

    async fn finish(self: Box<Self>) -> Result<Digest> {
        let finished = spent::on(self.phase, self.inner.finish()).await;
        self.counters.put_closure.continued(finished)
    }
}
