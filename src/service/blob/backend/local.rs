//! Blobs as plain files of a store directory.

use std::{io, ops::Range, os::unix::fs::FileExt as _, sync::Arc};

use async_trait::async_trait;
use bytes::Bytes;

use crate::{
    castore::{ChunkList, Digest},
    service::{
        Error, Result,
        blob::{BLOB_PIECE_LEN_MAX, BlobService, BlobStream, BlobWriter, LocalBlob},
        local::{LocalStore, Temporary, offload},
    },
};

/// After how many bytes of a blob the kernel is told to bring them to the disk.
const WRITEBACK_BYTES: u64 = 8 << 20;

/// The blobs of a store directory. Reading is done by whoever asks: the disk is as near as it gets.
#[derive(Debug, Clone)]
pub struct LocalBlobs {
    store: Arc<LocalStore>,
}

impl LocalBlobs {
    /// The blobs of `store`.
    pub fn new(store: Arc<LocalStore>) -> Self {
        LocalBlobs { store }
    }

    /// A session that stages without end would remember without end.
    async fn sync_if_due(&self) -> Result<()> {
        match self.store.blobs().is_sync_due() {
            true => self.sync().await,
            false => Ok(()),
        }
    }
}

#[async_trait]
impl BlobService for LocalBlobs {
    async fn has(&self, digest: &Digest) -> Result<bool> {
        Ok(*digest == Digest::EMPTY || self.store.blobs().has(digest)?)
    }

    async fn read(&self, digest: &Digest, range: Range<u64>) -> Result<Option<BlobStream>> {
        if *digest == Digest::EMPTY {
            return Ok(Some(Box::pin(futures::stream::empty())));
        }
        let Some(blob) = self.open_local(digest)? else { return Ok(None) };
        let endpoint = self.store.endpoint().clone();
        let end = range.end.min(blob.size);
        let mut at = range.start;
        let pieces = std::iter::from_fn(move || {
            let len = end.saturating_sub(at).min(BLOB_PIECE_LEN_MAX as u64) as usize;
            if len == 0 {
                return None;
            }
            let mut piece = vec![0; len];
            let read = blob.file.read_exact_at(&mut piece, at);
            // After an error nothing more comes.
            at = if read.is_ok() { at + len as u64 } else { end };
            Some(read.map(|()| piece.into()).map_err(|error| Error::unavailable(&endpoint, error)))
        });
        Ok(Some(Box::pin(futures::stream::iter(pieces))))
    }

    async fn chunks(&self, digest: &Digest) -> Result<Option<ChunkList>> {
        Ok(self.has(digest).await?.then(ChunkList::default))
    }

    fn open_local(&self, digest: &Digest) -> Result<Option<LocalBlob>> {
        let Some(file) = self.store.blobs().open_blob(digest)? else { return Ok(None) };
        let metadata = file.metadata();
        let size =
            metadata.map_err(|error| Error::unavailable(self.store.endpoint(), error))?.len();
        Ok(Some(LocalBlob { file: Arc::new(file), size }))
    }

    async fn put(&self, contents: Bytes) -> Result<Digest> {
        if contents.is_empty() {
            return Ok(Digest::EMPTY);
        }
        let digest = Digest::of(&contents);
        self.store.blobs().put(&digest, &contents)?;
        self.sync_if_due().await?;
        Ok(digest)
    }

    async fn writer(&self) -> Result<Box<dyn BlobWriter>> {
        Ok(Box::new(LocalWriter {
            blobs: self.clone(),
            temporary: self.store.blobs().create_temporary()?,
            hasher: blake3::Hasher::new(),
            len: 0,
            written_back: 0,
            kept: false,
        }))
    }

    async fn sync(&self) -> Result<()> {
        if self.store.blobs().is_synced() {
            return Ok(());
        }
        let store = self.store.clone();
        offload(self.store.endpoint(), move || store.blobs().sync()).await
    }
}

/// Hashes and writes at once. What it writes goes to the disk in the background, so that a later sync is short.
struct LocalWriter {
    blobs: LocalBlobs,
    temporary: Temporary,
    hasher: blake3::Hasher,
    len: u64,
    /// Up to where the kernel was told to write to the disk.
    written_back: u64,
    kept: bool,
}

impl LocalWriter {
    fn failed(&self, error: io::Error) -> Error {
        Error::unavailable(self.blobs.store.endpoint(), error)
    }
}

#[async_trait]
impl BlobWriter for LocalWriter {
    async fn write(&mut self, piece: Bytes) -> Result<()> {
        let written = self.temporary.file().write_all_at(&piece, self.len);
        written.map_err(|error| self.failed(error))?;
        self.hasher.update(&piece);
        self.len += piece.len() as u64;
        if self.len - self.written_back >= WRITEBACK_BYTES {
            self.temporary.start_writeback(self.written_back..self.len);
            self.written_back = self.len;
        }
        Ok(())
    }

    fn digest(&self) -> Option<Digest> {
        Some(Digest::from(self.hasher.finalize()))
    }

    async fn finish(mut self: Box<Self>) -> Result<(Digest, u64)> {
        if self.len == 0 {
            return Ok((Digest::EMPTY, 0));
        }
        let digest = Digest::from(self.hasher.finalize());
        self.blobs.store.blobs().keep(&self.temporary, &digest)?;
        self.kept = true;
        self.blobs.sync_if_due().await?;
        Ok((digest, self.len))
    }
}

impl Drop for LocalWriter {
    fn drop(&mut self) {
        if !self.kept {
            self.blobs.store.blobs().discard(&self.temporary);
        }
    }
}
