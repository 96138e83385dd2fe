//! Blobs in a store directory: short ones packed, others as plain files.

use std::{mem, ops::Range, os::unix::fs::FileExt as _, sync::Arc};

use async_trait::async_trait;
use bytes::Bytes;

use crate::{
    castore::{
        ChunkList, Digest,
        outboard::{OutboardBuilder, Tree},
    },
    observe::event,
    service::{
        Error, Result,
        blob::{BlobService, BlobStream, BlobWriter, LocalBlob, Proven, Put, prove_contents},
        local::{
            LocalStore, OUTBOARD_ABOVE_LEN, PACKED_LEN_MAX, Temporary, Writeback, entry_len,
            offload, on_disk,
        },
    },
};

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

    /// Puts what takes up to `bytes`, and gives back what it did not take in the end, as `taken` tells.
    fn within_bound<T>(
        &self,
        bytes: u64,
        put: impl FnMut() -> Result<T>,
        taken: impl FnOnce(&T) -> u64,
    ) -> Result<T> {
        self.store.reserve(bytes)?;
        let put = self.store.write_in_full(put);
        self.store.release(bytes - put.as_ref().map_or(0, taken));
        put
    }

    /// A session that stages without end would remember without end.
    async fn sync_if_due(&self) -> Result<()> {
        match self.store.blobs().is_sync_due() || self.store.packs().is_sync_due() {
            true => self.sync().await,
            false => Ok(()),
        }
    }
}

#[async_trait]
impl BlobService for LocalBlobs {
    async fn has(&self, digest: &Digest) -> Result<bool> {
        Ok(*digest == Digest::EMPTY
            || self.store.packs().has(digest)?
            || self.store.blobs().has(digest)?)
    }

    async fn read(&self, digest: &Digest, range: Range<u64>) -> Result<Option<BlobStream>> {
        if *digest == Digest::EMPTY {
            return Ok(Some(Box::pin(futures::stream::empty())));
        }
        let Some(blob) = self.open_local(digest)? else { return Ok(None) };
        let (store, digest) = (self.store.clone(), *digest);
        let mut pieces = blob.pieces(range).map(move |piece| {
            piece.map_err(|error| {
                store.reject_blob(&digest);
                Error::unavailable(store.endpoint(), error)
            })
        });
        // Where a cache cannot be read, one can ask elsewhere, as long as nothing was handed out.
        let first = match pieces.next() {
            Some(Err(error)) if self.store.is_cache() => {
                tracing::warn!(
                    event = event::CACHE_DAMAGED,
                    %digest,
                    %error,
                    "the cache cannot read a blob; it is fetched again"
                );
                return Ok(None);
            }
            first => first,
        };
        Ok(Some(Box::pin(futures::stream::iter(first.into_iter().chain(pieces)))))
    }

    async fn read_proven(&self, digest: &Digest, range: Range<u64>) -> Result<Option<Proven>> {
        if *digest == Digest::EMPTY {
            return Ok(Some(prove_contents(self.store.endpoint(), digest, Bytes::new(), &range)));
        }
        let Some(blob) = self.open_local(digest)? else { return Ok(None) };
        self.store.prove(digest, blob, &range).await.map(Some)
    }

    async fn outboard(&self, digest: &Digest, len_max: u64) -> Result<Option<Bytes>> {
        let Some(blob) = self.open_local(digest)? else { return Ok(None) };
        match Tree::new(blob.size).outboard_len() <= len_max {
            true => self.store.outboard(digest, blob).await.map(Some),
            false => Ok(None),
        }
    }

    async fn chunks(&self, digest: &Digest) -> Result<Option<ChunkList>> {
        Ok(self.has(digest).await?.then(ChunkList::default))
    }

    fn open_local(&self, digest: &Digest) -> Result<Option<LocalBlob>> {
        self.store.open_blob(digest)
    }

    fn is_local(&self) -> bool {
        true
    }

    fn mean_local_len(&self) -> Option<u64> {
        self.store.sample().mean_len()
    }

    async fn put(&self, contents: Bytes) -> Result<Put> {
        let puts = self.put_all(vec![contents]).await?;
        Ok(puts[0])
    }

