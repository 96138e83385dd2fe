//! The blobs of whichever store is there.

use std::ops::Range;

use async_trait::async_trait;
use bytes::Bytes;

use super::Swap;
use crate::{
    castore::{ChunkList, Digest},
    service::{
        Result,
        blob::{BlobService, BlobStream, BlobWriter, LocalBlob, Proven, Put},
    },
};

/// Forwards everything.
#[derive(Debug)]
pub(super) struct SwapBlobs(pub(super) Swap);

#[async_trait]
impl BlobService for SwapBlobs {
    async fn has(&self, digest: &Digest) -> Result<bool> {
        self.0.now().blobs.has(digest).await
    }

    async fn lacks(&self, digest: &Digest, size: u64) -> Result<bool> {
        self.0.now().blobs.lacks(digest, size).await
    }

    async fn read(&self, digest: &Digest, range: Range<u64>) -> Result<Option<BlobStream>> {
        self.0.now().blobs.read(digest, range).await
    }

    async fn read_sized(
        &self,
        digest: &Digest,
        size: u64,
        range: Range<u64>,
    ) -> Result<Option<BlobStream>> {
        self.0.now().blobs.read_sized(digest, size, range).await
    }

    async fn read_proven(&self, digest: &Digest, range: Range<u64>) -> Result<Option<Proven>> {
        self.0.now().blobs.read_proven(digest, range).await
    }

    async fn outboard(&self, digest: &Digest, len_max: u64) -> Result<Option<Bytes>> {
        self.0.now().blobs.outboard(digest, len_max).await
    }

    async fn chunks(&self, digest: &Digest) -> Result<Option<ChunkList>> {
        self.0.now().blobs.chunks(digest).await
    }

    async fn chunks_sized(&self, digest: &Digest, size: u64) -> Result<Option<ChunkList>> {
        self.0.now().blobs.chunks_sized(digest, size).await
    }

    fn open_local(&self, digest: &Digest) -> Result<Option<LocalBlob>> {
        self.0.with(|stores| stores.blobs.open_local(digest))
    }

    fn open_local_range(
        &self,
        digest: &Digest,
        size: u64,
        range: &Range<u64>,
    ) -> Result<Option<LocalBlob>> {
        self.0.with(|stores| stores.blobs.open_local_range(digest, size, range))
    }

    async fn lend(&self, digest: &Digest) -> Option<LocalBlob> {
        self.0.now().blobs.lend(digest).await
    }

    async fn lends(&self) -> bool {
        self.0.now().blobs.lends().await
    }

    fn distrust(&self) {
        self.0.with(|stores| stores.blobs.distrust());
    }

    fn has_others(&self) -> bool {
        self.0.with(|stores| stores.blobs.has_others())
    }

    fn is_local(&self) -> bool {
        self.0.with(|stores| stores.blobs.is_local())
    }

    fn keeps_what_is_read(&self) -> bool {
        self.0.with(|stores| stores.blobs.keeps_what_is_read())
    }

    fn mean_local_len(&self) -> Option<u64> {
        self.0.with(|stores| stores.blobs.mean_local_len())
    }

    async fn put(&self, contents: Bytes) -> Result<Put> {
        self.0.now().blobs.put(contents).await
    }

    async fn put_all(&self, contents: Vec<Bytes>) -> Result<Vec<Put>> {
        self.0.now().blobs.put_all(contents).await
    }

    async fn writer(&self) -> Result<Box<dyn BlobWriter>> {
        self.0.now().blobs.writer().await
    }

    async fn sync(&self) -> Result<()> {
        self.0.now().blobs.sync().await
    }
}
