//! How a blob may be read in parts.

use super::Digest;

/// A part of a blob that is a blob itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Chunk {
    /// The digest of the part.
    pub digest: Digest,
    /// Its length in bytes, never 0.
    pub size: u64,
}

/// The chunks of a blob, in order; together they are the whole blob.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct ChunkList {
    chunks: Box<[Chunk]>,
    /// Where each chunk ends, in bytes from the start of the blob.
    ends: Box<[u64]>,
}

/// Why chunks make no list.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ChunkListError {
    /// A chunk of no bytes.
    #[error("chunk {index} is empty")]
    EmptyChunk {
        /// Its place in the list.
        index: usize,
    },
    /// The lengths do not fit 64 bits together.
    #[error("the sizes of the chunks overflow at chunk {index}")]
    Overflow {
        /// The place of the chunk that was too much.
        index: usize,
    },
}

impl ChunkList {
    /// Checks the sizes and remembers the offsets.
    pub fn new(chunks: Vec<Chunk>) -> Result<Self, ChunkListError> {
        let mut ends = Vec::with_capacity(chunks.len());
        let mut end = 0u64;
        for (index, chunk) in chunks.iter().enumerate() {
            if chunk.size == 0 {
                return Err(ChunkListError::EmptyChunk { index });
            }
            end = end.checked_add(chunk.size).ok_or(ChunkListError::Overflow { index })?;
            ends.push(end);
        }
        Ok(ChunkList { chunks: chunks.into(), ends: ends.into() })
    }

    /// Whether there is nothing finer than the blob itself.
    pub fn is_empty(&self) -> bool {
        self.chunks.is_empty()
    }

    /// The chunks, in order.
    pub fn chunks(&self) -> &[Chunk] {
        &self.chunks
    }

    /// The length of the blob in bytes.
    pub fn blob_size(&self) -> u64 {
        self.ends.last().copied().unwrap_or(0)
    }

    /// The chunk that holds the byte at `offset`, with the offset of its first byte.
    pub fn at(&self, offset: u64) -> Option<(u64, Chunk)> {
        let index = self.ends.partition_point(|&end| end <= offset);
        let chunk = *self.chunks.get(index)?;
        Some((self.ends[index] - chunk.size, chunk))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn chunk(size: u64) -> Chunk {
        Chunk { digest: Digest::EMPTY, size }
    }

    #[test]
    fn an_offset_finds_its_chunk() -> Result<(), ChunkListError> {
        let list = ChunkList::new(vec![chunk(3), chunk(1), chunk(4)])?;
        let starts: Vec<_> = (0..9).map(|offset| list.at(offset).map(|(start, _)| start)).collect();
        assert_eq!(
            starts,
            [Some(0), Some(0), Some(0), Some(3), Some(4), Some(4), Some(4), Some(4), None]
        );
        assert_eq!(list.blob_size(), 8);
        assert_eq!(ChunkList::default().at(0), None);
        Ok(())
    }

    #[test]
    fn impossible_sizes_are_refused() {
        assert_eq!(
            ChunkList::new(vec![chunk(1), chunk(0)]),
            Err(ChunkListError::EmptyChunk { index: 1 })
        );
        assert_eq!(
            ChunkList::new(vec![chunk(u64::MAX), chunk(1)]),
            Err(ChunkListError::Overflow { index: 1 })
        );
    }
}
