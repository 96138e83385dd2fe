//! A blob of which parts are fetched as they are wanted.
//!
//! Lock order: `State`, then `is_fooled`, then the locks of the [`Partial`].

use std::{ops::Range, sync::Arc, time::Instant};

use futures::{StreamExt as _, TryStreamExt as _, stream};
use parking_lot::Mutex;
use tokio::{runtime::Handle, sync::watch};

use super::{
    flight::{Flight, Progress, Seat},
    read_ahead::{Latency, Runs},
};
use crate::{
    castore::{
        Chunk, ChunkList, Digest,
        outboard::{Outboard, PieceCheck, TreeNode},
    },
    service::{
        Error, Result,
        blob::{BlobService, Proven, ProvenStream, read_all},
        local::{Partial, offload},
        range_set::RangeSet,
    },
};

/// How many chunks of a blob are fetched at once for one stretch of it.
const CHUNKS_AT_ONCE_MAX: usize = 8;

/// The longest chunk that is fetched as one, in bytes. A list with a longer one is of no use.
const CHUNK_LEN_MAX: u64 = 8 << 20;

/// How parts of the blob can be had.
#[derive(Debug, Clone)]
pub(super) enum Means {
    /// By ranges that prove themselves. Taken for granted until the far store says otherwise.
    Proven,
    /// By chunks, on the word of the far store; the whole is checked at the end.
    Chunks(Arc<ChunkList>),
    /// Not at all: only whole.
    Whole,
}

/// How a wish for a range ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Wish {
    /// All of it is here.
    Here,
    /// The far store does not have the blob.
    Absent,
    /// There is no place here to put it.
    NoRoom,
    /// The blob can be had whole only.
    WholeOnly,
}

/// Who believes lists of chunks.
pub(super) trait Trust: Send + Sync + std::fmt::Debug {
    /// Whether one may be believed.
    fn believes_chunks(&self) -> bool;
    /// Takes note that one was a lie.
    fn was_fooled(&self);
}

/// One blob, its parts that are here, and what is under way of it.
#[derive(Debug)]
pub(super) struct Arriving {
    digest: Digest,
    size: u64,
    pub(super) partial: Partial,
    far: Arc<dyn BlobService>,
    trust: Arc<dyn Trust>,
    latency: Arc<Latency>,
    runtime: Handle,
    state: Mutex<State>,
    /// Held while it is decided which chunk is the last one. Whether the chunks turned out to be another blob.
    is_fooled: Mutex<bool>,
}

#[derive(Debug)]
struct State {
    flights: Vec<Flight>,
    flights_begun: u64,
    runs: Runs,
    means: Means,
    /// Why nothing is fetched any more.
    end: Option<Wish>,
    /// Whether it is a blob of the near store now.
    is_adopted: bool,
}

impl Arriving {
    pub(super) fn new(
        partial: Partial,
        far: Arc<dyn BlobService>,
        trust: Arc<dyn Trust>,
        latency: Arc<Latency>,
        runtime: Handle,
    ) -> Self {
        let state = State {
            flights: Vec::new(),
            flights_begun: 0,
            runs: Runs::default(),
            means: Means::Proven,
            end: None,
            is_adopted: false,
        };
        let (digest, size) = (*partial.digest(), partial.tree().size());
        let (state, is_fooled) = (Mutex::new(state), Mutex::new(false));
        Arriving { digest, size, partial, far, trust, latency, runtime, state, is_fooled }
    }

    /// The blob.
    pub(super) fn digest(&self) -> &Digest {
        &self.digest
    }

    /// The length of the blob in bytes, as it is said to be until its last part is here.
    pub(super) fn size(&self) -> u64 {
        self.size
    }

    /// Whether the near store has it now.
    pub(super) fn is_adopted(&self) -> bool {
        self.state.lock().is_adopted
    }

    /// Whether its parts prove themselves, as far as is known.
    pub(super) fn is_proven(&self) -> bool {
        matches!(self.state.lock().means, Means::Proven)
    }

