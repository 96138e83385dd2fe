//! The objects that list the chunks of a blob.

use std::sync::atomic::{AtomicBool, Ordering::Relaxed};

use bytes::Bytes;
use prost::Message as _;

use super::CHUNK_LEN_MAX;
use crate::{
    castore::{Chunk, ChunkList, Digest},
    proto::castore::{StatBlobResponse, stat_blob_response::ChunkMeta},
};

/// The longest list that is read or written, in bytes: a blob of some 400 GB.
pub(super) const LIST_LEN_MAX: u64 = 64 << 20;

/// What a chunk takes in a list, in bytes, about: for bounds of memory.
const ENTRY_MEMORY: usize = 48;

/// The chunks of a blob, as a store lists them.
#[derive(Debug)]
pub(super) struct Listed {
    pub(super) chunks: ChunkList,
    /// Whether the chunks were seen to be the blob.
    is_proven: AtomicBool,
}

impl Listed {
    pub(super) fn new(chunks: ChunkList) -> Self {
        Listed { chunks, is_proven: AtomicBool::new(false) }
    }

    pub(super) fn is_proven(&self) -> bool {
        self.is_proven.load(Relaxed)
    }

    pub(super) fn prove(&self) {
        self.is_proven.store(true, Relaxed);
    }

    pub(super) fn memory(&self) -> usize {
        size_of::<Self>() + self.chunks.chunks().len() * ENTRY_MEMORY
    }
}

/// The list as it is stored.
pub(super) fn encode(chunks: &[Chunk]) -> Bytes {
    let meta = |chunk: &Chunk| ChunkMeta {
        digest: Bytes::copy_from_slice(chunk.digest.as_bytes()),
        size: chunk.size,
    };
    let chunks = chunks.iter().map(meta).collect();
    StatBlobResponse { chunks, bao: Bytes::new() }.encode_to_vec().into()
}

/// What is stored as the list of `blob`. Empty if the blob is a single chunk: others say so by no chunk at all, or by one.
pub(super) fn decode(
    blob: &Digest,
    stored: Bytes,
) -> Result<ChunkList, Box<dyn std::error::Error + Send + Sync>> {
    check_entries(&stored)?;
    let message = StatBlobResponse::decode(stored)?;
    let chunk = |meta: ChunkMeta| match meta.size {
        size if size > CHUNK_LEN_MAX as u64 => {
            Err(format!("a chunk of {size} bytes, more than {CHUNK_LEN_MAX}").into())
        }
        size => Ok(Chunk { digest: Digest::try_from(&meta.digest[..])?, size }),
    };
    let chunks = message.chunks.into_iter().map(chunk);
    let chunks = chunks.collect::<Result<Vec<_>, Box<dyn std::error::Error + Send + Sync>>>()?;
    match &chunks[..] {
        [one] if one.digest == *blob => Ok(ChunkList::default()),
        [one] => Err(format!("{} as its only chunk", one.digest).into()),
        _ => Ok(ChunkList::new(chunks)?),
    }
}

/// The shortest entry of a list, in bytes: a digest.
const ENTRY_LEN_MIN: u64 = 34;

/// Refuses entries that are too short to be any, before room is made for them: there may be millions.
fn check_entries(mut stored: &[u8]) -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
    const CHUNKS: u64 = 2 << 3 | 2;
    while !stored.is_empty() {
        let key = prost::encoding::decode_varint(&mut stored)?;
        let len = prost::encoding::decode_varint(&mut stored)?;
        if key == CHUNKS && len < ENTRY_LEN_MIN {
            return Err(format!("an entry of {len} bytes, too few for a digest of 32 bytes").into());
        }
        let len = usize::try_from(len).ok().filter(|len| *len <= stored.len());
        stored = &stored[len.ok_or("an entry that leads past the end")?..];
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn chunk(text: &str, size: u64) -> Chunk {
        Chunk { digest: Digest::of(text.as_bytes()), size }
    }

    #[test]
    fn a_list_comes_back_and_all_ways_to_say_a_single_chunk_are_understood() {
        let blob = Digest::of(b"blob");
        let chunks = [chunk("a", 3), chunk("b", CHUNK_LEN_MAX as u64)];
        assert_eq!(decode(&blob, encode(&chunks)).expect("a list").chunks(), chunks);
        assert!(decode(&blob, Bytes::new()).expect("one chunk").is_empty());
        assert!(decode(&blob, encode(&[chunk("blob", 4)])).expect("one chunk").is_empty());
    }

    #[test]
    fn what_is_no_list_is_refused_with_its_reason() {
        let blob = Digest::of(b"blob");
        for (chunks, reason) in [
            (vec![chunk("other", 4)], "as its only chunk"),
            (vec![chunk("a", 4), chunk("b", 0)], "chunk 1 is empty"),
            (vec![chunk("a", 4), chunk("b", CHUNK_LEN_MAX as u64 + 1)], "more than"),
        ] {
            let error = decode(&blob, encode(&chunks)).expect_err(reason).to_string();
            assert!(error.contains(reason), "{error}");
        }
        let short = StatBlobResponse {
            chunks: vec![ChunkMeta { digest: Bytes::from_static(b"short"), size: 1 }; 2],
            bao: Bytes::new(),
        };
        let error = decode(&blob, short.encode_to_vec().into()).expect_err("a digest");
        assert!(error.to_string().contains("32 bytes"), "{error}");
        decode(&blob, Bytes::from_static(b"\xff\xff")).expect_err("no message");
    }
}
