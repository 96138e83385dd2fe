//! Contents are what their digest says.

use std::{collections::VecDeque, ops::Range, sync::Arc};

use async_trait::async_trait;
use bytes::Bytes;
use futures::{StreamExt as _, stream};

use crate::{
    castore::{ChunkList, Digest},
    observe::spent::{self, Phase},
    service::{
        Error, Result,
        blob::{
            BlobService, BlobStream, BlobWriter, LocalBlob, Proven, Put, SMALL_BLOB_LEN_MAX,
            checked,
        },
    },
};

/// Hashes what is read and compares it with the digest that was asked for.
///
/// You want it before a store that does not stand for its contents: a peer, a bucket. A blob of at most
/// [`SMALL_BLOB_LEN_MAX`] bytes is checked before its first byte is released. A longer one is released as it comes,
/// **before it is known to be right**, all but its last piece: that one is held back until the hash agrees, so that
/// nobody gets all of a wrong blob without an error. Whoever keeps what was read must wait for the end, as the
/// `cache` layer does.
///
/// A range that comes with its proof is checked piece by piece, and each piece is released once it is known to be right.
/// A range without one costs the whole blob, as a hash can be computed over the whole only. Lists of chunks, and files
/// that are local or lent, pass as they are.
#[derive(Debug)]
pub struct VerifiedBlobs {
    endpoint: Arc<str>,
    inner: Arc<dyn BlobService>,
}

impl VerifiedBlobs {
    /// Verifies `inner`, which errors call `endpoint`.
    pub fn new(endpoint: &str, inner: Arc<dyn BlobService>) -> Self {
        VerifiedBlobs { endpoint: endpoint.into(), inner }
    }

    fn check_put(&self, expected: Digest, got: Digest) -> Result<Digest> {
        if expected == got {
            return Ok(got);
        }
        Err(mismatch(&self.endpoint, expected, got))
    }
}

fn mismatch(endpoint: &str, expected: Digest, got: Digest) -> Error {
    Error::corrupt(endpoint, format!("blob {expected} has the contents of {got}"))
}

/// Tells the store below if it sent something wrong.
fn blame<T>(inner: &dyn BlobService, piece: &Result<T>) {
    if matches!(piece, Err(Error::Corrupt { .. })) {
        inner.distrust();
    }
}

#[async_trait]
impl BlobService for VerifiedBlobs {
    async fn has(&self, digest: &Digest) -> Result<bool> {
        self.inner.has(digest).await
    }

    async fn lacks(&self, digest: &Digest, size: u64) -> Result<bool> {
        self.inner.lacks(digest, size).await
    }

    async fn read(&self, digest: &Digest, range: Range<u64>) -> Result<Option<BlobStream>> {
        if range.is_empty() {
            return self.inner.read(digest, range).await;
        }
        let Some(pieces) = self.inner.read(digest, 0..u64::MAX).await? else {
            return Ok(None);
        };
        let check = Check {
            endpoint: self.endpoint.clone(),
            digest: *digest,
            range,
            pieces: Some(pieces),
            hasher: blake3::Hasher::new(),
            len: 0,
            held: VecDeque::new(),
        };
        let inner = self.inner.clone();
        let pieces = stream::unfold(check, |mut check| async move {
            check.next().await.map(|piece| (piece, check))
        });
        Ok(Some(pieces.inspect(move |piece| blame(&*inner, piece)).boxed()))
    }

    async fn read_proven(&self, digest: &Digest, range: Range<u64>) -> Result<Option<Proven>> {
        let proven = self.inner.read_proven(digest, range.clone()).await?;
        let inner = self.inner.clone();
        Ok(proven.map(|proven| match checked(&self.endpoint, digest, &range, proven) {
            Proven::Lacking => Proven::Lacking,
            Proven::Range { size, pieces } => {
                let pieces = pieces.inspect(move |piece| blame(&*inner, piece)).boxed();
                Proven::Range { size, pieces }
            }
        }))
    }

