//! A near store before a far one.

use std::{ops::Range, sync::Arc};

use async_trait::async_trait;
use bytes::Bytes;
use futures::StreamExt as _;

use crate::{
    castore::{ChunkList, Digest},
    service::{
        Error, Result,
        blob::{BlobService, BlobStream, BlobWriter, LocalBlob, Proven, Put},
        single_flight::SingleFlight,
    },
};

/// Reads near first; what is only far is copied near, whole, and then read from there.
///
/// You want it wherever the far store is slower than a disk. Those who read the same blob at the same time share one
/// copy. What is written goes to the far store, then to the near one.
///
/// It never fails because of the near store: what goes wrong there is logged, and the far store answers. It never
/// remembers that a blob is absent, nor an error. It never removes anything from the near store.
#[derive(Debug)]
pub struct CachedBlobs {
    near: Arc<dyn BlobService>,
    far: Arc<dyn BlobService>,
    fills: SingleFlight<Digest, Fill>,
}

/// How an attempt to copy a blob near ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fill {
    /// It is near now.
    Near,
    /// It is not far either.
    Absent,
    /// The near store would not take it.
    Refused,
}

impl CachedBlobs {
    /// Puts `near` before `far`.
    pub fn new(near: Arc<dyn BlobService>, far: Arc<dyn BlobService>) -> Self {
        CachedBlobs { near, far, fills: SingleFlight::default() }
    }

    /// What the near store has; nothing if it fails.
    async fn read_near(&self, digest: &Digest, range: Range<u64>) -> Option<BlobStream> {
        let answer = self.near.read(digest, range).await;
        answer.unwrap_or_else(|error| {
            tracing::warn!(%digest, %error, "the near store cannot read a blob");
            None
        })
    }
}

/// Copies a blob near, if it is far.
async fn fill(
    near: Arc<dyn BlobService>,
    far: Arc<dyn BlobService>,
    digest: Digest,
) -> Result<Fill> {
    let Some(mut pieces) = far.read(&digest, 0..u64::MAX).await? else {
        return Ok(Fill::Absent);
    };
    let refused = |error: Error| {
        tracing::warn!(%digest, %error, "the near store does not take a blob");
        Ok(Fill::Refused)
    };
    let mut writer = match near.writer().await {
        Ok(writer) => writer,
        Err(error) => return refused(error),
    };
    while let Some(piece) = pieces.next().await {
        if let Err(error) = writer.write(piece?).await {
            return refused(error);
        }
    }
    match writer.finish().await {
        Ok((got, _)) if got == digest => Ok(Fill::Near),
        Ok((got, _)) => Err(Error::corrupt(
            "the far store",
            format!("asked for blob {digest}, got the contents of {got}"),
        )),
        Err(error) => refused(error),
    }
}

#[async_trait]
impl BlobService for CachedBlobs {
    async fn has(&self, digest: &Digest) -> Result<bool> {
        Ok(self.near.has(digest).await.unwrap_or(false) || self.far.has(digest).await?)
    }

    async fn read(&self, digest: &Digest, range: Range<u64>) -> Result<Option<BlobStream>> {
        if let Some(stream) = self.read_near(digest, range.clone()).await {
            return Ok(Some(stream));
        }
        let (near, far) = (self.near.clone(), self.far.clone());
        match self.fills.run(*digest, || fill(near, far, *digest)).await? {
            Fill::Absent => return Ok(None),
            Fill::Near => {
                if let Some(stream) = self.read_near(digest, range.clone()).await {
                    return Ok(Some(stream));
                }
            }
            Fill::Refused => {}
        }
        self.far.read(digest, range).await
    }

    async fn read_proven(&self, digest: &Digest, range: Range<u64>) -> Result<Option<Proven>> {
        match self.near.read_proven(digest, range.clone()).await {
            Ok(Some(proven @ Proven::Range { .. })) => return Ok(Some(proven)),
            Ok(Some(Proven::Lacking) | None) => {}
            Err(error) => tracing::warn!(%digest, %error, "the near store cannot prove a range"),
        }
        self.far.read_proven(digest, range).await
    }

    async fn outboard(&self, digest: &Digest, len_max: u64) -> Result<Option<Bytes>> {
        match self.near.outboard(digest, len_max).await {
            Ok(Some(outboard)) => Ok(Some(outboard)),
            _ => self.far.outboard(digest, len_max).await,
        }
    }

    async fn chunks(&self, digest: &Digest) -> Result<Option<ChunkList>> {
        match self.near.chunks(digest).await {
            Ok(Some(chunks)) => Ok(Some(chunks)),
            Ok(None) => self.far.chunks(digest).await,
            Err(error) => {
                tracing::warn!(%digest, %error, "the near store cannot tell a blob's chunks");
                self.far.chunks(digest).await
            }
        }
    }

    fn open_local(&self, digest: &Digest) -> Result<Option<LocalBlob>> {
        self.near.open_local(digest)
    }

    async fn put(&self, contents: Bytes) -> Result<Put> {
        let put = self.far.put(contents.clone()).await?;
        warn_near(self.near.put(contents).await);
        Ok(put)
    }

    async fn put_all(&self, contents: Vec<Bytes>) -> Result<Vec<Put>> {
        let puts = self.far.put_all(contents.clone()).await?;
        warn_near(self.near.put_all(contents).await);
        Ok(puts)
    }

    async fn writer(&self) -> Result<Box<dyn BlobWriter>> {
        let far = self.far.writer().await?;
        let near = warn_near(self.near.writer().await);
        Ok(Box::new(CachedWriter { far, near }))
    }

    async fn sync(&self) -> Result<()> {
        self.far.sync().await?;
        warn_near(self.near.sync().await);
        Ok(())
    }
}

fn warn_near<T>(result: Result<T>) -> Option<T> {
    result.inspect_err(|error| tracing::warn!(%error, "the near store does not take a blob")).ok()
}

/// Writes to both, as long as the near one works.
struct CachedWriter {
    far: Box<dyn BlobWriter>,
    near: Option<Box<dyn BlobWriter>>,
}

#[async_trait]
impl BlobWriter for CachedWriter {
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
