//! Blobs that come out of archives.

use std::{num::NonZeroUsize, ops::Range, sync::Arc};

use async_trait::async_trait;
use bytes::Bytes;
use lru::LruCache;
use parking_lot::Mutex;

use super::{
    catcher::{Caught, warned},
    records::ContentKey,
    substituter::Substituter,
};
use crate::{
    castore::{ChunkList, Digest},
    service::{
        Error, Result,
        blob::{BlobService, BlobStream, BlobWriter, LocalBlob, Proven, Put},
    },
};

/// How many blobs are held that the cache does not keep.
const HELD_MAX: NonZeroUsize = NonZeroUsize::new(8).expect("it is not zero");

const UNREADABLE: &str = "the cache cannot read a blob";

/// The blobs of binary caches: those that are at the destination of their archives, and those that were there once.
///
/// What was evicted comes back with its archive. What the destination does not keep at all, since it has no room for it, is
/// held for as long as it is among the few that were read last. Nothing can be put.
#[derive(Debug)]
pub struct SubstitutedBlobs {
    substituter: Arc<Substituter>,
    held: Mutex<LruCache<Digest, Caught>>,
}

impl SubstitutedBlobs {
    /// Those of `substituter`.
    pub fn new(substituter: Arc<Substituter>) -> Self {
        SubstitutedBlobs { substituter, held: Mutex::new(LruCache::new(HELD_MAX)) }
    }

    fn near(&self) -> &dyn BlobService {
        &*self.substituter.to().blobs
    }

    fn held(&self, digest: &Digest) -> Option<Caught> {
        self.held.lock().get(digest).cloned()
    }

    async fn catch(&self, digest: &Digest, size: Option<u64>) -> Result<Option<Caught>> {
        let caught = self.substituter.catch(digest, size).await?;
        if let Some(caught) = &caught
            && !warned(UNREADABLE, self.near().has(digest).await).unwrap_or(false)
        {
            self.held.lock().put(*digest, caught.clone());
        }
        Ok(caught)
    }

    async fn read_from(
        &self,
        digest: &Digest,
        size: Option<u64>,
        range: Range<u64>,
    ) -> Result<Option<BlobStream>> {
        if let Some(stream) =
            warned(UNREADABLE, self.near().read(digest, range.clone()).await).flatten()
        {
            return Ok(Some(stream));
        }
        let caught = match self.held(digest) {
            Some(held) => Some(held),
            None => self.catch(digest, size).await?,
        };
        let endpoint = self.substituter.endpoint();
        Ok(caught.map(|caught| caught.read(&endpoint, range.start, range.end)))
    }

    fn read_only(&self) -> Error {
        Error::Unsupported { endpoint: self.substituter.endpoint(), what: "be written to" }
    }
}

#[async_trait]
impl BlobService for SubstitutedBlobs {
    async fn has(&self, digest: &Digest) -> Result<bool> {
        if warned(UNREADABLE, self.near().has(digest).await).unwrap_or(false) {
            return Ok(true);
        }
        Ok(!self.substituter.to().records.holders(ContentKey::from(digest))?.is_empty())
    }

    async fn read(&self, digest: &Digest, range: Range<u64>) -> Result<Option<BlobStream>> {
        self.read_from(digest, None, range).await
    }

    async fn read_sized(
        &self,
        digest: &Digest,
        size: u64,
        range: Range<u64>,
    ) -> Result<Option<BlobStream>> {
        self.read_from(digest, Some(size), range).await
    }

    async fn read_proven(&self, digest: &Digest, range: Range<u64>) -> Result<Option<Proven>> {
        let near = self.near().read_proven(digest, range.clone()).await;
        if let Some(proven) = warned(UNREADABLE, near).flatten() {
            return Ok(Some(proven));
        }
        // Whoever holds it while it is read has it proven; what is not kept has no tree.
        let Some(_held) = self.catch(digest, None).await? else { return Ok(None) };
        let near = warned(UNREADABLE, self.near().read_proven(digest, range).await);
        Ok(Some(near.flatten().unwrap_or(Proven::Lacking)))
    }

    async fn outboard(&self, digest: &Digest, len_max: u64) -> Result<Option<Bytes>> {
        self.near().outboard(digest, len_max).await
    }

    async fn chunks(&self, digest: &Digest) -> Result<Option<ChunkList>> {
        Ok(self.has(digest).await?.then(ChunkList::default))
    }

    fn open_local(&self, digest: &Digest) -> Result<Option<LocalBlob>> {
        match warned(UNREADABLE, self.near().open_local(digest)).flatten() {
            Some(blob) => Ok(Some(blob)),
            None => Ok(self.held(digest).and_then(|held| match held {
                Caught::File(blob) => Some(blob),
                Caught::Contents(_) => None,
            })),
        }
    }

    fn keeps_what_is_read(&self) -> bool {
        true
    }

    fn mean_local_len(&self) -> Option<u64> {
        self.near().mean_local_len()
    }

    async fn put(&self, _: Bytes) -> Result<Put> {
        Err(self.read_only())
    }

    async fn writer(&self) -> Result<Box<dyn BlobWriter>> {
        Err(self.read_only())
    }

    async fn sync(&self) -> Result<()> {
        Ok(())
    }
}
