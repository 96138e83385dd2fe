//! Counts what goes through.

use std::{ops::Range, sync::Arc};

use async_trait::async_trait;
use bytes::Bytes;
use futures::StreamExt as _;

use crate::{
    castore::{ChunkList, Digest},
    observe::{
        self,
        spent::{self, Phase},
    },
    service::{
        Result,
        blob::{BlobService, BlobStream, BlobWriter, LocalBlob, Proven, Put},
        counters::{Operation, collect, spending},
    },
};

/// Counts of each operation of a blob service.
#[derive(Debug, Default)]
pub struct BlobCounters {
    has: Operation,
    read: Operation,
    read_proven: Operation,
    outboard: Operation,
    chunks: Operation,
    open_local: Operation,
    put: Operation,
    put_all: Operation,
    write: Operation,
    sync: Operation,
}

impl BlobCounters {
    /// Makes the counts known as those of `backend`, for as long as somebody counts.
    pub fn tell(self: &Arc<Self>, backend: &str) {
        let (counters, backend) = (Arc::downgrade(self), backend.to_owned());
        observe::register(move |scrape| {
            let Some(counters) = counters.upgrade() else { return false };
            collect(scrape, "blob", &backend, &counters.operations());
            true
        });
    }

    /// Each operation, with its name.
    pub fn operations(&self) -> [(&'static str, &Operation); 10] {
        [
            ("has", &self.has),
            ("read", &self.read),
            ("read_proven", &self.read_proven),
            ("outboard", &self.outboard),
            ("chunks", &self.chunks),
            ("open_local", &self.open_local),
            ("put", &self.put),
            ("put_all", &self.put_all),
            ("write", &self.write),
            ("sync", &self.sync),
        ]
    }
}

/// Counts calls, how long they take, answers that something is absent, errors and bytes.
///
/// You want it around every backend. It never changes, delays or copies anything.
#[derive(Debug)]
pub struct MeasuredBlobs {
    inner: Arc<dyn BlobService>,
    phase: Phase,
    counters: Arc<BlobCounters>,
}

impl MeasuredBlobs {
    /// Counts what `inner` does in `counters`. Waiting for it is waiting for `phase`.
    pub fn new(inner: Arc<dyn BlobService>, counters: Arc<BlobCounters>, phase: Phase) -> Self {
        MeasuredBlobs { inner, phase, counters }
    }

    /// Counts what is read.
    fn count(&self, pieces: BlobStream) -> BlobStream {
        let counters = self.counters.clone();
        Box::pin(spending(self.phase, pieces).map(move |piece| {
            let piece = counters.read.continued(piece)?;
            counters.read.moved(piece.len());
            Ok(piece)
        }))
    }
}

#[async_trait]
impl BlobService for MeasuredBlobs {
    async fn has(&self, digest: &Digest) -> Result<bool> {
        let found = async { Ok(self.inner.has(digest).await?.then_some(())) };
        Ok(self.counters.has.find(self.phase, found).await?.is_some())
    }

    async fn lacks(&self, digest: &Digest, size: u64) -> Result<bool> {
        let found = async { Ok((!self.inner.lacks(digest, size).await?).then_some(())) };
        Ok(self.counters.has.find(self.phase, found).await?.is_none())
    }

    async fn read(&self, digest: &Digest, range: Range<u64>) -> Result<Option<BlobStream>> {
        let found = self.inner.read(digest, range);
        let found = self.counters.read.find(self.phase, found).await?;
        Ok(found.map(|pieces| self.count(pieces)))
    }

    async fn read_sized(
        &self,
        digest: &Digest,
        size: u64,
        range: Range<u64>,
    ) -> Result<Option<BlobStream>> {
        let found = self.inner.read_sized(digest, size, range);
        let found = self.counters.read.find(self.phase, found).await?;
        Ok(found.map(|pieces| self.count(pieces)))
    }

    async fn read_proven(&self, digest: &Digest, range: Range<u64>) -> Result<Option<Proven>> {
        let found = self
            .counters
            .read_proven
            .find(self.phase, self.inner.read_proven(digest, range))
            .await?;
        let Some(Proven::Range { size, pieces }) = found else { return Ok(found) };
        let counters = self.counters.clone();
        let pieces = spending(self.phase, pieces).map(move |piece| {
            let piece = counters.read_proven.continued(piece)?;
            counters.read_proven.moved(piece.data.len() + piece.nodes.len());
            Ok(piece)
        });
        Ok(Some(Proven::Range { size, pieces: Box::pin(pieces) }))
    }

    async fn outboard(&self, digest: &Digest, len_max: u64) -> Result<Option<Bytes>> {
        let outboard =
            self.counters.outboard.find(self.phase, self.inner.outboard(digest, len_max)).await?;
        self.counters.outboard.moved(outboard.as_ref().map_or(0, Bytes::len));
        Ok(outboard)
    }

    async fn chunks(&self, digest: &Digest) -> Result<Option<ChunkList>> {
        self.counters.chunks.find(self.phase, self.inner.chunks(digest)).await
    }

    async fn chunks_sized(&self, digest: &Digest, size: u64) -> Result<Option<ChunkList>> {
        self.counters.chunks.find(self.phase, self.inner.chunks_sized(digest, size)).await
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
        self.counters.put.moved(contents.len());
        self.counters.put.run(self.phase, self.inner.put(contents)).await
    }

    async fn put_all(&self, contents: Vec<Bytes>) -> Result<Vec<Put>> {
        self.counters.put_all.moved(contents.iter().map(Bytes::len).sum());
        self.counters.put_all.run(self.phase, self.inner.put_all(contents)).await
    }

    async fn writer(&self) -> Result<Box<dyn BlobWriter>> {
        let inner = self.counters.write.run(self.phase, self.inner.writer()).await?;
        Ok(Box::new(MeasuredWriter { inner, phase: self.phase, counters: self.counters.clone() }))
    }

    async fn sync(&self) -> Result<()> {
        self.counters.sync.run(self.phase, self.inner.sync()).await
    }
}

struct MeasuredWriter {
    inner: Box<dyn BlobWriter>,
    phase: Phase,
    counters: Arc<BlobCounters>,
}

#[async_trait]
impl BlobWriter for MeasuredWriter {
    async fn write(&mut self, piece: Bytes) -> Result<()> {
        self.counters.write.moved(piece.len());
        self.counters.write.continued(spent::on(self.phase, self.inner.write(piece)).await)
    }

    fn digest(&self) -> Option<Digest> {
        self.inner.digest()
    }

    async fn finish(self: Box<Self>) -> Result<(Digest, u64)> {
        self.counters.write.continued(spent::on(self.phase, self.inner.finish()).await)
    }
}
