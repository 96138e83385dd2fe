//! Directories in the memory of this process.

use std::{collections::HashMap, sync::Arc};

use async_trait::async_trait;
use parking_lot::RwLock;

use crate::{
    castore::{Digest, Directory, LeavesFirst},
    service::{
        Error, Result,
        directory::{DirectoryPutter, DirectoryService, DirectoryStream, walk_closure},
    },
};

/// Keeps directories in memory, without bound, until it is dropped. For tests and trials.
#[derive(Debug, Clone, Default)]
pub struct MemoryDirectories {
    directories: Arc<RwLock<HashMap<Digest, Arc<Directory>>>>,
}

impl MemoryDirectories {
    /// Without directories.
    pub fn new() -> Self {
        Self::default()
    }

    fn find(&self, digest: &Digest) -> Option<Arc<Directory>> {
        self.directories.read().get(digest).cloned()
    }
}

#[async_trait]
impl DirectoryService for MemoryDirectories {
    async fn get(&self, digest: &Digest) -> Result<Option<Arc<Directory>>> {
        Ok(self.find(digest))
    }

    fn get_local(&self, digest: &Digest) -> Result<Option<Arc<Directory>>> {
        Ok(self.find(digest))
    }

    async fn get_closure(&self, root: &Digest) -> Result<Option<DirectoryStream>> {
        let this = self.clone();
        walk_closure("memory:", root, move |digest| Ok(this.find(digest)))
    }

    async fn put(&self, directory: Arc<Directory>) -> Result<()> {
        self.directories.write().insert(directory.digest(), directory);
        Ok(())
    }

    async fn put_closure(&self) -> Result<Box<dyn DirectoryPutter>> {
        Ok(Box::new(MemoryPutter {
            directories: self.clone(),
            order: LeavesFirst::new(),
            new: Vec::new(),
        }))
    }

    async fn sync(&self) -> Result<()> {
        Ok(())
    }
}

struct MemoryPutter {
    directories: MemoryDirectories,
    order: LeavesFirst,
    new: Vec<Arc<Directory>>,
}

#[async_trait]
impl DirectoryPutter for MemoryPutter {
    async fn put(&mut self, directory: Arc<Directory>) -> Result<()> {
        if self.order.add(&directory).map_err(Error::invalid)? {
            self.new.push(directory);
        }
        Ok(())
    }

    async fn finish(self: Box<Self>) -> Result<Digest> {
        let root = self.order.finish().map_err(Error::invalid)?;
        let mut directories = self.directories.directories.write();
        directories.extend(self.new.into_iter().map(|directory| (directory.digest(), directory)));
        Ok(root)
    }
}