    async fn put_all(&self, contents: Vec<Bytes>) -> Result<Vec<Put>> {
        let mut puts = Vec::with_capacity(contents.len());
        let mut short = Vec::new();
        for contents in contents {
            let digest = Digest::of(&contents);
            let mut is_new = false;
            if contents.len() > PACKED_LEN_MAX {
                let len = on_disk(contents.len() as u64);
                is_new = self.within_bound(
                    len,
                    || self.store.blobs().put(&digest, &contents),
                    |new| len * u64::from(*new),
                )?;
            } else if !contents.is_empty() {
                short.push((puts.len(), digest, contents));
            }
            puts.push(Put { digest, is_new });
        }
        let lens: Vec<_> = short.iter().map(|(.., contents)| entry_len(contents)).collect();
        let packed = self.within_bound(
            lens.iter().sum(),
            || self.store.packs().put_all(short.iter().map(|(_, d, c)| (*d, &c[..]))),
            |new| new.iter().zip(&lens).map(|(new, len)| len * u64::from(*new)).sum(),
        )?;
        for (is_new, (index, ..)) in packed.into_iter().zip(short) {
            puts[index].is_new = is_new;
        }
        self.sync_if_due().await?;
        Ok(puts)
    }

    async fn writer(&self) -> Result<Box<dyn BlobWriter>> {
        Ok(Box::new(LocalWriter {
            blobs: self.clone(),
            begin: Vec::new(),
            file: None,
            hasher: OutboardBuilder::new(),
            len: 0,
            reserved: 0,
            writeback: Writeback::default(),
        }))
    }

    async fn sync(&self) -> Result<()> {
        if self.store.blobs().is_synced() && self.store.packs().is_synced() {
            return Ok(());
        }
        let store = self.store.clone();
        offload(self.store.endpoint(), move || {
            store.blobs().sync()?;
            store.packs().sync()
        })
        .await
    }
}

/// Hashes and writes at once. What may still be short enough to be packed is held back. What it writes goes to the disk
/// in the background, so that a later sync is short.
struct LocalWriter {
    blobs: LocalBlobs,
    /// All there is, while there is no file.
    begin: Vec<u8>,
    file: Option<Temporary>,
    hasher: OutboardBuilder,
    len: u64,
    /// What was reserved for the file, in bytes.
    reserved: u64,
    writeback: Writeback,
}

impl LocalWriter {
    /// Writes at the end of the file, which is made if there is none.
    fn append(&mut self, piece: &[u8], at: u64) -> Result<()> {
        self.blobs.store.check_len(at + piece.len() as u64)?;
        let needed = on_disk(at + piece.len() as u64);
        if needed > self.reserved {
            self.blobs.store.reserve(needed - self.reserved)?;
            self.reserved = needed;
        }
        let file = match self.file.take() {
            Some(file) => file,
            None => {
                let store = &self.blobs.store;
                store.write_in_full(|| store.blobs().create_temporary())?
            }
        };
        let file = self.file.insert(file);
        let store = &self.blobs.store;
        store.write_in_full(|| {
            let written = file.file().write_all_at(piece, at);
            written.map_err(|error| Error::unavailable(store.endpoint(), error))
        })
    }
}

#[async_trait]
impl BlobWriter for LocalWriter {
    async fn write(&mut self, piece: Bytes) -> Result<()> {
        let at = self.len;
        self.hasher.update(&piece);
        self.len += piece.len() as u64;
        if self.len <= PACKED_LEN_MAX as u64 {
            self.begin.extend_from_slice(&piece);
            return Ok(());
        }
        let begin = mem::take(&mut self.begin);
        if !begin.is_empty() {
            self.append(&begin, 0)?;
        }
        self.append(&piece, at)?;
        if let Some(file) = &self.file {
            self.writeback.advance(file.file(), self.len);
        }
        Ok(())
    }

    fn digest(&self) -> Option<Digest> {
        Some(self.hasher.digest())
    }

    async fn finish(mut self: Box<Self>) -> Result<(Digest, u64)> {
        let Some(file) = self.file.take() else {
            let put = self.blobs.put(mem::take(&mut self.begin).into()).await?;
            return Ok((put.digest, self.len));
        };
        let (digest, outboard) = mem::take(&mut self.hasher).finish();
        let kept = self.blobs.store.blobs().keep(&file, &digest);
        if kept.is_err() {
            self.blobs.store.blobs().discard(&file);
        }
        if kept? {
            // It stays taken.
            self.reserved = 0;
        }
        if self.len > OUTBOARD_ABOVE_LEN
            && let Err(error) = self.blobs.store.keep_outboard(&digest, &outboard)
        {
            tracing::warn!(
                event = event::DISK_FAILED,
                %digest,
                %error,
                "the tree of a blob is not kept; who asks for a range will wait for it"
            );
        }
        self.blobs.sync_if_due().await?;
        Ok((digest, self.len))
    }
}

impl Drop for LocalWriter {
    fn drop(&mut self) {
        if let Some(file) = &self.file {
            self.blobs.store.blobs().discard(file);
        }
        self.blobs.store.release(self.reserved);
    }
}