    /// Takes note of a read of what is here already, which may be worth fetching more ahead.
    pub(super) fn note(self: &Arc<Self>, range: &Range<u64>) {
        if self.is_adopted() {
            return;
        }
        let end = self.state.lock().runs.note(range, self.latency.is_far()).min(self.size);
        self.fetch_ahead(range.end..end);
    }

    /// Sees to it that `range` is here. What is fetched for it is shared with all who want some of it at the same time,
    /// and given up when all of them are dropped.
    pub(super) async fn want(self: &Arc<Self>, range: &Range<u64>) -> Result<Wish> {
        let end = self.state.lock().runs.note(range, self.latency.is_far()).min(self.size);
        let mut is_first = true;
        loop {
            if self.partial.has(range) {
                self.fetch_ahead(range.end..end);
                return Ok(Wish::Here);
            }
            if let Some(wish) = self.state.lock().end {
                return Ok(wish);
            }
            // What is wanted and what is fetched ahead come in one request.
            let until = if is_first { end.max(range.end) } else { range.end };
            is_first = false;
            for seat in self.board(range, until) {
                seat.wait().await?;
            }
        }
    }

    /// Fetches ahead once less than half of that is here or under way.
    fn fetch_ahead(self: &Arc<Self>, ahead: Range<u64>) {
        if ahead.is_empty() || self.partial.has(&ahead) {
            return;
        }
        let half = ahead.start..ahead.start + (ahead.end - ahead.start).div_ceil(2);
        let mut state = self.state.lock();
        if state.end.is_some() || state.missing(&self.partial, &half).is_empty() {
            return;
        }
        let ahead = self.align(&state.means, &ahead);
        self.check(&state.means, &ahead);
        for gap in state.missing(&self.partial, &ahead) {
            self.take_off(&mut state, gap);
        }
    }

    /// Finds or starts what brings `range`; what is started goes on up to `until`.
    fn board(self: &Arc<Self>, range: &Range<u64>, until: u64) -> Vec<Seat> {
        let mut state = self.state.lock();
        let wanted = self.align(&state.means, range);
        let all = self.align(&state.means, &(range.start..until));
        self.check(&state.means, &all);
        // The last gap may reach beyond what is wanted.
        for gap in state.missing(&self.partial, &all) {
            if gap.start < wanted.end {
                self.take_off(&mut state, gap);
            }
        }
        let mut seats = Vec::new();
        for gap in self.partial.gaps(&wanted) {
            for flight in &mut state.flights {
                let ahead = flight.ahead();
                if ahead.start.max(gap.start) < ahead.end.min(gap.end) {
                    flight.waiting += 1;
                    seats.push(Seat::new(self.clone(), flight, ahead.end.min(gap.end)));
                }
            }
        }
        seats
    }

    /// Looks at what an earlier process left of `range`.
    fn check(&self, means: &Means, range: &Range<u64>) {
        let Means::Chunks(chunks) = means else { return self.partial.check(range) };
        for part in self.partial.unchecked(range) {
            for (start, chunk) in chunks_of(chunks, &part) {
                let place = start..start + chunk.size;
                let read = self.partial.read(&place);
                let is_right = read.is_ok_and(|read| Digest::of(&read) == chunk.digest);
                self.settle_chunk(&place, is_right);
            }
        }
    }

    /// The whole groups or chunks that `range`, which is not empty, touches.
    fn align(&self, means: &Means, range: &Range<u64>) -> Range<u64> {
        match means {
            Means::Proven | Means::Whole => {
                let tree = self.partial.tree();
                tree.bytes_of(&tree.groups_of(range))
            }
            Means::Chunks(chunks) => {
                let start = chunks.at(range.start).map_or(range.start, |(start, _)| start);
                let last = chunks.at(range.end.saturating_sub(1));
                start..last.map_or(range.end, |(start, chunk)| start + chunk.size)
            }
        }
    }

