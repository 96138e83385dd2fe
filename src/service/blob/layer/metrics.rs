//! Counts what goes through.

use std::{ops::Range, sync::Arc};

use async_trait::async_trait;
use bytes::Bytes;
use futures::StreamExt as _;

use crate::{
    castore::{ChunkList, Digest},
    service::{
        Result,
        blob::{BlobService, BlobStream, BlobWriter, LocalBlob, Proven, Put},
        counters::{Backend, Call, Operation, counters},
    },
};

counters! {
    /// Counts of each operation of a blob service.
    BlobCounters of "blob":
    has read read_proven outboard chunks open_local put put_all write sync
}

/// Counts calls, how long they take, answers that something is absent, errors and bytes.
///
/// You want it around every backend. It never changes, delays or copies anything.
#[derive(Debug)]
pub struct MeasuredBlobs {
    inner: Arc<dyn BlobService>,
    backend: Backend,
    counters: Arc<BlobCounters>,
}

impl MeasuredBlobs {
    /// Counts what `inner` does, which is `backend`, in `counters`.
    pub fn new(inner: Arc<dyn BlobService>, counters: Arc<BlobCounters>, backend: Backend) -> Self {
        MeasuredBlobs { inner, backend, counters }
    }

    fn begin(&self, operation: &Operation, digest: &Digest) -> Call {
        operation.begin(&self.backend, Some(digest))
    }

    /// Counts what is read.
    async fn count(
        &self,
        digest: &Digest,
        found: impl Future<Output = Result<Option<BlobStream>>>,
    ) -> Result<Option<BlobStream>> {
        let call = self.begin(&self.counters.read, digest);
        let Some(pieces) = self.counters.read.find(&call, found).await? else { return Ok(None) };
        let counters = self.counters.clone();
        Ok(Some(Box::pin(call.follow(pieces).map(move |piece| {
            let piece = counters.read.continued(piece)?;
            counters.read.moved(piece.len());
            Ok(piece)
        }))))
    }
}

#[async_trait]
impl BlobService for MeasuredBlobs {
    async fn has(&self, digest: &Digest) -> Result<bool> {
        let found = async { Ok(self.inner.has(digest).await?.then_some(())) };
        let has = &self.counters.has;
        Ok(has.find(&self.begin(has, digest), found).await?.is_some())
    }

    async fn lacks(&self, digest: &Digest, size: u64) -> Result<bool> {
        let found = async { Ok((!self.inner.lacks(digest, size).await?).then_some(())) };
        let has = &self.counters.has;
        Ok(has.find(&self.begin(has, digest), found).await?.is_none())
    }

    async fn read(&self, digest: &Digest, range: Range<u64>) -> Result<Option<BlobStream>> {
        self.count(digest, self.inner.read(digest, range)).await
    }

    async fn read_sized(
        &self,
        digest: &Digest,
        size: u64,
        range: Range<u64>,
    ) -> Result<Option<BlobStream>> {
        self.count(digest, self.inner.read_sized(digest, size, range)).await
    }

    async fn read_proven(&self, digest: &Digest, range: Range<u64>) -> Result<Option<Proven>> {
        let read_proven = &self.counters.read_proven;
        let call = self.begin(read_proven, digest);
        let found = read_proven.find(&call, self.inner.read_proven(digest, range)).await?;
        let Some(Proven::Range { size, pieces }) = found else { return Ok(found) };
        let counters = self.counters.clone();
        let pieces = call.follow(pieces).map(move |piece| {
            let piece = counters.read_proven.continued(piece)?;
            counters.read_proven.moved(piece.data.len() + piece.nodes.len());
            Ok(piece)
        });
        Ok(Some(Proven::Range { size, pieces: Box::pin(pieces) }))
    }

    async fn outboard(&self, digest: &Digest, len_max: u64) -> Result<Option<Bytes>> {
        let outboard = &self.counters.outboard;
        let call = self.begin(outboard, digest);
        let found = outboard.find(&call, self.inner.outboard(digest, len_max)).await?;
        outboard.moved(found.as_ref().map_or(0, Bytes::len));
        Ok(found)
    }

    async fn chunks(&self, digest: &Digest) -> Result<Option<ChunkList>> {
        let chunks = &self.counters.chunks;
        chunks.find(&self.begin(chunks, digest), self.inner.chunks(digest)).await
    }

    async fn chunks_sized(&self, digest: &Digest, size: u64) -> Result<Option<ChunkList>> {
        let chunks = &self.counters.chunks;
        chunks.find(&self.begin(chunks, digest), self.inner.chunks_sized(digest, size)).await
    }

    fn open_local(&self, digest: &Digest) -> Result<Option<LocalBlob>> {
        self.counters.open_local.found(self.inner.open_local(digest))
    }

    fn open_local_range(
        &self,
        digest: &Digest,
        size: u64,
        range: &Range<u64>,
    ) -> Result<Option<LocalBlob>> {
        let found = self.inner.open_local_range(digest, size, range);
        self.counters.open_local.found(found)
    }

    async fn lend(&self, digest: &Digest) -> Option<LocalBlob> {
        self.inner.lend(digest).await
    }

    async fn lends(&self) -> bool {
        self.inner.lends().await
    }

    fn distrust(&self) {
        self.inner.distrust();
    }

    fn has_others(&self) -> bool {
        self.inner.has_others()
    }

    fn is_local(&self) -> bool {
        self.inner.is_local()
    }

    fn keeps_what_is_read(&self) -> bool {
        self.inner.keeps_what_is_read()
    }

    fn mean_local_len(&self) -> Option<u64> {
        self.inner.mean_local_len()
    }

    async fn put(&self, contents: Bytes) -> Result<Put> {
        let put = &self.counters.put;
        put.moved(contents.len());
        put.run(&put.begin(&self.backend, None), self.inner.put(contents)).await
    }

    async fn put_all(&self, contents: Vec<Bytes>) -> Result<Vec<Put>> {
        let put_all = &self.counters.put_all;
        put_all.moved(contents.iter().map(Bytes::len).sum());
        put_all.run(&put_all.begin(&self.backend, None), self.inner.put_all(contents)).await
    }

    async fn writer(&self) -> Result<Box<dyn BlobWriter>> {
        let call = self.counters.write.begin(&self.backend, None);
        let inner = self.counters.write.run(&call, self.inner.writer()).await?;
        Ok(Box::new(MeasuredWriter { inner, call, counters: self.counters.clone() }))
    }

    async fn sync(&self) -> Result<()> {
        let sync = &self.counters.sync;
        sync.run(&sync.begin(&self.backend, None), self.inner.sync()).await
    }
}

struct MeasuredWriter {
    inner: Box<dyn BlobWriter>,
    call: Call,
    counters: Arc<BlobCounters>,
}

#[async_trait]
impl BlobWriter for MeasuredWriter {
    async fn write(&mut self, piece: Bytes) -> Result<()> {
        self.counters.write.moved(piece.len());
        self.counters.write.go_on(&self.call, self.inner.write(piece)).await
    }

    fn digest(&self) -> Option<Digest> {
        self.inner.digest()
    }

    async fn finish(self: Box<Self>) -> Result<(Digest, u64)> {
        self.counters.write.go_on(&self.call, self.inner.finish()).await
    }
}
