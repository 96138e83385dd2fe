//! The directories of whichever store is there.

use std::sync::Arc;

use async_trait::async_trait;

use super::Swap;
use crate::{
    castore::{Digest, Directory, SizeRule},
    service::{
        Result,
        directory::{DirectoryPutter, DirectoryService, DirectoryStream},
    },
};

/// Forwards everything.
#[derive(Debug)]
pub(super) struct SwapDirectories(pub(super) Swap);

#[async_trait]
impl DirectoryService for SwapDirectories {
    async fn get(&self, digest: &Digest) -> Result<Option<Arc<Directory>>> {
        self.0.now().directories.get(digest).await
    }

    fn get_local(&self, digest: &Digest) -> Result<Option<Arc<Directory>>> {
        self.0.with(|stores| stores.directories.get_local(digest))
    }

    async fn get_closure(&self, root: &Digest) -> Result<Option<DirectoryStream>> {
        self.0.now().directories.get_closure(root).await
    }

    async fn put(&self, directory: Arc<Directory>) -> Result<()> {
        self.0.now().directories.put(directory).await
    }

    async fn put_closure(&self) -> Result<Box<dyn DirectoryPutter>> {
        self.0.now().directories.put_closure().await
    }

    async fn size_rule(&self) -> Result<SizeRule> {
        self.0.now().directories.size_rule().await
    }

    async fn sync(&self) -> Result<()> {
        self.0.now().directories.sync().await
    }
}
