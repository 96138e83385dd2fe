//! Directories that come out of archives.

use std::sync::Arc;

use async_trait::async_trait;

use super::{catcher::warned, substituter::Substituter};
use crate::{
    castore::{Digest, Directory},
    service::{
        Error, Result,
        directory::{DirectoryPutter, DirectoryService, DirectoryStream},
    },
};

const UNREADABLE: &str = "the cache cannot read a directory";

/// The directories of binary caches: those that are at the destination of their archives, and those that were there
/// once, which come back with them. Nothing can be put.
#[derive(Debug)]
pub struct SubstitutedDirectories {
    substituter: Arc<Substituter>,
}

impl SubstitutedDirectories {
    /// Those of `substituter`.
    pub fn new(substituter: Arc<Substituter>) -> Self {
        SubstitutedDirectories { substituter }
    }

    fn near(&self) -> &dyn DirectoryService {
        &*self.substituter.to().directories
    }

    fn read_only(&self) -> Error {
        Error::Unsupported { endpoint: self.substituter.endpoint(), what: "be written to" }
    }
}

#[async_trait]
impl DirectoryService for SubstitutedDirectories {
    async fn get(&self, digest: &Digest) -> Result<Option<Arc<Directory>>> {
        if let Some(directory) = warned(UNREADABLE, self.near().get(digest).await).flatten() {
            return Ok(Some(directory));
        }
        match self.substituter.restore(digest).await? {
            true => self.near().get(digest).await,
            false => Ok(None),
        }
    }

    fn get_local(&self, digest: &Digest) -> Result<Option<Arc<Directory>>> {
        Ok(warned(UNREADABLE, self.near().get_local(digest)).flatten())
    }

    async fn get_closure(&self, root: &Digest) -> Result<Option<DirectoryStream>> {
        if let Some(closure) = warned(UNREADABLE, self.near().get_closure(root).await).flatten() {
            return Ok(Some(closure));
        }
        match self.substituter.restore(root).await? {
            true => self.near().get_closure(root).await,
            false => Ok(None),
        }
    }

    async fn put(&self, _: Arc<Directory>) -> Result<()> {
        Err(self.read_only())
    }

    async fn put_closure(&self) -> Result<Box<dyn DirectoryPutter>> {
        Err(self.read_only())
    }

    async fn sync(&self) -> Result<()> {
        Ok(())
    }
}
