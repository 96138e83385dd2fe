//! A near store before a far one that is read in parts.

mod arriving;
mod by_chunks;
mod fetch;
mod flight;
mod lent;
mod pieces;
mod read_ahead;
#[cfg(test)]
mod tests;

use std::{ops::Range, sync::Arc};

use async_trait::async_trait;
use bytes::Bytes;
use futures::{StreamExt as _, stream};

use fetch::{Inner, Learnt};
use lent::pieces_of_file;

use crate::{
    castore::{ChunkList, Digest},
    observe::tally::Cache,
    service::{
        Result,
        blob::{
            BlobService, BlobStream, BlobWriter, LocalBlob, Proven, Put, pieces_of, prove_contents,
        },
        local::LocalStore,
    },
};

/// Up to this many bytes, a blob is fetched whole in one request, unless another bound is asked for.
pub const WHOLE_LEN_MAX: u64 = 256 << 10;

/// What is believed of a far store that proves nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verify {
    /// Its lists of chunks, since it also said which store path is which, and could have named any contents there. Each
    /// chunk is checked, and the whole blob once it is complete. It is believed no more once a list was wrong.
    Source,
    /// Nothing: no byte of a blob is released before all of it is checked.
    Strict,
}

/// How blobs are fetched.
#[derive(Debug, Clone, Copy)]
pub struct LazyOptions {
    /// Up to this many bytes, a blob is fetched whole in one request. At most
    /// [`SMALL_BLOB_LEN_MAX`](crate::service::blob::SMALL_BLOB_LEN_MAX).
    pub whole_len_max: u64,
    /// What is believed without proof.
    pub verify: Verify,
}

impl Default for LazyOptions {
    fn default() -> Self {
        LazyOptions { whole_len_max: WHOLE_LEN_MAX, verify: Verify::Strict }
    }
}

/// Reads near first; what is only far is fetched as it is wanted, kept near, and from then on read there.
///
/// You want it wherever the far store is slower than a disk. Short blobs come whole. Of longer ones the wanted range
/// comes, and when they are read in order, some of what follows. Those who want the same at the same time share one request,
/// which is given up when all of them are dropped. A blob that is whole becomes one of the near store. What is written goes
/// to the far store, then to the near one.
///
/// The far store must release nothing unchecked: put the `verify` layer before it. Ranges that prove themselves are taken
/// wherever the far store has them; else lists of chunks as far as they are believed ([`Verify`]); else the blob comes
/// whole before any of it is read.
///
/// A far store on this machine may lend long blobs as files ([`BlobService::lend`]). Without a near store, and where its
/// lists of chunks would be believed, such a file is read as if it lay near.
///
/// It never fails because of the near store: what goes wrong there is logged, and what is read goes past it. It never
/// remembers that a blob is absent, nor an error. It never removes anything that is whole from the near store.
#[derive(Debug, Clone)]
pub struct LazyBlobs(Arc<Inner>);

impl LazyBlobs {
    /// Puts `near` before `far`; without it nothing is kept. What arrives in parts is put in `partials`, whose blobs are
    /// those of `near`; without it every range is fetched each time. Needs the context of a tokio runtime.
    pub fn new(
        near: Option<Arc<dyn BlobService>>,
        partials: Option<Arc<LocalStore>>,
        far: Arc<dyn BlobService>,
        options: LazyOptions,
    ) -> Self {
        LazyBlobs(Arc::new(Inner::new(near, partials, far, options)))
    }
}

fn warn_near<T>(result: Result<T>) -> Option<T> {
    result.inspect_err(|error| tracing::warn!(%error, "the near store does not take a blob")).ok()
}

#[async_trait]
impl BlobService for LazyBlobs {
    async fn has(&self, digest: &Digest) -> Result<bool> {
        if let Some(near) = &self.0.near
            && near.has(digest).await.unwrap_or(false)
        {
            return Ok(true);
        }
        self.0.far.has(digest).await
    }

    /// Whatever is near may have come from elsewhere.
    async fn lacks(&self, digest: &Digest, size: u64) -> Result<bool> {
        self.0.far.lacks(digest, size).await
    }

    async fn read(&self, digest: &Digest, range: Range<u64>) -> Result<Option<BlobStream>> {
        let this = &self.0;
        if let Some(stream) = this.read_near(digest, range.clone()).await {
            Cache::Blobs.hit();
            return Ok(Some(stream));
        }
        if range.is_empty() {
            return Ok(this.far.has(digest).await?.then(|| stream::empty().boxed()));
        }
        Cache::Blobs.missed();
        match this.learn(digest, &range).await? {
            Learnt::Absent => Ok(None),
            Learnt::Contents(contents) => Ok(Some(pieces_of(&contents, &range))),
            Learnt::Size(size) => self.read_far(digest, size, range).await,
            Learnt::Unproven => this.read_copied(digest, range).await,
        }
    }

    async fn read_sized(
        &self,
        digest: &Digest,
        size: u64,
        range: Range<u64>,
    ) -> Result<Option<BlobStream>> {
        // Asked first: it knows without looking at the disk.
        if self.0.known(digest, size).is_none() {
            if let Some(stream) = self.0.read_near(digest, range.clone()).await {
                Cache::Blobs.hit();
                return Ok(Some(stream));
            }
            if let Some(lent) = self.0.borrow(digest, size).await {
                Cache::Blobs.hit();
                return Ok(Some(pieces_of_file(&lent, range)));
            }
        }
        Cache::Blobs.missed();
        self.read_far(digest, size, range).await
    }

