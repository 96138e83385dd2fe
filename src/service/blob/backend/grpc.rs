//! Blobs of a peer.

use std::{
    ops::Range,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
};

use async_trait::async_trait;
use bytes::Bytes;
use futures::{
    StreamExt as _,
    stream::{self, BoxStream},
};

use crate::{
    castore::{Chunk, ChunkList, Digest},
    proto::{castore as wire, ranges},
    service::{
        Error, Result,
        blob::{
            BLOB_PIECE_LEN_MAX, BlobService, BlobStream, BlobWriter, LocalBlob, Proven,
            ProvenPiece, Put,
        },
        grpc::{
            GrpcChannel, Opened, Upload,
            method::{BLOB_PUT, BLOB_RANGE_READ, BLOB_READ, BLOB_STAT},
        },
    },
};

/// Reads and writes the blobs of the peer at the other end of a channel.
///
/// The protocol that all peers speak knows no ranges: one is read by reading from the start and dropping what comes
/// before it, and the stream is given up at its end. Peers of our make have a service for proven ranges besides; one that
/// has not is asked for them once. What is read is not verified here; put the `verify` layer around it.
#[derive(Debug, Clone)]
pub struct GrpcBlobs {
    channel: GrpcChannel,
    /// Set once the peer turned out not to be of our make.
    knows_no_ranges: Arc<AtomicBool>,
}

impl GrpcBlobs {
    /// The blobs of the peer.
    pub fn new(channel: GrpcChannel) -> Self {
        GrpcBlobs { channel, knows_no_ranges: Arc::default() }
    }

    async fn stat(
        &self,
        digest: &Digest,
        send_chunks: bool,
    ) -> Result<Option<wire::StatBlobResponse>> {
        let digest = Bytes::copy_from_slice(digest.as_bytes());
        let request = wire::StatBlobRequest { digest, send_chunks, send_bao: false };
        self.channel.unary(&BLOB_STAT, request).await
    }

    /// What a range that was answered with `messages` begins with, and its pieces.
    async fn ranges(
        &self,
        digest: &Digest,
        mut messages: BoxStream<'static, Result<ranges::BlobRangePiece>>,
    ) -> Result<Proven> {
        let Some(head) = messages.next().await.transpose()? else {
            let what = format!("a range of blob {digest} began with nothing");
            return Err(Error::corrupt(self.channel.endpoint(), what));
        };
        if head.unproven {
            return Ok(Proven::Lacking);
        }
        let pieces = messages.map(|message| {
            message.map(|piece| ProvenPiece { nodes: piece.nodes, data: piece.data })
        });
        Ok(Proven::Range { size: head.size, pieces: pieces.boxed() })
    }

    fn digest_of(&self, answer: &wire::PutBlobResponse) -> Result<Digest> {
        Digest::try_from(&answer.digest[..])
            .map_err(|error| Error::corrupt(self.channel.endpoint(), error))
    }
}

/// How often a blob is begun again whose stream broke off.
const RESUMES_MAX: u32 = 3;

/// All of a blob, from its first byte. If the connection breaks, it is begun again, and what has come is passed over.
struct Contents {
    channel: GrpcChannel,
    digest: Digest,
    messages: BoxStream<'static, Result<wire::BlobChunk>>,
    /// How many bytes have been handed out.
    given: u64,
    /// How many of those come once more.
    again: u64,
    resumes_left: u32,
}

impl Contents {
    async fn open(channel: &GrpcChannel, digest: &Digest) -> Result<Option<Self>> {
        let request = wire::ReadBlobRequest { digest: Bytes::copy_from_slice(digest.as_bytes()) };
        let messages = match channel.download(&BLOB_READ, request).await? {
            Opened::NotFound => return Ok(None),
            Opened::Empty => stream::empty().boxed(),
            Opened::Messages(messages) => messages,
        };
        let (channel, digest) = (channel.clone(), *digest);
        let resumes_left = RESUMES_MAX;
        Ok(Some(Contents { channel, digest, messages, given: 0, again: 0, resumes_left }))
    }

    async fn next(&mut self) -> Option<Result<Bytes>> {
        loop {
            match self.messages.next().await? {
                Ok(wire::BlobChunk { mut data }) => {
                    let known = self.again.min(data.len() as u64);
                    self.again -= known;
                    let data = data.split_off(known as usize);
                    self.given += data.len() as u64;
                    if !data.is_empty() {
                        return Some(Ok(data));
                    }
                }
                Err(error @ Error::Unavailable { .. }) if self.resumes_left > 0 => {
                    tracing::debug!(digest = %self.digest, %error, "a blob broke off, and is begun again");
                    match Contents::open(&self.channel, &self.digest).await {
                        Ok(Some(contents)) => self.messages = contents.messages,
                        Ok(None) => return Some(Err(error)),
                        Err(error) => return Some(Err(error)),
                    }
                    self.again = self.given;
                    self.resumes_left -= 1;
                }
                Err(error) => return Some(Err(error)),
            }
        }
    }
}

/// A list of a single chunk is the blob itself, so there is nothing finer.
fn chunk_list(
    answer: wire::StatBlobResponse,
) -> Result<ChunkList, Box<dyn std::error::Error + Send + Sync>> {
    if answer.chunks.len() <= 1 {
        return Ok(ChunkList::default());
    }
    let chunk = |meta: wire::stat_blob_response::ChunkMeta| {
        Ok::<_, crate::castore::DigestError>(Chunk {
            digest: Digest::try_from(&meta.digest[..])?,
            size: meta.size,
        })
    };
    let chunks = answer.chunks.into_iter().map(chunk).collect::<Result<_, _>>()?;
    Ok(ChunkList::new(chunks)?)
}

