//! Blobs of a bucket.

mod chunker;
mod fetch;
mod guess;
mod lists;
mod read;
#[cfg(test)]
mod tests;
mod upload;
mod writer;

use std::{ops::Range, sync::Arc};

use async_trait::async_trait;
use bytes::Bytes;
use futures::{StreamExt as _, TryStreamExt as _, stream};

use chunker::CUT_LEN_MAX;

use self::{fetch::Fetch, upload::Uploads, writer::BucketBlobWriter};
use crate::{
    castore::{ChunkList, Digest},
    service::{
        Result,
        blob::{BlobService, BlobStream, BlobWriter, LocalBlob, Proven, Put},
        bucket::{Bucket, REQUESTS_AT_ONCE_MAX},
    },
};

/// The longest chunk that is read, in bytes. Others may have cut with longer chunks in mind.
pub const CHUNK_LEN_MAX: usize = 8 << 20;

/// Keeps blobs in a bucket, cut into chunks. Equal chunks of different blobs are stored once.
///
/// What is read is verified: each chunk against its digest, and a blob of many chunks as a whole. Where all of it is read,
/// its last piece is held back until the whole is known to be right. A list of chunks proves nothing by itself, so before
/// the first range of a blob is released all of it is read and checked, once; from then on a range reads the chunks that
/// it touches. Whoever believes the list reads the chunks, as blobs of their own: see the `lazy` layer.
///
/// What is written is there for good once the call returns, and a blob only after all of its chunks. A chunk that is there
/// is not sent again, as far as asking for it is worth more than sending it; see the `guess` module.
#[derive(Debug, Clone)]
pub struct BucketBlobs(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    bucket: Bucket,
    fetch: Fetch,
    uploads: Uploads,
}

impl BucketBlobs {
    /// The blobs of `bucket`.
    pub fn new(bucket: Bucket) -> Self {
        BucketBlobs(Arc::new(Inner {
            fetch: Fetch::new(bucket.clone()),
            uploads: Uploads::new(bucket.clone()),
            bucket,
        }))
    }
}

#[async_trait]
impl BlobService for BucketBlobs {
    async fn has(&self, digest: &Digest) -> Result<bool> {
        self.0.uploads.has_blob(digest).await
    }

    async fn lacks(&self, digest: &Digest, size: u64) -> Result<bool> {
        self.0.uploads.lacks(digest, size).await
    }

    async fn read(&self, digest: &Digest, range: Range<u64>) -> Result<Option<BlobStream>> {
        self.0.clone().read(*digest, None, range).await
    }

    async fn read_sized(
        &self,
        digest: &Digest,
        size: u64,
        range: Range<u64>,
    ) -> Result<Option<BlobStream>> {
        self.0.clone().read(*digest, Some(size), range).await
    }

    /// There are no trees in a bucket, so nobody is asked.
    async fn read_proven(&self, _digest: &Digest, _range: Range<u64>) -> Result<Option<Proven>> {
        Ok(Some(Proven::Lacking))
    }

    async fn chunks(&self, digest: &Digest) -> Result<Option<ChunkList>> {
        self.0.fetch.chunks(digest, None).await
    }

    async fn chunks_sized(&self, digest: &Digest, size: u64) -> Result<Option<ChunkList>> {
        self.0.fetch.chunks(digest, Some(size)).await
    }

    fn open_local(&self, _digest: &Digest) -> Result<Option<LocalBlob>> {
        Ok(None)
    }

    async fn put(&self, contents: Bytes) -> Result<Put> {
        self.0.uploads.put(contents).await
    }

    async fn put_all(&self, contents: Vec<Bytes>) -> Result<Vec<Put>> {
        let puts = contents.into_iter().map(|contents| self.0.uploads.put(contents));
        stream::iter(puts).buffered(REQUESTS_AT_ONCE_MAX).try_collect().await
    }

    async fn writer(&self) -> Result<Box<dyn BlobWriter>> {
        Ok(Box::new(BucketBlobWriter::new(self.0.clone())))
    }

    async fn sync(&self) -> Result<()> {
        self.0.bucket.sync().await
    }
}
