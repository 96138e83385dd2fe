//! Directories, addressed by digest.

pub mod backend;
pub mod layer;

use std::{fmt, pin::Pin, sync::Arc};

use async_trait::async_trait;
use futures::Stream;

use super::Result;
use crate::castore::{Digest, Directory, SizeRule};

/// A closure as it travels. An error ends the stream.
pub type DirectoryStream = Pin<Box<dyn Stream<Item = Result<Arc<Directory>>> + Send>>;

/// Stores directories.
#[async_trait]
pub trait DirectoryService: Send + Sync + fmt::Debug {
    /// One directory. `None` if it is absent.
    async fn get(&self, digest: &Digest) -> Result<Option<Arc<Directory>>>;

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
