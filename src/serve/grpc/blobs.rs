//! The blob service.

use std::{collections::VecDeque, sync::Arc};

use bytes::{Bytes, BytesMut};
use futures::{
    StreamExt as _,
    stream::{self, BoxStream},
};
use tonic::{Request, Response, Status, Streaming, async_trait};

use super::upload;
use crate::{
    castore::ChunkList,
    proto::castore::{self as wire, blob_service_server, stat_blob_response::ChunkMeta},
    service::{
        blob::{BlobService, BlobStream, SMALL_BLOB_LEN_MAX},
        grpc::to_status,
    },
};

/// The length of the messages in which a blob is sent, in bytes.
const READ_MESSAGE_LEN: usize = 256 << 10;

/// The longest outboard that is sent, in bytes: that of a blob of 512 MiB. Clients take messages of up to 4 MiB.
const OUTBOARD_LEN_MAX: u64 = (2 << 20) + 8;

#[derive(Debug)]
pub(super) struct Blobs {
    pub(super) blobs: Arc<dyn BlobService>,
}

#[async_trait]
impl blob_service_server::BlobService for Blobs {
    type ReadStream = BoxStream<'static, Result<wire::BlobChunk, Status>>;

    async fn stat(
        &self,
        request: Request<wire::StatBlobRequest>,
    ) -> Result<Response<wire::StatBlobResponse>, Status> {
        let request = request.into_inner();
        let digest = upload::digest(&request.digest)?;
        let chunks = if request.send_chunks {
            self.blobs.chunks(&digest).await
        } else {
            self.blobs.has(&digest).await.map(|there| there.then(ChunkList::default))
        };
        let chunks = chunks.map_err(|error| to_status(&error))?;
        let chunks = chunks.ok_or_else(|| Status::not_found(format!("no blob {digest}")))?;
        let meta = |chunk: &crate::castore::Chunk| ChunkMeta {
            digest: Bytes::copy_from_slice(chunk.digest.as_bytes()),
            size: chunk.size,
        };
        let chunks = chunks.chunks().iter().map(meta).collect();
        let bao = match request.send_bao {
            true => self.blobs.outboard(&digest, OUTBOARD_LEN_MAX).await,
            false => Ok(None),
        };
        let bao = bao.map_err(|error| to_status(&error))?.unwrap_or_default();
        Ok(Response::new(wire::StatBlobResponse { chunks, bao }))
    }

    async fn read(
        &self,
        request: Request<wire::ReadBlobRequest>,
    ) -> Result<Response<Self::ReadStream>, Status> {
        let digest = upload::digest(&request.into_inner().digest)?;
        let found = self.blobs.read(&digest, 0..u64::MAX).await;
        let pieces = found
            .map_err(|error| to_status(&error))?
            .ok_or_else(|| Status::not_found(format!("no blob {digest}")))?;
        Ok(Response::new(messages(pieces)))
    }

    /// A small blob is put in one piece, which is cheaper.
    async fn put(
        &self,
        request: Request<Streaming<wire::BlobChunk>>,
    ) -> Result<Response<wire::PutBlobResponse>, Status> {
        let mut messages = request.into_inner();
        let mut begin = VecDeque::new();
        let mut len = 0;
        while len <= SMALL_BLOB_LEN_MAX
            && let Some(message) = upload::next(&mut messages).await?
        {
            len += message.data.len();
            // Empty messages must not pile up.
            if !message.data.is_empty() {
                begin.push_back(message.data);
            }
        }
        let digest = if len <= SMALL_BLOB_LEN_MAX {
            self.blobs.put(join(begin, len)).await.map(|put| put.digest)
        } else {
            return self.put_long(begin, messages).await;
        };
        answer_put(digest.map_err(|error| to_status(&error))?)
    }
}

impl Blobs {
    async fn put_long(
        &self,
        begin: VecDeque<Bytes>,
        mut messages: Streaming<wire::BlobChunk>,
    ) -> Result<Response<wire::PutBlobResponse>, Status> {
        let mut writer = self.blobs.writer().await.map_err(|error| to_status(&error))?;
        for data in begin {
            writer.write(data).await.map_err(|error| to_status(&error))?;
        }
        while let Some(message) = upload::next(&mut messages).await? {
            writer.write(message.data).await.map_err(|error| to_status(&error))?;
        }
        let (digest, _) = writer.finish().await.map_err(|error| to_status(&error))?;
        answer_put(digest)
    }
}

fn answer_put(digest: crate::castore::Digest) -> Result<Response<wire::PutBlobResponse>, Status> {
    let digest = Bytes::copy_from_slice(digest.as_bytes());
    Ok(Response::new(wire::PutBlobResponse { digest }))
}

fn join(mut pieces: VecDeque<Bytes>, len: usize) -> Bytes {
    if pieces.len() <= 1 {
        return pieces.pop_front().unwrap_or_default();
    }
    let mut all = BytesMut::with_capacity(len);
    for piece in pieces {
        all.extend_from_slice(&piece);
    }
    all.freeze()
}

/// Brings pieces of any length into messages of [`READ_MESSAGE_LEN`]: a message costs both sides far more than its
/// bytes do. Pieces that are longer are cut without copying.
fn messages(pieces: BlobStream) -> BoxStream<'static, Result<wire::BlobChunk, Status>> {
    /// `pieces` is nothing once it has ended.
    struct State {
        pieces: Option<BlobStream>,
        waiting: Bytes,
    }
    let state = State { pieces: Some(pieces), waiting: Bytes::new() };
    stream::unfold(state, |mut state| async move {
        while state.waiting.len() < READ_MESSAGE_LEN
            && let Some(pieces) = &mut state.pieces
        {
            match pieces.next().await {
                Some(Ok(piece)) if state.waiting.is_empty() => state.waiting = piece,
                Some(Ok(piece)) => {
                    let len = state.waiting.len() + piece.len();
                    state.waiting = join([state.waiting, piece].into(), len);
                }
                Some(Err(error)) => {
                    let ended = State { pieces: None, waiting: Bytes::new() };
                    return Some((Err(to_status(&error)), ended));
                }
                None => state.pieces = None,
            }
        }
        if state.waiting.is_empty() {
            return None;
        }
        let data = state.waiting.split_to(state.waiting.len().min(READ_MESSAGE_LEN));
        Some((Ok(wire::BlobChunk { data }), state))
    })
    .boxed()
}
