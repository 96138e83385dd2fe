//! Chunks and lists of chunks, as they come from the bucket.

use std::sync::Arc;

use bytes::Bytes;

use super::{
    CHUNK_LEN_MAX, CUT_LEN_MAX,
    lists::{self, LIST_LEN_MAX, Listed},
};
use crate::{
    castore::{ChunkList, Digest},
    service::{
        Result,
        bucket::{Bucket, Kind, compressed_len_max, decompress},
        sharded_lru::ShardedLru,
        single_flight::SingleFlight,
    },
};

/// How much of the chunks read last is kept, in bytes: whoever reads a blob piece by piece wants a chunk several times.
const RECENT_BYTES_MAX: usize = 32 << 20;

/// How much of the lists read last is kept, in bytes.
const LISTS_BYTES_MAX: usize = 16 << 20;

/// What a blob is made of.
#[derive(Debug, Clone)]
pub(super) enum Made {
    /// Of a chunk with its own digest, if it is there at all.
    OneChunk,
    /// Of several.
    Chunks(Arc<Listed>),
}

/// Reads chunks and lists, each once for all who want it at the same time.
#[derive(Debug)]
pub(super) struct Fetch {
    bucket: Bucket,
    recent: Arc<ShardedLru<Digest, Bytes>>,
    chunks: SingleFlight<(Digest, Option<u64>), Option<Bytes>>,
    lists: Arc<ShardedLru<Digest, Arc<Listed>>>,
    asked_lists: SingleFlight<Digest, Option<Made>>,
}

impl Fetch {
    pub(super) fn new(bucket: Bucket) -> Self {
        Fetch {
            bucket,
            recent: Arc::new(ShardedLru::new(RECENT_BYTES_MAX)),
            chunks: SingleFlight::default(),
            lists: Arc::new(ShardedLru::new(LISTS_BYTES_MAX)),
            asked_lists: SingleFlight::default(),
        }
    }

    /// A chunk, checked against its digest, and against its length if that is known. `None` if it is absent.
    pub(super) async fn chunk(&self, digest: &Digest, size: Option<u64>) -> Result<Option<Bytes>> {
        let digest = *digest;
        let found = match self.recent.get(&digest) {
            Some(contents) => Some(contents),
            None => {
                let (bucket, recent) = (self.bucket.clone(), self.recent.clone());
                let fetch = || async move {
                    let contents = fetch_chunk(&bucket, &digest, size).await?;
                    if let Some(contents) = &contents {
                        recent.insert(digest, contents.clone(), contents.len());
                    }
                    Ok(contents)
                };
                self.chunks.run((digest, size), fetch).await?
            }
        };
        match (&found, size) {
            (Some(contents), Some(size)) if contents.len() as u64 != size => {
                let what = format!("chunk {digest} has {} bytes, not {size}", contents.len());
                Err(self.bucket.corrupt(what))
            }
            _ => Ok(found),
        }
    }

    /// What is known to make up a blob, or is stored as that. `None` if there is nothing of it.
    pub(super) async fn list(&self, digest: &Digest) -> Result<Option<Made>> {
        if let Some(listed) = self.lists.get(digest) {
            return Ok(Some(Made::Chunks(listed)));
        }
        let (digest, bucket, lists) = (*digest, self.bucket.clone(), self.lists.clone());
        let ask = || async move {
            let path = bucket.path(Kind::Blob, digest.as_bytes());
            let Some(stored) = bucket.get(&path, LIST_LEN_MAX).await? else { return Ok(None) };
            let chunks = lists::decode(&digest, stored)
                .map_err(|error| bucket.corrupt(format!("the list of blob {digest}: {error}")))?;
            if chunks.is_empty() {
                return Ok(Some(Made::OneChunk));
            }
            let listed = Arc::new(Listed::new(chunks));
            lists.insert(digest, listed.clone(), listed.memory());
            Ok(Some(Made::Chunks(listed)))
        };
        self.asked_lists.run(digest, ask).await
    }

    /// Forgets a list that was a lie.
    pub(super) fn forget_list(&self, digest: &Digest) {
        self.lists.remove(digest);
    }

    /// How a blob may be read in parts: a list that is empty if it is one chunk. `None` if it is absent.
    pub(super) async fn chunks(
        &self,
        digest: &Digest,
        size: Option<u64>,
    ) -> Result<Option<ChunkList>> {
        if *digest == Digest::EMPTY {
            return Ok(Some(ChunkList::default()));
        }
        let is_long = size.is_some_and(|size| size > CUT_LEN_MAX as u64);
        // Fetched and not only asked for: whoever asks will read it next.
        if !is_long && self.chunk(digest, None).await?.is_some() {
            return Ok(Some(ChunkList::default()));
        }
        match self.list(digest).await? {
            Some(Made::Chunks(listed)) => Ok(Some(listed.chunks.clone())),
            Some(Made::OneChunk) => Ok(Some(ChunkList::default())),
            None if is_long => Ok(self.chunk(digest, None).await?.map(|_| ChunkList::default())),
            None => Ok(None),
        }
    }
}

async fn fetch_chunk(bucket: &Bucket, digest: &Digest, size: Option<u64>) -> Result<Option<Bytes>> {
    let len_max = size.unwrap_or(CHUNK_LEN_MAX as u64).min(CHUNK_LEN_MAX as u64);
    let path = bucket.path(Kind::Chunk, digest.as_bytes());
    let Some(stored) = bucket.get(&path, compressed_len_max(len_max)).await? else {
        return Ok(None);
    };
    let contents = decompress(&stored, len_max as usize)
        .map_err(|error| bucket.corrupt(format!("chunk {digest}: {error}")))?;
    match Digest::of(&contents) {
        got if got == *digest => Ok(Some(contents)),
        got => Err(bucket.corrupt(format!("chunk {digest} has the contents of {got}"))),
    }
}
