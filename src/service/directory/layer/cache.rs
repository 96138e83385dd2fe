//! A near store before a far one.

use std::{
    collections::{HashMap, HashSet},
    sync::Arc,
};

use async_trait::async_trait;
use futures::{StreamExt as _, stream};

use crate::{
    castore::{Digest, Directory, SizeRule},
    observe::{event, tally::Cache},
    service::{
        Result,
        directory::{DirectoryPutter, DirectoryService, DirectoryStream},
    },
};

/// The largest closure that is copied near as it passes, in bytes of memory. It is held until it is whole, as the
/// near store takes the leaves first.
pub const FILL_BYTES_MAX: usize = 512 << 20;

/// Reads near first; a closure that comes from far is put near as it passes.
///
/// You want it wherever the far store is slower than a disk. What is written goes to the far store, then to the near
/// one. A single directory is copied near only if those that it names are near: the near store holds nothing of which a part
/// is missing.
///
/// It never fails because of the near store: what goes wrong there is logged, and the far store answers. It never
/// remembers that a directory is absent, nor an error; a closure that is cut short is not kept.
#[derive(Debug)]
pub struct CachedDirectories {
    near: Arc<dyn DirectoryService>,
    far: Arc<dyn DirectoryService>,
}

impl CachedDirectories {
    /// Puts `near` before `far`.
    pub fn new(near: Arc<dyn DirectoryService>, far: Arc<dyn DirectoryService>) -> Self {
        CachedDirectories { near, far }
    }

    /// Copies a directory near, unless that lacks a child which is only far.
    async fn put_near(&self, directory: &Arc<Directory>) {
        let is_near =
            |child: &Digest| self.near.get_local(child).is_ok_and(|child| child.is_some());
        if directory.directories().all(|(child, _)| is_near(&child)) {
            warn_near(self.near.put(directory.clone()).await);
        }
    }
}

fn warn_near<T>(result: Result<T>) -> Option<T> {
    result
        .inspect_err(|error| {
            tracing::warn!(
                event = event::CACHE_FAILED,
                %error,
                "the near store of directories failed"
            )
        })
        .ok()
}

#[async_trait]
impl DirectoryService for CachedDirectories {
    async fn get(&self, digest: &Digest) -> Result<Option<Arc<Directory>>> {
        let near = warn_near(self.near.get(digest).await).flatten();
        Cache::Directories.asked(&near);
        if near.is_some() {
            return Ok(near);
        }
        let Some(directory) = self.far.get(digest).await? else { return Ok(None) };
        self.put_near(&directory).await;
        Ok(Some(directory))
    }

    fn get_local(&self, digest: &Digest) -> Result<Option<Arc<Directory>>> {
        let found = self.near.get_local(digest).unwrap_or_else(|error| {
            tracing::warn!(
                event = event::CACHE_FAILED,
                %digest,
                %error,
                "the near store cannot read a directory"
            );
            None
        });
        // If there is none, whoever then gets it is counted.
        found.iter().for_each(|_| Cache::Directories.hit());
        Ok(found)
    }

    async fn get_closure(&self, root: &Digest) -> Result<Option<DirectoryStream>> {
        let near = warn_near(self.near.get_closure(root).await).flatten();
        Cache::Directories.asked(&near);
        if near.is_some() {
            return Ok(near);
        }
        let Some(closure) = self.far.get_closure(root).await? else { return Ok(None) };
        let passing =
            Passing { near: self.near.clone(), closure: Some(closure), kept: Vec::new(), bytes: 0 };
        Ok(Some(Box::pin(stream::unfold(passing, |mut passing| async move {
            passing.next().await.map(|directory| (directory, passing))
        }))))
    }

    async fn put(&self, directory: Arc<Directory>) -> Result<()> {
        self.far.put(directory.clone()).await?;
        self.put_near(&directory).await;
        Ok(())
    }

    async fn put_closure(&self) -> Result<Box<dyn DirectoryPutter>> {
        let far = self.far.put_closure().await?;
        let near = warn_near(self.near.put_closure().await);
        Ok(Box::new(CachedPutter { far, near }))
    }

    async fn size_rule(&self) -> Result<SizeRule> {
        self.far.size_rule().await
    }

    async fn sync(&self) -> Result<()> {
        self.far.sync().await?;
        warn_near(self.near.sync().await);
        Ok(())
    }
}

/// A closure on its way from far.
struct Passing {
    near: Arc<dyn DirectoryService>,
    /// Nothing once it has ended.
    closure: Option<DirectoryStream>,
    kept: Vec<Arc<Directory>>,
    bytes: usize,
}

impl Passing {
    async fn next(&mut self) -> Option<Result<Arc<Directory>>> {
        match self.closure.as_mut()?.next().await {
            Some(Ok(directory)) => {
                self.bytes += directory.memory();
                if self.bytes <= FILL_BYTES_MAX {
                    self.kept.push(directory.clone());
                } else {
                    self.kept = Vec::new();
                }
                Some(Ok(directory))
            }
            Some(Err(error)) => {
                self.closure = None;
                Some(Err(error))
            }
            None => {
                self.closure = None;
                if self.bytes <= FILL_BYTES_MAX {
                    warn_near(fill(&*self.near, std::mem::take(&mut self.kept)).await);
                }
                None
            }
        }
    }
}

async fn fill(near: &dyn DirectoryService, closure: Vec<Arc<Directory>>) -> Result<()> {
    let mut putter = near.put_closure().await?;
    for directory in leaves_first(closure) {
        putter.put(directory).await?;
    }
    putter.finish().await.map(drop)
}

/// Brings a whole closure from the order in which it is read into the order in which it is put. Directories that it
/// names but that are not in it are left out.
pub fn leaves_first(root_first: Vec<Arc<Directory>>) -> Vec<Arc<Directory>> {
    let Some(root) = root_first.first().map(|root| root.digest()) else { return root_first };
    let by_digest: HashMap<_, _> = root_first.into_iter().map(|d| (d.digest(), d)).collect();
    let mut sorted = Vec::with_capacity(by_digest.len());
    let mut seen = HashSet::new();
    // Each directory is met twice: to go to its children, and, after them, to be sent.
    let mut to_do = vec![(root, false)];
    while let Some((digest, children_done)) = to_do.pop() {
        let Some(directory) = by_digest.get(&digest) else { continue };
        if children_done {
            sorted.push(directory.clone());
        } else if seen.insert(digest) {
            to_do.push((digest, true));
            to_do.extend(directory.directories().map(|(child, _)| (child, false)));
        }
    }
    sorted
}

/// Writes to both, as long as the near one works.
struct CachedPutter {
    far: Box<dyn DirectoryPutter>,
    near: Option<Box<dyn DirectoryPutter>>,
}

#[async_trait]
impl DirectoryPutter for CachedPutter {
    async fn put(&mut self, directory: Arc<Directory>) -> Result<()> {
        self.far.put(directory.clone()).await?;
        if let Some(near) = &mut self.near
            && warn_near(near.put(directory).await).is_none()
        {
            self.near = None;
        }
        Ok(())
    }

    async fn finish(self: Box<Self>) -> Result<Digest> {
        let root = self.far.finish().await?;
        if let Some(near) = self.near {
            warn_near(near.finish().await);
        }
        Ok(root)
    }
}
