//! Blobs in the memory of this process.

use std::{collections::HashMap, ops::Range, sync::Arc};

use async_trait::async_trait;
use bytes::{Bytes, BytesMut};
use parking_lot::RwLock;

use crate::{
    castore::{ChunkList, Digest},
    service::{
        Result,
        blob::{
            BlobService, BlobStream, BlobWriter, LocalBlob, Proven, Put, pieces_of, prove_contents,
        },
    },
};

/// Keeps blobs in memory, without bound, until it is dropped. For tests and trials.
#[derive(Debug, Clone, Default)]
pub struct MemoryBlobs {
    blobs: Arc<RwLock<HashMap<Digest, Bytes>>>,
}

impl MemoryBlobs {
    /// Without blobs, but the empty one.
    pub fn new() -> Self {
        Self::default()
    }

    fn get(&self, digest: &Digest) -> Option<Bytes> {
        match *digest == Digest::EMPTY {
            true => Some(Bytes::new()),
            false => self.blobs.read().get(digest).cloned(),
        }
    }
}

#[async_trait]
impl BlobService for MemoryBlobs {
    async fn has(&self, digest: &Digest) -> Result<bool> {
        Ok(self.get(digest).is_some())
    }

    async fn read(&self, digest: &Digest, range: Range<u64>) -> Result<Option<BlobStream>> {
        let Some(contents) = self.get(digest) else { return Ok(None) };
        Ok(Some(pieces_of(&contents, &range)))
    }

    async fn read_proven(&self, digest: &Digest, range: Range<u64>) -> Result<Option<Proven>> {
        let contents = self.get(digest);
        Ok(contents.map(|contents| prove_contents("memory", digest, contents, &range)))
    }

    async fn chunks(&self, digest: &Digest) -> Result<Option<ChunkList>> {
        Ok(self.get(digest).map(|_| ChunkList::default()))
    }

    fn open_local(&self, _: &Digest) -> Result<Option<LocalBlob>> {
        Ok(None)
    }

    fn is_local(&self) -> bool {
        true
    }

    async fn put(&self, contents: Bytes) -> Result<Put> {
        let digest = Digest::of(&contents);
        let is_new = self.blobs.write().insert(digest, contents).is_none();
        Ok(Put { digest, is_new: is_new && digest != Digest::EMPTY })
    }

    async fn writer(&self) -> Result<Box<dyn BlobWriter>> {
        Ok(Box::new(MemoryWriter { blobs: self.clone(), contents: BytesMut::new() }))
    }

    async fn sync(&self) -> Result<()> {
        Ok(())
    }
}

struct MemoryWriter {
    blobs: MemoryBlobs,
    contents: BytesMut,
}

#[async_trait]
impl BlobWriter for MemoryWriter {
    async fn write(&mut self, piece: Bytes) -> Result<()> {
        self.contents.extend_from_slice(&piece);
        Ok(())
    }

    fn digest(&self) -> Option<Digest> {
        Some(Digest::of(&self.contents))
    }

    async fn finish(self: Box<Self>) -> Result<(Digest, u64)> {
        let contents = self.contents.freeze();
        let len = contents.len() as u64;
        Ok((self.blobs.put(contents).await?.digest, len))
    }
}
