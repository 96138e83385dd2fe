//! A long blob on its way into the bucket.

use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use tokio::task::JoinSet;

use super::{Inner, chunker::Chunker, upload::CHUNKS_AT_ONCE_MAX};
use crate::{
    castore::{Chunk, Digest},
    observe::span::carried,
    service::{Error, Result, blob::BlobWriter},
};

/// Cuts what comes, and stores the chunks while more comes. Holds as many of them as are under way.
pub(super) struct BucketBlobWriter {
    inner: Arc<Inner>,
    chunker: Chunker,
    hasher: blake3::Hasher,
    chunks: Vec<Chunk>,
    /// Ends with the writer.
    under_way: JoinSet<Result<bool>>,
}

impl BucketBlobWriter {
    pub(super) fn new(inner: Arc<Inner>) -> Self {
        BucketBlobWriter {
            inner,
            chunker: Chunker::default(),
            hasher: blake3::Hasher::new(),
            chunks: Vec::new(),
            under_way: JoinSet::new(),
        }
    }

    /// Begins to store a chunk, as soon as there is room for one more.
    async fn store(&mut self, contents: Bytes) -> Result<()> {
        while self.under_way.len() >= CHUNKS_AT_ONCE_MAX {
            self.landed().await?;
        }
        let chunk = Chunk { digest: Digest::of(&contents), size: contents.len() as u64 };
        self.chunks.push(chunk);
        let inner = self.inner.clone();
        let store = async move { inner.uploads.chunk(chunk.digest, contents).await };
        self.under_way.spawn(carried(store));
        Ok(())
    }

    /// Waits for one that is under way. `false` if none is.
    async fn landed(&mut self) -> Result<bool> {
        match self.under_way.join_next().await {
            None => Ok(false),
            Some(Ok(stored)) => stored.map(|_| true),
            Some(Err(error)) => Err(Error::unavailable(self.inner.bucket.endpoint(), error)),
        }
    }
}

#[async_trait]
impl BlobWriter for BucketBlobWriter {
    async fn write(&mut self, piece: Bytes) -> Result<()> {
        self.hasher.update(&piece);
        self.chunker.push(&piece);
        while let Some(contents) = self.chunker.next() {
            self.store(contents).await?;
        }
        Ok(())
    }

    async fn finish(mut self: Box<Self>) -> Result<(Digest, u64)> {
        while let Some(contents) = self.chunker.next_at_end() {
            self.store(contents).await?;
        }
        while self.landed().await? {}
        let blob = Digest::from(self.hasher.finalize());
        // One chunk is the blob itself.
        if self.chunks.len() > 1 {
            self.inner.uploads.list(&blob, &self.chunks).await?;
        }
        Ok((blob, self.hasher.count()))
    }
}
