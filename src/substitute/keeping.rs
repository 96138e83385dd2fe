//! The services as an archive sees them on its way in.

use std::{ops::Range, sync::Arc};

use async_trait::async_trait;
use bytes::Bytes;
use parking_lot::Mutex;

use super::{
    catcher::{Catcher, Caught, Spill, warned},
    records::ContentKey,
};
use crate::{
    castore::{ChunkList, Digest, Directory, SizeRule},
    observe::event,
    service::{
        Error, Result,
        blob::{BlobService, BlobStream, BlobWriter, LocalBlob, Put},
        directory::{DirectoryPutter, DirectoryService, DirectoryStream},
    },
};

const NOT_KEPT: &str = "the cache does not keep what is in an archive";

/// What an archive is stored into.
#[derive(Debug, Clone)]
pub(super) struct Keeping {
    pub(super) blobs: Arc<dyn BlobService>,
    pub(super) directories: Arc<dyn DirectoryService>,
    /// Whether what the services do not take does no harm, since the archive can be fetched again.
    pub(super) is_cache: bool,
    pub(super) catcher: Arc<Catcher>,
    /// What was in the archive, each once or more often.
    seen: Arc<Mutex<Vec<ContentKey>>>,
}

impl Keeping {
    pub(super) fn new(
        blobs: Arc<dyn BlobService>,
        directories: Arc<dyn DirectoryService>,
        is_cache: bool,
        catcher: Arc<Catcher>,
    ) -> Self {
        Keeping { blobs, directories, is_cache, catcher, seen: Arc::default() }
    }

    /// What was in the archive, each once.
    pub(super) fn seen(&self) -> Vec<ContentKey> {
        let mut seen = std::mem::take(&mut *self.seen.lock());
        seen.sort_unstable();
        seen.dedup();
        seen
    }

    fn saw<'a>(&self, digests: impl Iterator<Item = &'a Digest>) {
        if self.is_cache {
            self.seen.lock().extend(digests.map(ContentKey::from));
        }
    }

    /// What comes of putting; if it is not kept, and need not be, what would have.
    fn or_else<T>(&self, put: Result<T>, instead: impl FnOnce() -> T) -> Result<T> {
        match put {
            Err(error) if self.is_cache => {
                tracing::debug!(%error, NOT_KEPT);
                Ok(instead())
            }
            put => put,
        }
    }
}

#[async_trait]
impl BlobService for Keeping {
    async fn has(&self, digest: &Digest) -> Result<bool> {
        // A long blob that is wanted has to be written to the end, to be held by its reader.
        if self.catcher.is_wanted(digest) {
            return Ok(false);
        }
        let has = self.blobs.has(digest).await;
        let has = self.or_else(has, || false)?;
        if has {
            self.saw([digest].into_iter());
        }
        Ok(has)
    }

    async fn read(&self, digest: &Digest, range: Range<u64>) -> Result<Option<BlobStream>> {
        self.blobs.read(digest, range).await
    }

    async fn chunks(&self, digest: &Digest) -> Result<Option<ChunkList>> {
        self.blobs.chunks(digest).await
    }

    fn open_local(&self, digest: &Digest) -> Result<Option<LocalBlob>> {
        self.blobs.open_local(digest)
    }

    async fn put(&self, contents: Bytes) -> Result<Put> {
        let puts = self.put_all(vec![contents]).await?;
        Ok(puts[0])
    }

    async fn put_all(&self, contents: Vec<Bytes>) -> Result<Vec<Put>> {
        let puts = self.blobs.put_all(contents.clone()).await;
        let puts = self.or_else(puts, || {
            let digests = contents.iter().map(|contents| Digest::of(contents));
            digests.map(|digest| Put { digest, is_new: true }).collect()
        })?;
        self.saw(puts.iter().map(|put| &put.digest));
        for (put, contents) in puts.iter().zip(contents) {
            if self.catcher.is_wanted(&put.digest) {
                // Not a part of all the others.
                let caught = Caught::Contents(Bytes::copy_from_slice(&contents));
                self.catcher.passes(&put.digest, &caught);
            }
        }
        Ok(puts)
    }

