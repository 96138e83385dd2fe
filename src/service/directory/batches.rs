//! A closure on its way into a store that takes many directories at once.

use std::sync::Arc;

use async_trait::async_trait;

use super::DirectoryPutter;
use crate::{
    castore::{Digest, Directory, LeavesFirst},
    service::{Error, Result},
};

/// How many bytes of directories are held back for a batch; the last one may go beyond.
const BATCH_BYTES_MAX: usize = 4 << 20;

/// What takes batches.
#[async_trait]
pub(super) trait Batches: Send + Sync {
    /// How many directories there are in a batch at most.
    const LEN_MAX: usize;

    /// Refuses a directory that could not be written.
    fn check(&self, _directory: &Directory) -> Result<()> {
        Ok(())
    }

    /// Writes directories, which come leaves first.
    async fn write(&self, batch: Vec<Arc<Directory>>) -> Result<()>;
}

/// Writes in batches as they come. Leaves come first, so whatever is visible has all that it names.
pub(super) struct BatchPutter<B> {
    to: B,
    order: LeavesFirst,
    batch: Vec<Arc<Directory>>,
    batch_bytes: usize,
}

impl<B> BatchPutter<B> {
    /// Has nothing yet.
    pub(super) fn new(to: B) -> Self {
        BatchPutter { to, order: LeavesFirst::new(), batch: Vec::new(), batch_bytes: 0 }
    }
}

#[async_trait]
impl<B: Batches> DirectoryPutter for BatchPutter<B> {
    async fn put(&mut self, directory: Arc<Directory>) -> Result<()> {
        self.to.check(&directory)?;
        if !self.order.add(&directory).map_err(Error::invalid)? {
            return Ok(());
        }
        // The last one stays back, since it may be the root of a closure that is not whole.
        if self.batch.len() >= B::LEN_MAX || self.batch_bytes >= BATCH_BYTES_MAX {
            self.batch_bytes = 0;
            self.to.write(std::mem::take(&mut self.batch)).await?;
        }
        self.batch_bytes += directory.encoded().len();
        self.batch.push(directory);
        Ok(())
    }

    async fn finish(self: Box<Self>) -> Result<Digest> {
        let root = self.order.finish().map_err(Error::invalid)?;
        self.to.write(self.batch).await?;
        Ok(root)
    }
}