/// Cuts `piece` into pieces that fit a message.
fn cut(mut piece: Bytes) -> impl Iterator<Item = Bytes> {
    std::iter::from_fn(move || {
        (!piece.is_empty()).then(|| piece.split_to(piece.len().min(BLOB_PIECE_LEN_MAX)))
    })
}

#[async_trait]
impl BlobService for GrpcBlobs {
    async fn has(&self, digest: &Digest) -> Result<bool> {
        Ok(*digest == Digest::EMPTY || self.stat(digest, false).await?.is_some())
    }

    async fn read(&self, digest: &Digest, range: Range<u64>) -> Result<Option<BlobStream>> {
        if range.is_empty() || *digest == Digest::EMPTY {
            let nothing: BlobStream = Box::pin(stream::empty());
            return Ok(self.has(digest).await?.then_some(nothing));
        }
        let Some(contents) = Contents::open(&self.channel, digest).await? else { return Ok(None) };
        let state = Some((contents, range));
        let parts = stream::unfold(state, |state| async move {
            let (mut contents, mut left): (_, Range<u64>) = state?;
            while left.end > 0 {
                let mut piece = match contents.next().await? {
                    Ok(data) => data,
                    Err(error) => return Some((Err(error), None)),
                };
                let len = piece.len() as u64;
                // Both fit the length of the piece.
                piece.truncate(left.end.min(len) as usize);
                let piece = piece.split_off(left.start.min(piece.len() as u64) as usize);
                left = left.start.saturating_sub(len)..left.end - left.end.min(len);
                if !piece.is_empty() {
                    return Some((Ok(piece), Some((contents, left))));
                }
            }
            None
        });
        // A peer chooses the length of its messages; ours are bounded.
        Ok(Some(Box::pin(parts.flat_map(|piece| match piece {
            Ok(piece) => stream::iter(cut(piece).map(Ok)).boxed(),
            Err(error) => stream::iter([Err(error)]).boxed(),
        }))))
    }

    /// Not verified here either.
    async fn read_proven(&self, digest: &Digest, range: Range<u64>) -> Result<Option<Proven>> {
        if self.knows_no_ranges.load(Relaxed) {
            return Ok(Some(Proven::Lacking));
        }
        let request = ranges::ReadBlobRangeRequest {
            digest: Bytes::copy_from_slice(digest.as_bytes()),
            start: range.start,
            end: range.end,
        };
        let messages = match self.channel.download(&BLOB_RANGE_READ, request).await {
            Ok(Opened::NotFound) => return Ok(None),
            Ok(Opened::Empty) => stream::empty().boxed(),
            Ok(Opened::Messages(messages)) => messages,
            Err(Error::Unsupported { .. }) => {
                self.knows_no_ranges.store(true, Relaxed);
                return Ok(Some(Proven::Lacking));
            }
            Err(error) => return Err(error),
        };
        self.ranges(digest, messages).await.map(Some)
    }

    async fn chunks(&self, digest: &Digest) -> Result<Option<ChunkList>> {
        if *digest == Digest::EMPTY {
            return Ok(Some(ChunkList::default()));
        }
        let Some(answer) = self.stat(digest, true).await? else { return Ok(None) };
        let corrupt = |error| {
            let what = format!("the chunks of blob {digest}: {error}");
            Error::corrupt(self.channel.endpoint(), what)
        };
        chunk_list(answer).map(Some).map_err(corrupt)
    }

    fn open_local(&self, _digest: &Digest) -> Result<Option<LocalBlob>> {
        Ok(None)
    }

    async fn lend(&self, digest: &Digest) -> Option<LocalBlob> {
        self.channel.borrow(digest).await
    }

    fn distrust(&self) {
        self.channel.distrust();
    }

    fn has_others(&self) -> bool {
        self.channel.peers() > 1
    }

    async fn lends(&self) -> bool {
        self.channel.lends().await
    }

    /// Asks first: what is there need not travel.
    async fn put(&self, contents: Bytes) -> Result<Put> {
        let digest = Digest::of(&contents);
        if self.has(&digest).await? {
            return Ok(Put { digest, is_new: false });
        }
        let messages = cut(contents).map(|data| wire::BlobChunk { data }).collect();
        let digest = self.digest_of(&self.channel.upload_all(&BLOB_PUT, messages).await?)?;
        Ok(Put { digest, is_new: true })
    }

    async fn writer(&self) -> Result<Box<dyn BlobWriter>> {
        let upload = self.channel.upload(&BLOB_PUT).await?;
        Ok(Box::new(GrpcBlobWriter { blobs: self.clone(), upload, len: 0 }))
    }

    /// The peer does so itself before it stores a path info.
    async fn sync(&self) -> Result<()> {
        Ok(())
    }
}

struct GrpcBlobWriter {
    blobs: GrpcBlobs,
    upload: Upload<wire::BlobChunk, wire::PutBlobResponse>,
    len: u64,
}

#[async_trait]
impl BlobWriter for GrpcBlobWriter {
    async fn write(&mut self, piece: Bytes) -> Result<()> {
        self.len += piece.len() as u64;
        for data in cut(piece) {
            self.upload.send(wire::BlobChunk { data }).await?;
        }
        Ok(())
    }

    async fn finish(self: Box<Self>) -> Result<(Digest, u64)> {
        let answer = self.upload.finish().await?;
        Ok((self.blobs.digest_of(&answer)?, self.len))
    }
}
