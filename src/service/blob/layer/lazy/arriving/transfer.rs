//! What brings a stretch of a blob: a request, and what comes of its answer.

use std::{ops::Range, sync::Arc, time::Instant};

use futures::StreamExt as _;
use tokio::sync::watch;

use super::{super::flight::Progress, Arriving, Means, Wish};
use crate::{
    castore::{
        ChunkList,
        outboard::{Outboard, PieceCheck, TreeNode},
    },
    observe::event,
    service::{
        Error, Result,
        blob::{Proven, ProvenStream},
        local::offload,
    },
};

/// The longest chunk that is fetched as one, in bytes. A list with a longer one is of no use.
const CHUNK_LEN_MAX: u64 = 8 << 20;

impl Arriving {
    /// Brings `range` here.
    pub(super) async fn fly(
        self: &Arc<Self>,
        means: &Means,
        range: Range<u64>,
        progress: &watch::Sender<Progress>,
    ) -> Result<()> {
        match means {
            Means::Proven => match self.ask(&range).await? {
                None => self.end(Wish::Absent),
                Some(Proven::Lacking) => return self.find_means().await,
                Some(Proven::Range { size, pieces }) => {
                    self.check_size(size)?;
                    self.take_pieces(&range, pieces, progress).await?;
                }
            },
            Means::Chunks(chunks) => self.take_chunks(chunks, &range, progress).await?,
            Means::Whole => self.end(Wish::WholeOnly),
        }
        self.adopt_if_complete().await
    }

    /// Asks for a range with its proof.
    async fn ask(&self, range: &Range<u64>) -> Result<Option<Proven>> {
        let began = Instant::now();
        let answer = self.far.read_proven(&self.digest, range.clone()).await;
        self.latency.note(began.elapsed());
        answer
    }

    /// Nothing more is fetched.
    pub(super) fn end(&self, wish: Wish) {
        self.state.lock().end = Some(wish);
    }

    fn check_size(&self, size: u64) -> Result<()> {
        if size == self.size {
            return Ok(());
        }
        let what = format!("blob {} has {size} bytes there, not {}", self.digest, self.size);
        Err(Error::corrupt("the far store", what))
    }

    /// Takes the pieces of a range, which have been checked.
    pub(in super::super) async fn take_pieces(
        &self,
        range: &Range<u64>,
        mut pieces: ProvenStream,
        progress: &watch::Sender<Progress>,
    ) -> Result<()> {
        let tree = self.partial.tree();
        let mut places = PieceCheck::of_checked(&self.digest, tree, tree.groups_of(range));
        while !places.left().is_empty() {
            let Some(piece) = pieces.next().await.transpose()? else {
                let what = format!("a range of blob {} ended too early", self.digest);
                return Err(Error::corrupt("the far store", what));
            };
            let mut nodes: Vec<(u64, TreeNode)> = Vec::new();
            let placed = places.take(&piece.nodes, &piece.data, |at, node| nodes.push((at, *node)));
            let bytes = tree.bytes_of(&placed.map_err(|error| {
                Error::corrupt("the far store", format!("a range of blob {}: {error}", self.digest))
            })?);
            if let Err(error) = self.partial.write(bytes.start, &piece.data, &nodes) {
                self.refuse(&error);
                return Ok(());
            }
            progress.send_replace(Progress::At(bytes.end));
        }
        Ok(())
    }

    pub(super) fn refuse(&self, error: &Error) {
        tracing::warn!(
            event = event::CACHE_FAILED,
            digest = %self.digest,
            %error,
            "going on without the cache"
        );
        self.end(Wish::NoRoom);
    }

    /// Finds out how a blob can be had of which no range is proven.
    async fn find_means(&self) -> Result<()> {
        let chunks = match self.trust.believes_chunks() {
            true => match self.far.chunks_sized(&self.digest, self.size).await? {
                Some(chunks) => chunks,
                None => {
                    self.end(Wish::Absent);
                    return Ok(());
                }
            },
            false => ChunkList::default(),
        };
        let is_usable =
            !chunks.is_empty() && chunks.chunks().iter().all(|chunk| chunk.size <= CHUNK_LEN_MAX);
        if !is_usable {
            self.end(Wish::WholeOnly);
            self.state.lock().means = Means::Whole;
            return Ok(());
        }
        self.check_size(chunks.blob_size())?;
        self.state.lock().means = Means::Chunks(Arc::new(chunks));
        Ok(())
    }

    /// What came by proven ranges needs no look at the whole.
    pub(super) async fn adopt_if_complete(self: &Arc<Self>) -> Result<()> {
        if !self.is_proven() || self.is_adopted() {
            return Ok(());
        }
        let all = 0..self.size;
        let len = |ranges: Vec<Range<u64>>| ranges.iter().map(|r| r.end - r.start).sum::<u64>();
        let unchecked = len(self.partial.unchecked(&all));
        // If it may be whole, what an earlier process left is looked at.
        if unchecked > 0 && len(self.partial.gaps(&all)) == unchecked {
            let this = self.clone();
            offload("the cache", move || {
                this.partial.check(&(0..this.size));
                Ok(())
            })
            .await?;
        }
        if self.partial.is_complete() {
            self.adopt(None);
        }
        Ok(())
    }

    pub(super) fn adopt(&self, hashed: Option<&Outboard>) {
        let mut state = self.state.lock();
        if state.is_adopted {
            return;
        }
        match self.partial.adopt(hashed) {
            Ok(()) => state.is_adopted = true,
            Err(error) => {
                tracing::warn!(
                    event = event::CACHE_FAILED,
                    digest = %self.digest,
                    %error,
                    "the cache does not take a blob"
                )
            }
        }
    }
}
