//! Counts what goes through.

use std::sync::Arc;

use async_trait::async_trait;
use futures::StreamExt as _;

use crate::{
    castore::{Digest, Directory, SizeRule},
    service::{
        Result,
        counters::{Backend, Call, counters},
        directory::{DirectoryPutter, DirectoryService, DirectoryStream},
    },
};

counters! {
    /// Counts of each operation of a directory service.
    DirectoryCounters of "directory":
    get get_closure put put_closure sync
}

/// Counts calls, how long they take, answers that something is absent, errors, and bytes of canonical messages.
///
/// You want it around every backend. It never changes, delays or copies anything.
#[derive(Debug)]
pub struct MeasuredDirectories {
    inner: Arc<dyn DirectoryService>,
    backend: Backend,
    counters: Arc<DirectoryCounters>,
}

impl MeasuredDirectories {
    /// Counts what `inner` does, which is `backend`, in `counters`.
    pub fn new(
        inner: Arc<dyn DirectoryService>,
        counters: Arc<DirectoryCounters>,
        backend: Backend,
    ) -> Self {
        MeasuredDirectories { inner, backend, counters }
    }
}

#[async_trait]
impl DirectoryService for MeasuredDirectories {
    async fn get(&self, digest: &Digest) -> Result<Option<Arc<Directory>>> {
        let get = &self.counters.get;
        let call = get.begin(&self.backend, Some(digest));
        let found = get.find(&call, self.inner.get(digest)).await?;
        if let Some(directory) = &found {
            get.moved(directory.encoded().len());
        }
        Ok(found)
    }

    /// Not counted: that it is not here says nothing, and when it is, that is no request.
    fn get_local(&self, digest: &Digest) -> Result<Option<Arc<Directory>>> {
        self.inner.get_local(digest)
    }

    async fn get_closure(&self, root: &Digest) -> Result<Option<DirectoryStream>> {
        let get_closure = &self.counters.get_closure;
        let call = get_closure.begin(&self.backend, Some(root));
        let found = get_closure.find(&call, self.inner.get_closure(root)).await?;
        let Some(closure) = found else { return Ok(None) };
        let counters = self.counters.clone();
        Ok(Some(Box::pin(call.follow(closure).map(move |directory| {
            let directory = counters.get_closure.continued(directory)?;
            counters.get_closure.moved(directory.encoded().len());
            Ok(directory)
        }))))
    }

    async fn put(&self, directory: Arc<Directory>) -> Result<()> {
        let put = &self.counters.put;
        put.moved(directory.encoded().len());
        let digest = directory.digest();
        put.run(&put.begin(&self.backend, Some(&digest)), self.inner.put(directory)).await
    }

    async fn put_closure(&self) -> Result<Box<dyn DirectoryPutter>> {
        let call = self.counters.put_closure.begin(&self.backend, None);
        let inner = self.counters.put_closure.run(&call, self.inner.put_closure()).await?;
        Ok(Box::new(MeasuredPutter { inner, call, counters: self.counters.clone() }))
    }

    async fn size_rule(&self) -> Result<SizeRule> {
        self.inner.size_rule().await
    }

    async fn sync(&self) -> Result<()> {
        let sync = &self.counters.sync;
        sync.run(&sync.begin(&self.backend, None), self.inner.sync()).await
    }
}

struct MeasuredPutter {
    inner: Box<dyn DirectoryPutter>,
    call: Call,
    counters: Arc<DirectoryCounters>,
}

#[async_trait]
impl DirectoryPutter for MeasuredPutter {
    async fn put(&mut self, directory: Arc<Directory>) -> Result<()> {
        self.counters.put_closure.moved(directory.encoded().len());
        self.counters.put_closure.go_on(&self.call, self.inner.put(directory)).await
    }

    async fn finish(self: Box<Self>) -> Result<Digest> {
        self.counters.put_closure.go_on(&self.call, self.inner.finish()).await
    }
}
