//! A blob that comes by chunks, on the word of the far store: each is checked by itself, the whole at the end.

use std::{ops::Range, sync::Arc};

use futures::{StreamExt as _, TryStreamExt as _, stream};
use tokio::sync::watch;

use super::{
    super::{by_chunks::read_chunk, flight::Progress},
    Arriving, Wish,
};
use crate::{
    castore::{Chunk, ChunkList, Digest},
    service::{Error, Result, local::offload, range_set::RangeSet},
};

/// How many chunks of a blob are fetched at once for one stretch of it.
pub(in super::super) const CHUNKS_AT_ONCE_MAX: usize = 8;

impl Arriving {
    /// Looks at what an earlier process left of the chunks that `range` touches.
    pub(super) fn check_chunks(&self, chunks: &ChunkList, range: &Range<u64>) {
        for part in self.partial.unchecked(range) {
            for (start, chunk) in chunks_of(chunks, &part) {
                let place = start..start + chunk.size;
                let read = self.partial.read(&place);
                let is_right = read.is_ok_and(|read| Digest::of(&read) == chunk.digest);
                self.settle_chunk(&place, is_right);
            }
        }
    }

    /// Brings chunks, several at once, and takes them in their order.
    pub(super) async fn take_chunks(
        self: &Arc<Self>,
        chunks: &ChunkList,
        range: &Range<u64>,
        progress: &watch::Sender<Progress>,
    ) -> Result<()> {
        let wanted: Vec<_> = chunks_of(chunks, range)
            .filter(|(start, chunk)| !self.partial.has(&(*start..start + chunk.size)))
            .collect();
        let fetch = |(start, chunk): (u64, Chunk)| {
            let far = self.far.clone();
            async move { Ok::<_, Error>((start, read_chunk(&*far, &chunk).await?)) }
        };
        let mut fetched = stream::iter(wanted).map(fetch).buffered(CHUNKS_AT_ONCE_MAX);
        while let Some((start, contents)) = fetched.try_next().await? {
            let place = start..start + contents.len() as u64;
            if let Err(error) = self.partial.place(start, &contents, &[]) {
                self.refuse(&error);
                return Ok(());
            }
            if !self.settle_chunk(&place, true) {
                self.check_whole(&place).await?;
            }
            progress.send_replace(Progress::At(place.end));
        }
        Ok(())
    }

    /// Lets readers have a chunk. `false` if that is not done since the blob is whole with it: the last chunk is held back
    /// until all of them are known to be the blob.
    fn settle_chunk(&self, place: &Range<u64>, is_right: bool) -> bool {
        let is_fooled = self.is_fooled.lock();
        if *is_fooled {
            return true;
        }
        let mut left = RangeSet::default();
        for gap in self.partial.gaps(&(0..self.size)) {
            left.insert(gap);
        }
        left.remove(place);
        if is_right && left.is_empty() {
            return false;
        }
        self.partial.settle(place, is_right);
        true
    }

    /// Hashes the blob, which is whole with what is at `place`.
    async fn check_whole(self: &Arc<Self>, place: &Range<u64>) -> Result<()> {
        let this = self.clone();
        let (got, outboard) = offload("the cache", move || this.partial.hash()).await?;
        if got != self.digest {
            self.trust.was_fooled();
            self.end(Wish::WholeOnly);
            let mut is_fooled = self.is_fooled.lock();
            *is_fooled = true;
            self.partial.discard();
            let what = format!("the chunks listed for blob {} make up {got}", self.digest);
            return Err(Error::corrupt("the far store", what));
        }
        self.partial.settle(place, true);
        self.adopt(Some(&outboard));
        Ok(())
    }
}

/// The whole chunks that `range`, which is not empty, touches.
pub(super) fn whole_chunks(chunks: &ChunkList, range: &Range<u64>) -> Range<u64> {
    let start = chunks.at(range.start).map_or(range.start, |(start, _)| start);
    let last = chunks.at(range.end.saturating_sub(1));
    start..last.map_or(range.end, |(start, chunk)| start + chunk.size)
}

/// The chunks that `range` touches, each with where it begins.
pub(in super::super) fn chunks_of<'a>(
    chunks: &'a ChunkList,
    range: &Range<u64>,
) -> impl Iterator<Item = (u64, Chunk)> + 'a {
    let (mut at, end) = (range.start, range.end);
    std::iter::from_fn(move || {
        let (start, chunk) = chunks.at(at).filter(|_| at < end)?;
        at = start + chunk.size;
        Some((start, chunk))
    })
}
