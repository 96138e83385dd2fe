//! Blobs that are hashed by whoever reads them, and nowhere else.

use std::{
    ops::Range,
    sync::{Arc, atomic::Ordering::Relaxed},
};

use async_trait::async_trait;
use bytes::Bytes;
use futures::StreamExt as _;

use super::Progress;
use crate::{
    castore::{ChunkList, Digest},
    service::{
        Result,
        blob::{BlobService, BlobStream, BlobWriter, LocalBlob, Put, layer::VerifiedBlobs},
    },
};

/// Counts what is read, and hides the files that would be read past the check.
#[derive(Debug)]
pub(super) struct CheckedBlobs {
    inner: VerifiedBlobs,
    progress: Arc<Progress>,
}

impl CheckedBlobs {
    pub(super) fn new(inner: VerifiedBlobs, progress: Arc<Progress>) -> Self {
        CheckedBlobs { inner, progress }
    }
}

#[async_trait]
impl BlobService for CheckedBlobs {
    async fn has(&self, digest: &Digest) -> Result<bool> {
        self.inner.has(digest).await
    }

    async fn read(&self, digest: &Digest, range: Range<u64>) -> Result<Option<BlobStream>> {
        let Some(pieces) = self.inner.read(digest, range).await? else { return Ok(None) };
        let progress = self.progress.clone();
        let count = move |piece: &Result<Bytes>| {
            let len = piece.as_ref().map_or(0, |piece| piece.len() as u64);
            progress.bytes.fetch_add(len, Relaxed);
        };
        Ok(Some(pieces.inspect(count).boxed()))
    }

    async fn chunks(&self, digest: &Digest) -> Result<Option<ChunkList>> {
        self.inner.chunks(digest).await
    }

    fn open_local(&self, _digest: &Digest) -> Result<Option<LocalBlob>> {
        Ok(None)
    }

    async fn put(&self, contents: Bytes) -> Result<Put> {
        self.inner.put(contents).await
    }

    async fn writer(&self) -> Result<Box<dyn BlobWriter>> {
        self.inner.writer().await
    }

    async fn sync(&self) -> Result<()> {
        self.inner.sync().await
    }
}
