//! Ranges of blobs, from their chunks.

use std::{collections::VecDeque, ops::Range, sync::Arc};

use bytes::Bytes;
use futures::{
    StreamExt as _, TryStreamExt as _,
    stream::{self, BoxStream},
};

use super::{CUT_LEN_MAX, Inner, fetch::Made, lists::Listed};
use crate::{
    castore::{Chunk, Digest},
    service::{
        Error, Result,
        blob::{BLOB_PIECE_LEN_MAX, BlobStream, SMALL_BLOB_LEN_MAX, pieces_of},
    },
};

/// How many chunks of a blob are fetched at once.
const CHUNKS_AT_ONCE_MAX: usize = 8;

/// The contents of chunks, in order, each with where it begins.
type ChunkStream = BoxStream<'static, Result<(u64, Bytes)>>;

impl Inner {
    /// A range of a blob, whose length may be known.
    pub(super) async fn read(
        self: Arc<Self>,
        digest: Digest,
        size: Option<u64>,
        range: Range<u64>,
    ) -> Result<Option<BlobStream>> {
        if digest == Digest::EMPTY {
            return Ok(Some(stream::empty().boxed()));
        }
        if range.is_empty() {
            return Ok(self.uploads.has_blob(&digest).await?.then(|| stream::empty().boxed()));
        }
        // What it probably is, is asked for first.
        if size.is_some_and(|size| size > CUT_LEN_MAX as u64) {
            match self.fetch.list(&digest).await? {
                Some(Made::Chunks(listed)) => return self.read_listed(digest, listed, range).await,
                Some(Made::OneChunk) | None => return self.read_one(digest, range).await,
            }
        }
        if let Some(stream) = self.read_one(digest, range.clone()).await? {
            return Ok(Some(stream));
        }
        match self.fetch.list(&digest).await? {
            Some(Made::Chunks(listed)) => self.read_listed(digest, listed, range).await,
            Some(Made::OneChunk) => {
                let what = format!("blob {digest} is listed as one chunk, which is not there");
                Err(self.bucket.corrupt(what))
            }
            None => Ok(None),
        }
    }

    async fn read_one(&self, digest: Digest, range: Range<u64>) -> Result<Option<BlobStream>> {
        let contents = self.fetch.chunk(&digest, None).await?;
        Ok(contents.map(|contents| pieces_of(&contents, &range)))
    }

    async fn read_listed(
        self: Arc<Self>,
        digest: Digest,
        listed: Arc<Listed>,
        range: Range<u64>,
    ) -> Result<Option<BlobStream>> {
        let size = listed.chunks.blob_size();
        let range = range.start.min(size)..range.end.min(size);
        let is_whole = range == (0..size);
        if is_whole && !listed.is_proven() {
            return Ok(Some(self.read_whole(digest, listed)));
        }
        if !listed.is_proven() {
            let mut whole = self.clone().read_whole(digest, listed.clone());
            while whole.try_next().await?.is_some() {}
        }
        let (begin, end) = (range.start, range.end);
        let pieces = self.contents(digest, listed, range).map_ok(move |(start, contents)| {
            let until = start + contents.len() as u64;
            // Both are within the chunk.
            let part = begin.max(start) - start..end.min(until) - start;
            pieces_of(&contents, &part)
        });
        Ok(Some(pieces.try_flatten().boxed()))
    }

    /// The chunks that `range` touches, several on their way at once.
    fn contents(
        self: Arc<Self>,
        digest: Digest,
        listed: Arc<Listed>,
        range: Range<u64>,
    ) -> ChunkStream {
        let mut at = range.start;
        let chunks = std::iter::from_fn(move || {
            let (start, chunk) = listed.chunks.at(at).filter(|_| at < range.end)?;
            at = start + chunk.size;
            Some((start, chunk))
        });
        let fetch = move |(start, chunk): (u64, Chunk)| {
            let this = self.clone();
            async move {
                let contents = this.fetch.chunk(&chunk.digest, Some(chunk.size)).await?;
                let missing = || {
                    let what = format!("chunk {} of blob {digest} is missing", chunk.digest);
                    this.bucket.corrupt(what)
                };
                Ok((start, contents.ok_or_else(missing)?))
            }
        };
        stream::iter(chunks).map(fetch).buffered(CHUNKS_AT_ONCE_MAX).boxed()
    }

    /// A whole blob. Its last piece is held back until all are known to be the blob, and all of a short one.
    fn read_whole(self: Arc<Self>, digest: Digest, listed: Arc<Listed>) -> BlobStream {
        let size = listed.chunks.blob_size();
        let chunks = self.clone().contents(digest, listed.clone(), 0..size);
        let hasher = blake3::Hasher::new();
        let whole = Whole {
            inner: self,
            digest,
            listed,
            chunks: Some(chunks),
            hasher,
            held: VecDeque::new(),
        };
        stream::unfold(
            whole,
            |mut whole| async move { whole.next().await.map(|piece| (piece, whole)) },
        )
        .boxed()
    }
}

/// A blob on its way that is checked as a whole.
struct Whole {
    inner: Arc<Inner>,
    digest: Digest,
    listed: Arc<Listed>,
    /// What is still to come; nothing once all of it was seen, or it failed.
    chunks: Option<ChunkStream>,
    hasher: blake3::Hasher,
    /// What may not be released yet.
    held: VecDeque<Bytes>,
}

impl Whole {
    async fn next(&mut self) -> Option<Result<Bytes>> {
        loop {
            let releasable = match self.chunks {
                None => self.held.len(),
                Some(_) if self.listed.chunks.blob_size() <= SMALL_BLOB_LEN_MAX as u64 => 0,
                Some(_) => self.held.len().saturating_sub(1),
            };
            if releasable > 0 {
                return self.held.pop_front().map(Ok);
            }
            match self.chunks.as_mut()?.next().await {
                Some(Ok((_, mut contents))) => {
                    self.hasher.update(&contents);
                    while !contents.is_empty() {
                        let len = contents.len().min(BLOB_PIECE_LEN_MAX);
                        self.held.push_back(contents.split_to(len));
                    }
                }
                Some(Err(error)) => return Some(Err(self.fail(error))),
                None => {
                    let got = Digest::from(self.hasher.finalize());
                    if got != self.digest {
                        return Some(Err(self.was_lied_to(got)));
                    }
                    self.listed.prove();
                    self.chunks = None;
                }
            }
        }
    }

    fn was_lied_to(&mut self, got: Digest) -> Error {
        self.inner.fetch.forget_list(&self.digest);
        let what = format!("the chunks listed for blob {} make up {got}", self.digest);
        let error = self.inner.bucket.corrupt(what);
        self.fail(error)
    }

    /// Ends the stream without what is held.
    fn fail(&mut self, error: Error) -> Error {
        self.held.clear();
        self.chunks = None;
        error
    }
}
