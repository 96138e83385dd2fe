//! Several sources to read from, and one to write to.

use std::{ops::Range, sync::Arc};

use async_trait::async_trait;
use bytes::Bytes;
use futures::{StreamExt as _, stream};

use crate::{
    castore::{ChunkList, Digest},
    service::{
        Error, Result,
        blob::{BlobService, BlobStream, BlobWriter, LocalBlob, Proven, Put},
        in_turn::{Routed, first_at_hand, first_that_has, pass_over},
    },
};

/// Reads from the first of several sources that has a blob, and writes to one, or to none.
///
/// You want it wherever a store is in more than one place, or is written elsewhere than it is read. A source that has failed
/// leaves it to those after it; that a blob is absent is said only if all of them say so. A stream that breaks is continued
/// from the sources after its own; one with proofs is not, as those belong together.
///
/// It never copies anything from one source to another, remembers nothing, and does not see whether what is written can be
/// read again: a target that is none of the sources has to share its store with one of them.
pub type RoutedBlobs = Routed<dyn BlobService>;

impl RoutedBlobs {
    async fn read_from(&self, wanted: Wanted) -> Result<Option<BlobStream>> {
        let found = first_that_has(&self.read, |one| wanted.clone().of(one)).await?;
        Ok(found.map(|(at, pieces)| {
            let passing = Passing { read: self.read.clone(), at, wanted, pieces };
            stream::unfold(Some(passing), Passing::next).boxed()
        }))
    }
}

/// What of a blob is still to come.
#[derive(Clone)]
struct Wanted {
    digest: Digest,
    size: Option<u64>,
    range: Range<u64>,
}

impl Wanted {
    async fn of(self, one: Arc<dyn BlobService>) -> Result<Option<BlobStream>> {
        match self.size {
            Some(size) => one.read_sized(&self.digest, size, self.range).await,
            None => one.read(&self.digest, self.range).await,
        }
    }
}

/// A stream on its way.
struct Passing {
    read: Arc<[Arc<dyn BlobService>]>,
    /// From which source it comes.
    at: usize,
    wanted: Wanted,
    pieces: BlobStream,
}

impl Passing {
    async fn next(state: Option<Self>) -> Option<(Result<Bytes>, Option<Self>)> {
        let mut passing = state?;
        loop {
            match passing.pieces.next().await? {
                Ok(piece) => {
                    passing.wanted.range.start += piece.len() as u64;
                    return Some((Ok(piece), Some(passing)));
                }
                Err(error) => {
                    if let Err(error) = passing.go_on_elsewhere(error).await {
                        return Some((Err(error), None));
                    }
                }
            }
        }
    }

    /// Turns to a source after this one. If none has the blob, the error is that of the stream.
    async fn go_on_elsewhere(&mut self, error: Error) -> Result<()> {
        let mut failed = None;
        pass_over(error, &mut failed);
        let after = self.at + 1;
        let others = &self.read[after..];
        if let Ok(Some((step, pieces))) =
            first_that_has(others, |one| self.wanted.clone().of(one)).await
        {
            (self.at, self.pieces) = (after + step, pieces);
            return Ok(());
        }
        failed.map_or(Ok(()), Err)
    }
}

#[async_trait]
impl BlobService for RoutedBlobs {
    async fn has(&self, digest: &Digest) -> Result<bool> {
        let has =
            |one: Arc<dyn BlobService>| async move { Ok(one.has(digest).await?.then_some(())) };
        Ok(first_that_has(&self.read, has).await?.is_some())
    }

    async fn read(&self, digest: &Digest, range: Range<u64>) -> Result<Option<BlobStream>> {
        self.read_from(Wanted { digest: *digest, size: None, range }).await
    }

    async fn read_sized(
        &self,
        digest: &Digest,
        size: u64,
        range: Range<u64>,
    ) -> Result<Option<BlobStream>> {
        self.read_from(Wanted { digest: *digest, size: Some(size), range }).await
    }

    /// A source that has the blob without its proofs leaves it to those after it.
    async fn read_proven(&self, digest: &Digest, range: Range<u64>) -> Result<Option<Proven>> {
        let (mut failed, mut is_there) = (None, false);
        for one in self.read.iter() {
            match one.read_proven(digest, range.clone()).await {
                Ok(Some(proven @ Proven::Range { .. })) => return Ok(Some(proven)),
                Ok(Some(Proven::Lacking)) => is_there = true,
                Ok(None) => {}
                Err(error) => pass_over(error, &mut failed),
            }
        }
        match (is_there, failed) {
            (true, _) => Ok(Some(Proven::Lacking)),
            (false, failed) => failed.map_or(Ok(None), Err),
        }
    }

    async fn outboard(&self, digest: &Digest, len_max: u64) -> Result<Option<Bytes>> {
        let ask = |one: Arc<dyn BlobService>| async move { one.outboard(digest, len_max).await };
        Ok(first_that_has(&self.read, ask).await?.map(|(_, outboard)| outboard))
    }

    async fn chunks(&self, digest: &Digest) -> Result<Option<ChunkList>> {
        let ask = |one: Arc<dyn BlobService>| async move { one.chunks(digest).await };
        Ok(first_that_has(&self.read, ask).await?.map(|(_, chunks)| chunks))
    }

    fn open_local(&self, digest: &Digest) -> Result<Option<LocalBlob>> {
        first_at_hand(&self.read, |one| one.open_local(digest))
    }

    fn open_local_range(
        &self,
        digest: &Digest,
        size: u64,
        range: &Range<u64>,
    ) -> Result<Option<LocalBlob>> {
        first_at_hand(&self.read, |one| one.open_local_range(digest, size, range))
    }

    async fn lend(&self, digest: &Digest) -> Option<LocalBlob> {
        for one in self.read.iter() {
            if let Some(lent) = one.lend(digest).await {
                return Some(lent);
            }
        }
        None
    }

    async fn lends(&self) -> bool {
        for one in self.read.iter() {
            if one.lends().await {
                return true;
            }
        }
        false
    }

    /// It is not known of which one it was.
    fn distrust(&self) {
        self.read.iter().for_each(|one| one.distrust());
    }

    fn has_others(&self) -> bool {
        self.read.iter().any(|one| one.has_others())
    }

    fn is_local(&self) -> bool {
        self.read.iter().all(|one| one.is_local())
    }

    fn keeps_what_is_read(&self) -> bool {
        let mut far = self.read.iter().filter(|one| !one.is_local()).peekable();
        far.peek().is_some() && far.all(|one| one.keeps_what_is_read())
    }

    fn mean_local_len(&self) -> Option<u64> {
        self.read.iter().find_map(|one| one.mean_local_len())
    }

    async fn put(&self, contents: Bytes) -> Result<Put> {
        self.target()?.put(contents).await
    }

    async fn put_all(&self, contents: Vec<Bytes>) -> Result<Vec<Put>> {
        self.target()?.put_all(contents).await
    }

    async fn writer(&self) -> Result<Box<dyn BlobWriter>> {
        self.target()?.writer().await
    }

    async fn sync(&self) -> Result<()> {
        match &self.write {
            Some(write) => write.sync().await,
            None => Ok(()),
        }
    }
}
