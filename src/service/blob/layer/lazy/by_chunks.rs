//! A range of a blob from its chunks, where nothing is kept.

use std::{ops::Range, sync::Arc};

use bytes::Bytes;
use futures::{StreamExt as _, TryStreamExt as _, stream};

use super::arriving::{CHUNKS_AT_ONCE_MAX, chunks_of};
use crate::{
    castore::{Chunk, ChunkList},
    service::{
        Error, Result,
        blob::{BlobService, BlobStream, pieces_of, read_all},
    },
};

/// A chunk of the blob that is listed with `chunks`, whole and checked.
pub(super) async fn read_chunk(far: &dyn BlobService, chunk: &Chunk) -> Result<Bytes> {
    let contents = read_all(far, &chunk.digest, chunk.size as usize).await?;
    let contents = contents.filter(|contents| contents.len() as u64 == chunk.size);
    let what = || format!("chunk {} of a blob is not as it was listed", chunk.digest);
    contents.ok_or_else(|| Error::corrupt("the far store", what()))
}

/// A range of a blob, on the word of whoever listed its chunks: each chunk is checked, that they are the blob is not.
pub(super) fn read_chunks(
    far: Arc<dyn BlobService>,
    chunks: ChunkList,
    range: Range<u64>,
) -> BlobStream {
    let range = range.start..range.end.min(chunks.blob_size());
    let wanted: Vec<_> = chunks_of(&chunks, &range).collect();
    let fetched = stream::iter(wanted).map(move |(start, chunk)| {
        let far = far.clone();
        async move { Ok::<_, Error>((start, read_chunk(&*far, &chunk).await?)) }
    });
    let pieces = fetched.buffered(CHUNKS_AT_ONCE_MAX).map_ok(move |(start, contents)| {
        let until = start + contents.len() as u64;
        // Both are within the chunk.
        pieces_of(&contents, &(range.start.max(start) - start..range.end.min(until) - start))
    });
    pieces.try_flatten().boxed()
}