    async fn chunks(&self, digest: &Digest) -> Result<Option<ChunkList>> {
        self.inner.chunks(digest).await
    }

    async fn chunks_sized(&self, digest: &Digest, size: u64) -> Result<Option<ChunkList>> {
        self.inner.chunks_sized(digest, size).await
    }

    fn open_local(&self, digest: &Digest) -> Result<Option<LocalBlob>> {
        self.inner.open_local(digest)
    }

    fn mean_local_len(&self) -> Option<u64> {
        self.inner.mean_local_len()
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

    async fn put(&self, contents: Bytes) -> Result<Put> {
        let expected = Digest::of(&contents);
        let put = self.inner.put(contents).await?;
        self.check_put(expected, put.digest)?;
        Ok(put)
    }

    async fn writer(&self) -> Result<Box<dyn BlobWriter>> {
        Ok(Box::new(VerifiedWriter {
            endpoint: self.endpoint.clone(),
            inner: self.inner.writer().await?,
            hasher: blake3::Hasher::new(),
        }))
    }

    async fn sync(&self) -> Result<()> {
        self.inner.sync().await
    }
}

/// A blob on its way from its store to the reader of a range.
struct Check {
    endpoint: Arc<str>,
    digest: Digest,
    range: Range<u64>,
    /// What is still to come; nothing once all of it was seen, or it failed.
    pieces: Option<BlobStream>,
    hasher: blake3::Hasher,
    /// How many bytes have come.
    len: u64,
    /// Pieces of the range that may not be released yet: those of the first [`SMALL_BLOB_LEN_MAX`] bytes, then one.
    held: VecDeque<Bytes>,
}

impl Check {
    async fn next(&mut self) -> Option<Result<Bytes>> {
        loop {
            let releasable = match self.pieces {
                None => self.held.len(),
                Some(_) if self.len > SMALL_BLOB_LEN_MAX as u64 => {
                    self.held.len().saturating_sub(1)
                }
                Some(_) => 0,
            };
            if releasable > 0 {
                return self.held.pop_front().map(Ok);
            }
            match self.pieces.as_mut()?.next().await {
                Some(Ok(piece)) => self.take(piece),
                Some(Err(error)) => return Some(Err(self.fail(error))),
                None => {
                    let got = Digest::from(self.hasher.finalize());
                    if got != self.digest {
                        let error = mismatch(&self.endpoint, self.digest, got);
                        return Some(Err(self.fail(error)));
                    }
                    self.pieces = None;
                }
            }
        }
    }

    /// Hashes a piece and holds the part of it that lies in the range.
    fn take(&mut self, piece: Bytes) {
        spent::here(Phase::Verify, || self.hasher.update(&piece));
        let start = self.len;
        self.len += piece.len() as u64;
        let from = self.range.start.clamp(start, self.len) - start;
        let to = self.range.end.clamp(start, self.len) - start;
        if from < to {
            // Both are at most the length of the piece.
            self.held.push_back(piece.slice(from as usize..to as usize));
        }
    }

    /// Ends the stream without what is held.
    fn fail(&mut self, error: Error) -> Error {
        self.held.clear();
        self.pieces = None;
        error
    }
}

struct VerifiedWriter {
    endpoint: Arc<str>,
    inner: Box<dyn BlobWriter>,
    hasher: blake3::Hasher,
}

#[async_trait]
impl BlobWriter for VerifiedWriter {
    async fn write(&mut self, piece: Bytes) -> Result<()> {
        self.hasher.update(&piece);
        self.inner.write(piece).await
    }

    async fn finish(self: Box<Self>) -> Result<(Digest, u64)> {
        let expected = (Digest::from(self.hasher.finalize()), self.hasher.count());
        let got = self.inner.finish().await?;
        if got != expected {
            return Err(mismatch(&self.endpoint, expected.0, got.0));
        }
        Ok(got)
    }
}
