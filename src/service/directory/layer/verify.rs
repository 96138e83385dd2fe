//! Directories are what was asked for, and closures are whole.

use std::sync::Arc;

use async_trait::async_trait;
use futures::{StreamExt as _, stream};

use crate::{
    castore::{Digest, Directory, RootFirst, SizeRule},
    service::{
        Error, Result,
        directory::{DirectoryPutter, DirectoryService, DirectoryStream},
    },
};

/// Compares what is read with the digest that was asked for, and checks the order and the end of closures.
///
/// You want it before a store that does not stand for its contents. A directory of a closure is released as soon as
/// it was checked itself; that the closure is cut short shows at its end.
///
/// It never removes what is wrong, and does not look below the directory that was asked for, except in closures.
#[derive(Debug)]
pub struct VerifiedDirectories {
    endpoint: Arc<str>,
    inner: Arc<dyn DirectoryService>,
}

impl VerifiedDirectories {
    /// Verifies `inner`, which errors call `endpoint`.
    pub fn new(endpoint: &str, inner: Arc<dyn DirectoryService>) -> Self {
        VerifiedDirectories { endpoint: endpoint.into(), inner }
    }
}

/// Refuses a directory that is not the one asked for.
pub(crate) fn check_digest(
    endpoint: &str,
    asked: &Digest,
    directory: Arc<Directory>,
) -> Result<Arc<Directory>> {
    if directory.digest() == *asked {
        return Ok(directory);
    }
    let got = directory.digest();
    Err(Error::corrupt(endpoint, format!("asked for directory {asked}, got {got}")))
}

/// Checks a closure as it passes; directories that come twice are left out.
pub(crate) fn check_closure(
    endpoint: Arc<str>,
    root: Digest,
    closure: DirectoryStream,
) -> DirectoryStream {
    let state = Some((closure, RootFirst::new(root)));
    Box::pin(stream::unfold(state, move |state| {
        let endpoint = endpoint.clone();
        async move {
            let (mut closure, mut order) = state?;
            let corrupt = |error| Some((Err(Error::corrupt(&endpoint, error)), None));
            loop {
                match closure.next().await {
                    Some(Ok(directory)) => match order.add(&directory) {
                        Ok(true) => return Some((Ok(directory), Some((closure, order)))),
                        Ok(false) => {}
                        Err(error) => return corrupt(error),
                    },
                    Some(Err(error)) => return Some((Err(error), None)),
                    None => return order.finish().err().and_then(corrupt),
                }
            }
        }
    }))
}

#[async_trait]
impl DirectoryService for VerifiedDirectories {
    async fn get(&self, digest: &Digest) -> Result<Option<Arc<Directory>>> {
        match self.inner.get(digest).await? {
            Some(directory) => check_digest(&self.endpoint, digest, directory).map(Some),
            None => Ok(None),
        }
    }

    fn get_local(&self, digest: &Digest) -> Result<Option<Arc<Directory>>> {
        match self.inner.get_local(digest)? {
            Some(directory) => check_digest(&self.endpoint, digest, directory).map(Some),
            None => Ok(None),
        }
    }

    async fn get_closure(&self, root: &Digest) -> Result<Option<DirectoryStream>> {
        let closure = self.inner.get_closure(root).await?;
        Ok(closure.map(|closure| check_closure(self.endpoint.clone(), *root, closure)))
    }

    async fn put(&self, directory: Arc<Directory>) -> Result<()> {
        self.inner.put(directory).await
    }

    async fn put_closure(&self) -> Result<Box<dyn DirectoryPutter>> {
        Ok(Box::new(VerifiedPutter {
            endpoint: self.endpoint.clone(),
            inner: self.inner.put_closure().await?,
            last: None,
        }))
    }

    async fn size_rule(&self) -> Result<SizeRule> {
        self.inner.size_rule().await
    }

    async fn sync(&self) -> Result<()> {
        self.inner.sync().await
    }
}

/// Checks that the root, which comes last, is what the store calls the root.
struct VerifiedPutter {
    endpoint: Arc<str>,
    inner: Box<dyn DirectoryPutter>,
    last: Option<Digest>,
}

#[async_trait]
impl DirectoryPutter for VerifiedPutter {
    async fn put(&mut self, directory: Arc<Directory>) -> Result<()> {
        self.last = Some(directory.digest());
        self.inner.put(directory).await
    }

    async fn finish(self: Box<Self>) -> Result<Digest> {
        let Self { endpoint, inner, last } = *self;
        let root = inner.finish().await?;
        match last {
            Some(last) if last != root => Err(Error::corrupt(
                &endpoint,
                format!("the closure of directory {last} was stored as {root}"),
            )),
            _ => Ok(root),
        }
    }
}