    /// Starts a request for `range`, which nothing under way will bring.
    fn take_off(self: &Arc<Self>, state: &mut State, range: Range<u64>) {
        let (sender, progress) = watch::channel(Progress::At(range.start));
        let number = state.flights_begun;
        state.flights_begun += 1;
        let means = state.means.clone();
        let landing = Landing { arriving: self.clone(), number };
        let flown = range.clone();
        let task = self.runtime.spawn(async move {
            let arriving = landing.arriving.clone();
            let result = arriving.fly(&means, flown, &sender).await;
            if let Err(error @ Error::Corrupt { .. }) = &result {
                tracing::error!(digest = %arriving.digest, %error, "a blob is not what it should be");
            }
            // Whoever hears of the end must not find the flight any more.
            drop(landing);
            sender.send_replace(Progress::Ended(result));
        });
        let task = Some(task.abort_handle());
        state.flights.push(Flight { number, range, waiting: 0, progress, task });
    }

    /// Takes back a seat.
    pub(super) fn leave(&self, number: u64, is_satisfied: bool) {
        let mut state = self.state.lock();
        let Some(index) = state.flights.iter().position(|flight| flight.number == number) else {
            return;
        };
        let flight = &mut state.flights[index];
        flight.waiting -= 1;
        // What is fetched for nobody goes on if somebody has read what came before it.
        if flight.waiting == 0 && !is_satisfied {
            let flight = state.flights.remove(index);
            drop(state);
            if let Some(task) = flight.task {
                task.abort();
            }
        }
    }

    /// Brings `range` here.
    async fn fly(
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
    fn end(&self, wish: Wish) {
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
    pub(super) async fn take_pieces(
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

    fn refuse(&self, error: &Error) {
        tracing::warn!(digest = %self.digest, %error, "going on without the cache");
        self.end(Wish::NoRoom);
    }

    /// Finds out how a blob can be had of which no range is proven.
    async fn find_means(&self) -> Result<()> {
        let chunks = match self.trust.believes_chunks() {
            true => match self.far.chunks(&self.digest).await? {
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

    /// Brings chunks, several at once, and takes them in their order.
    async fn take_chunks(
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
            async move {
                let contents = read_all(&*far, &chunk.digest, chunk.size as usize).await?;
                let contents = contents.filter(|contents| contents.len() as u64 == chunk.size);
                let what = || format!("chunk {} of a blob is not as it was listed", chunk.digest);
                let contents = contents.ok_or_else(|| Error::corrupt("the far store", what()))?;
                Ok::<_, Error>((start, contents))
            }
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

    /// What came by proven ranges needs no look at the whole.
    async fn adopt_if_complete(self: &Arc<Self>) -> Result<()> {
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

    fn adopt(&self, hashed: Option<&Outboard>) {
        let mut state = self.state.lock();
        if state.is_adopted {
            return;
        }
        match self.partial.adopt(hashed) {
            Ok(()) => state.is_adopted = true,
            Err(error) => {
                tracing::warn!(digest = %self.digest, %error, "the cache does not take a blob")
            }
        }
    }
}

impl State {
    /// What of `range` is neither here nor under way.
    fn missing(&self, partial: &Partial, range: &Range<u64>) -> Vec<Range<u64>> {
        let mut missing = RangeSet::default();
        for gap in partial.gaps(range) {
            missing.insert(gap);
        }
        for flight in &self.flights {
            missing.remove(&flight.ahead());
        }
        missing.within(range)
    }
}

/// The chunks that `range` touches, each with where it begins.
fn chunks_of<'a>(
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

/// Takes a flight out of the list when it is over, however it ended.
struct Landing {
    arriving: Arc<Arriving>,
    number: u64,
}

impl Drop for Landing {
    fn drop(&mut self) {
        let mut state = self.arriving.state.lock();
        state.flights.retain(|flight| flight.number != self.number);
    }
}
