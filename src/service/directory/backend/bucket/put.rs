//! A closure on its way into a bucket.

use std::sync::Arc;

use async_trait::async_trait;

use super::{
    Inner,
    object::{CLOSURE_LEN_MAX, HEAD_LEN, OBJECT_LEN_MAX, encode},
    too_long,
};
use crate::{
    castore::{Digest, Directory, LeavesFirst},
    service::{Error, Result, bucket::Kind, directory::DirectoryPutter, local::offload},
};

/// Holds a closure until it is whole, as the object begins with the root.
pub(super) struct BucketDirectoryPutter {
    inner: Arc<Inner>,
    order: LeavesFirst,
    leaves_first: Vec<Arc<Directory>>,
    len: u64,
}

impl BucketDirectoryPutter {
    pub(super) fn new(inner: Arc<Inner>) -> Self {
        BucketDirectoryPutter { inner, order: LeavesFirst::new(), leaves_first: Vec::new(), len: 0 }
    }
}

#[async_trait]
impl DirectoryPutter for BucketDirectoryPutter {
    async fn put(&mut self, directory: Arc<Directory>) -> Result<()> {
        if !self.order.add(&directory).map_err(Error::invalid)? {
            return Ok(());
        }
        self.len += (HEAD_LEN + directory.encoded().len()) as u64;
        if self.len > CLOSURE_LEN_MAX {
            return Err(too_long(&directory.digest(), self.len, CLOSURE_LEN_MAX));
        }
        self.leaves_first.push(directory);
        Ok(())
    }

    async fn finish(self: Box<Self>) -> Result<Digest> {
        let root = self.order.finish().map_err(Error::invalid)?;
        let (bucket, directories) = (&self.inner.bucket, Arc::new(self.leaves_first));
        let object = {
            let (directories, endpoint) = (directories.clone(), bucket.endpoint().clone());
            // Whatever names a directory came after it.
            let encoded = move || encode(directories.iter().rev());
            offload(bucket.endpoint(), move || {
                encoded().map_err(|error| Error::unavailable(&endpoint, error))
            })
            .await?
        };
        if object.len() as u64 > OBJECT_LEN_MAX {
            return Err(too_long(&root, object.len() as u64, OBJECT_LEN_MAX));
        }
        bucket.create(&bucket.path(Kind::Directory, root.as_bytes()), object).await?;
        for directory in directories.iter() {
            self.inner.learn(&root, directory);
        }
        Ok(root)
    }
}