    async fn writer(&self) -> Result<Box<dyn BlobWriter>> {
        let writer = self.blobs.writer().await;
        if !self.is_cache {
            return writer;
        }
        let near = warned(NOT_KEPT, writer);
        let spill = match self.catcher.spills() {
            true => Spill::new()
                .inspect_err(|error| tracing::warn!(event = event::CACHE_FAILED, %error, NOT_KEPT))
                .ok(),
            false => None,
        };
        let (keeping, hasher, len) = (self.clone(), blake3::Hasher::new(), 0);
        Ok(Box::new(KeepingWriter { keeping, near, spill, hasher, len }))
    }

    async fn sync(&self) -> Result<()> {
        self.blobs.sync().await
    }
}

/// Writes as far as it is taken, and knows the digest however far that is.
struct KeepingWriter {
    keeping: Keeping,
    near: Option<Box<dyn BlobWriter>>,
    spill: Option<Spill>,
    hasher: blake3::Hasher,
    len: u64,
}

#[async_trait]
impl BlobWriter for KeepingWriter {
    async fn write(&mut self, piece: Bytes) -> Result<()> {
        self.hasher.update(&piece);
        self.len += piece.len() as u64;
        if let Some(spill) = &mut self.spill
            && let Err(error) = spill.write(&piece)
        {
            tracing::warn!(event = event::CACHE_FAILED, %error, NOT_KEPT);
            self.spill = None;
        }
        if let Some(near) = &mut self.near
            && let Err(error) = near.write(piece).await
        {
            tracing::debug!(%error, NOT_KEPT);
            self.near = None;
        }
        Ok(())
    }

    fn digest(&self) -> Option<Digest> {
        Some(Digest::from(*self.hasher.finalize().as_bytes()))
    }

    async fn finish(self: Box<Self>) -> Result<(Digest, u64)> {
        let digest = Digest::from(*self.hasher.finalize().as_bytes());
        let Keeping { catcher, blobs, .. } = &self.keeping;
        self.keeping.saw([&digest].into_iter());
        let kept = match self.near {
            Some(near) => {
                let finished = warned(NOT_KEPT, near.finish().await);
                match finished {
                    Some((got, _)) if got != digest => {
                        let what = format!("it took blob {digest} for {got}");
                        return Err(Error::corrupt("the cache", what));
                    }
                    Some(_) => warned(NOT_KEPT, blobs.open_local(&digest)).flatten(),
                    None => None,
                }
            }
            None => None,
        };
        if let Some(blob) = kept.or(self.spill.map(Spill::finish)) {
            catcher.passes(&digest, &Caught::File(blob));
        }
        Ok((digest, self.len))
    }
}

#[async_trait]
impl DirectoryService for Keeping {
    async fn get(&self, digest: &Digest) -> Result<Option<Arc<Directory>>> {
        self.directories.get(digest).await
    }

    fn get_local(&self, digest: &Digest) -> Result<Option<Arc<Directory>>> {
        self.directories.get_local(digest)
    }

    async fn get_closure(&self, root: &Digest) -> Result<Option<DirectoryStream>> {
        self.directories.get_closure(root).await
    }

    async fn put(&self, directory: Arc<Directory>) -> Result<()> {
        self.saw([&directory.digest()].into_iter());
        self.directories.put(directory).await
    }

    async fn put_closure(&self) -> Result<Box<dyn DirectoryPutter>> {
        let putter = self.directories.put_closure().await?;
        Ok(Box::new(KeepingPutter { keeping: self.clone(), putter }))
    }

    async fn size_rule(&self) -> Result<SizeRule> {
        self.directories.size_rule().await
    }

    async fn sync(&self) -> Result<()> {
        self.directories.sync().await
    }
}

/// Remembers what passes.
struct KeepingPutter {
    keeping: Keeping,
    putter: Box<dyn DirectoryPutter>,
}

#[async_trait]
impl DirectoryPutter for KeepingPutter {
    async fn put(&mut self, directory: Arc<Directory>) -> Result<()> {
        self.keeping.saw([&directory.digest()].into_iter());
        self.putter.put(directory).await
    }

    async fn finish(self: Box<Self>) -> Result<Digest> {
        self.putter.finish().await
    }
}
