//! Directories, addressed by digest.

pub mod backend;
mod batches;
pub mod layer;

use std::{
    collections::{HashSet, VecDeque},
    fmt,
    pin::Pin,
    sync::Arc,
};

use async_trait::async_trait;
use futures::{Stream, TryStreamExt as _};

use super::{Error, Result};
use crate::castore::{Digest, Directory, SizeRule};

/// A closure as it travels. An error ends the stream.
pub type DirectoryStream = Pin<Box<dyn Stream<Item = Result<Arc<Directory>>> + Send>>;

/// Stores directories.
#[async_trait]
pub trait DirectoryService: Send + Sync + fmt::Debug {
    /// One directory. `None` if it is absent.
    async fn get(&self, digest: &Digest) -> Result<Option<Arc<Directory>>>;

    /// One directory, if it is in memory or on this machine's disk. Does not wait for anything else.
    fn get_local(&self, digest: &Digest) -> Result<Option<Arc<Directory>>>;

    /// The closure of a directory in one request, in the order that [`crate::castore::RootFirst`] checks, each
    /// directory once. `None` if the root is absent. Whoever implements this yields an error if the closure is cut
    /// short or not what was asked for.
    async fn get_closure(&self, root: &Digest) -> Result<Option<DirectoryStream>>;

    /// Stores one directory whose children are stored already. A backend that can tell refuses it otherwise.
    async fn put(&self, directory: Arc<Directory>) -> Result<()>;

    /// Starts a closure, to be handed in leaves first.
    async fn put_closure(&self) -> Result<Box<dyn DirectoryPutter>>;

    /// By which rule the sizes in the directories that are put here must be computed.
    async fn size_rule(&self) -> Result<SizeRule> {
        Ok(SizeRule::Documented)
    }

    /// Returns once everything that was put before survives a power cut, as far as this store can promise that.
    async fn sync(&self) -> Result<()>;
}

/// Takes a closure in the order that [`crate::castore::LeavesFirst`] checks. A root that is complete is visible
/// after [`DirectoryPutter::finish`] only as far as it was put before.
#[async_trait]
pub trait DirectoryPutter: Send {
    /// Hands in the next directory.
    async fn put(&mut self, directory: Arc<Directory>) -> Result<()>;

    /// Checks that the closure is whole and connected, and stores it. Returns the digest of its root.
    async fn finish(self: Box<Self>) -> Result<Digest>;
}

/// Walks a closure breadth first over a store where `get` is cheap: for [`DirectoryService::get_closure`]. Holds one
/// digest for each directory it has seen, and reads each only when the stream is asked for it.
fn walk_closure(
    endpoint: &str,
    root: &Digest,
    get: impl Fn(&Digest) -> Result<Option<Arc<Directory>>> + Send + 'static,
) -> Result<Option<DirectoryStream>> {
    let Some(directory) = get(root)? else { return Ok(None) };
    let endpoint: Arc<str> = endpoint.into();
    let mut seen = HashSet::from([*root]);
    let mut first = Some(directory);
    let mut todo = VecDeque::new();
    let directories = std::iter::from_fn(move || {
        let directory = match first.take() {
            Some(directory) => directory,
            None => {
                let digest = todo.pop_front()?;
                let missing =
                    || Error::corrupt(&endpoint, format!("directory {digest} is missing"));
                match get(&digest).and_then(|found| found.ok_or_else(missing)) {
                    Ok(directory) => directory,
                    Err(error) => {
                        todo.clear();
                        return Some(Err(error));
                    }
                }
            }
        };
        todo.extend(directory.directories().map(|(child, _)| child).filter(|c| seen.insert(*c)));
        Some(Ok(directory))
    });
    Ok(Some(Box::pin(futures::stream::iter(directories))))
}

/// What a directory names, all levels down, leaves first; one may be among them more than once. That `directories` does
/// not have all of it is [`Error::Invalid`].
async fn descendants(
    directories: &dyn DirectoryService,
    directory: &Directory,
) -> Result<Vec<Arc<Directory>>> {
    let mut all = Vec::new();
    for (child, _) in directory.directories() {
        let Some(closure) = directories.get_closure(&child).await? else {
            let parent = directory.digest();
            let what = format!("directory {parent} names {child}, which is not there");
            return Err(Error::invalid(what));
        };
        all.extend(layer::leaves_first(closure.try_collect().await?));
    }
    Ok(all)
}
