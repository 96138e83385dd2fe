//! Directories on their way to the service.

use std::{mem, sync::Arc};

use crate::{
    castore::{Digest, Directory},
    service::{
        Result,
        directory::{DirectoryPutter, DirectoryService},
    },
};

/// Directories wait here until they take so much memory, in bytes, or until the end.
const WAITING_BYTES_MAX: usize = 32 << 20;

/// Hands in a closure, leaves first, as late as it can.
///
/// Between two directories there may be a file that takes minutes to read. A server rightly gives up on an upload
/// that stands idle for so long, so an upload is begun only when most trees have all their directories ready.
pub(super) struct DirectorySink<'a> {
    directories: &'a dyn DirectoryService,
    waiting: Vec<Arc<Directory>>,
    waiting_bytes: usize,
    /// There once something was handed in.
    putter: Option<Box<dyn DirectoryPutter>>,
}

impl<'a> DirectorySink<'a> {
    pub(super) fn new(directories: &'a dyn DirectoryService) -> Self {
        DirectorySink { directories, waiting: Vec::new(), waiting_bytes: 0, putter: None }
    }

    /// Takes the next directory.
    pub(super) async fn put(&mut self, directory: Arc<Directory>) -> Result<()> {
        self.waiting_bytes += directory.memory();
        self.waiting.push(directory);
        if self.waiting_bytes > WAITING_BYTES_MAX {
            self.hand_in().await?;
        }
        Ok(())
    }

    async fn hand_in(&mut self) -> Result<()> {
        self.waiting_bytes = 0;
        let putter = match &mut self.putter {
            Some(putter) => putter,
            None => self.putter.insert(self.directories.put_closure().await?),
        };
        for directory in mem::take(&mut self.waiting) {
            putter.put(directory).await?;
        }
        Ok(())
    }

    /// Ends the closure. Returns its root, or `None` if there was no directory.
    pub(super) async fn finish(mut self) -> Result<Option<Digest>> {
        if !self.waiting.is_empty() {
            self.hand_in().await?;
        }
        match self.putter {
            Some(putter) => putter.finish().await.map(Some),
            None => Ok(None),
        }
    }
}