    async fn read_proven(&self, digest: &Digest, range: Range<u64>) -> Result<Option<Proven>> {
        let this = &self.0;
        let near = match &this.near {
            Some(near) => near.read_proven(digest, range.clone()).await,
            None => Ok(None),
        };
        match near {
            Ok(Some(proven @ Proven::Range { .. })) => return Ok(Some(proven)),
            Ok(Some(Proven::Lacking) | None) => {}
            Err(error) => tracing::warn!(%digest, %error, "the near store cannot prove a range"),
        }
        if this.partials.is_none() || range.is_empty() {
            return this.far.read_proven(digest, range).await;
        }
        match this.learn(digest, &range).await? {
            Learnt::Absent => Ok(None),
            Learnt::Unproven => Ok(Some(Proven::Lacking)),
            Learnt::Contents(contents) => {
                Ok(Some(prove_contents("the cache", digest, contents, &range)))
            }
            Learnt::Size(size) if size <= this.options.whole_len_max => {
                this.far.read_proven(digest, range).await
            }
            Learnt::Size(size) => match this.begin(digest, size) {
                Some(arriving) if arriving.is_proven() => {
                    Ok(Some(this.prove_arriving(arriving, &range)))
                }
                Some(_) => Ok(Some(Proven::Lacking)),
                None => this.far.read_proven(digest, range).await,
            },
        }
    }

    async fn outboard(&self, digest: &Digest, len_max: u64) -> Result<Option<Bytes>> {
        if let Some(near) = &self.0.near
            && let Ok(Some(outboard)) = near.outboard(digest, len_max).await
        {
            return Ok(Some(outboard));
        }
        self.0.far.outboard(digest, len_max).await
    }

    async fn chunks(&self, digest: &Digest) -> Result<Option<ChunkList>> {
        if let Some(near) = &self.0.near {
            match near.chunks(digest).await {
                Ok(Some(chunks)) => return Ok(Some(chunks)),
                Ok(None) => {}
                Err(error) => {
                    tracing::warn!(%digest, %error, "the near store cannot tell a blob's chunks");
                }
            }
        }
        self.0.far.chunks(digest).await
    }

    fn open_local(&self, digest: &Digest) -> Result<Option<LocalBlob>> {
        if let Some(lent) = self.0.lent(digest) {
            return Ok(Some(lent));
        }
        match &self.0.near {
            Some(near) => near.open_local(digest),
            None => Ok(None),
        }
    }

    fn distrust(&self) {
        self.0.far.distrust();
    }

    fn has_others(&self) -> bool {
        self.0.far.has_others()
    }

    async fn lends(&self) -> bool {
        self.0.borrows() && self.0.far.lends().await
    }

    fn keeps_what_is_read(&self) -> bool {
        self.0.near.is_some()
    }

    fn mean_local_len(&self) -> Option<u64> {
        self.0.near.as_ref()?.mean_local_len()
    }

    fn open_local_range(
        &self,
        digest: &Digest,
        size: u64,
        range: &Range<u64>,
    ) -> Result<Option<LocalBlob>> {
        let Some(arriving) = self.0.known(digest, size) else {
            let found = self.open_local(digest)?;
            // If there is none, whoever then reads is counted.
            found.iter().for_each(|_| Cache::Blobs.hit());
            return Ok(found);
        };
        let range = range.start.min(size)..range.end.min(size);
        if !arriving.partial.has(&range) {
            return Ok(None);
        }
        Cache::Blobs.hit();
        arriving.note(&range);
        Ok(Some(arriving.partial.as_local()))
    }

    async fn put(&self, contents: Bytes) -> Result<Put> {
        let put = self.0.far.put(contents.clone()).await?;
        if let Some(near) = &self.0.near {
            warn_near(near.put(contents).await);
        }
        Ok(put)
    }

    async fn put_all(&self, contents: Vec<Bytes>) -> Result<Vec<Put>> {
        let puts = self.0.far.put_all(contents.clone()).await?;
        if let Some(near) = &self.0.near {
            warn_near(near.put_all(contents).await);
        }
        Ok(puts)
    }

    async fn writer(&self) -> Result<Box<dyn BlobWriter>> {
        let far = self.0.far.writer().await?;
        let near = match &self.0.near {
            Some(near) => warn_near(near.writer().await),
            None => None,
        };
        Ok(Box::new(LazyWriter { far, near }))
    }

    async fn sync(&self) -> Result<()> {
        self.0.far.sync().await?;
        if let Some(near) = &self.0.near {
            warn_near(near.sync().await);
        }
        Ok(())
    }
}

impl LazyBlobs {
    /// A blob that is not near.
    async fn read_far(
        &self,
        digest: &Digest,
        size: u64,
        range: Range<u64>,
    ) -> Result<Option<BlobStream>> {
        match size <= self.0.options.whole_len_max {
            true => self.0.read_short(digest, self.0.options.whole_len_max, range).await,
            false => self.0.read_parts(digest, size, range).await,
        }
    }
}

/// Writes to both, as long as the near one works.
struct LazyWriter {
    far: Box<dyn BlobWriter>,
    near: Option<Box<dyn BlobWriter>>,
}

#[async_trait]
impl BlobWriter for LazyWriter {
    async fn write(&mut self, piece: Bytes) -> Result<()> {
        self.far.write(piece.clone()).await?;
        if let Some(near) = &mut self.near
            && warn_near(near.write(piece).await).is_none()
        {
            self.near = None;
        }
        Ok(())
    }

    fn digest(&self) -> Option<Digest> {
        self.far.digest()
    }

    async fn finish(self: Box<Self>) -> Result<(Digest, u64)> {
        let written = self.far.finish().await?;
        if let Some(near) = self.near {
            warn_near(near.finish().await);
        }
        Ok(written)
    }
}
