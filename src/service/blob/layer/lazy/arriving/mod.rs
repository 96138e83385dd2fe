//! A blob of which parts are fetched as they are wanted.
//!
//! Lock order: `State`, then `is_fooled`, then the locks of the [`Partial`].

mod by_chunks;
mod transfer;

use std::{ops::Range, sync::Arc};

use parking_lot::Mutex;
use tokio::{runtime::Handle, sync::watch};

use by_chunks::whole_chunks;
pub(super) use by_chunks::{CHUNKS_AT_ONCE_MAX, chunks_of};

use super::{
    fetch::asking_others,
    flight::{Flight, Progress, Seat},
    read_ahead::{Latency, Runs},
};
use crate::{
    castore::{ChunkList, Digest},
    observe::{
        event,
        span::carried,
        spent::{self, Phase},
    },
    service::{Error, Result, blob::BlobService, local::Partial, range_set::RangeSet},
};

/// How often a wish is begun again whose flights ended without it: those who shared them may have given them up.
const ROUNDS_MAX: usize = 64;

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
        for round in 0..ROUNDS_MAX {
            if self.partial.has(range) {
                self.fetch_ahead(range.end..end);
                return Ok(Wish::Here);
            }
            if let Some(wish) = self.state.lock().end {
                return Ok(wish);
            }
            // What is wanted and what is fetched ahead come in one request.
            let until = if round == 0 { end.max(range.end) } else { range.end };
            for seat in self.board(range, until) {
                spent::on(Phase::Remote, seat.wait()).await?;
            }
        }
        let what = format!("bytes {range:?} of blob {} came and are not here", self.digest);
        Err(Error::unavailable("the cache", what))
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
            let nobody = gap.start;
            self.take_off(&mut state, gap, nobody);
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
                self.take_off(&mut state, gap, wanted.end);
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
        match means {
            Means::Proven | Means::Whole => self.partial.check(range),
            Means::Chunks(chunks) => self.check_chunks(chunks, range),
        }
    }

    /// The whole groups or chunks that `range`, which is not empty, touches.
    fn align(&self, means: &Means, range: &Range<u64>) -> Range<u64> {
        match means {
            Means::Proven | Means::Whole => {
                let tree = self.partial.tree();
                tree.bytes_of(&tree.groups_of(range))
            }
            Means::Chunks(chunks) => whole_chunks(chunks, range),
        }
    }

    /// Starts a request for `range`, which nothing under way will bring. What lies behind `wanted_until` is fetched ahead.
    fn take_off(self: &Arc<Self>, state: &mut State, range: Range<u64>, wanted_until: u64) {
        let (sender, progress) = watch::channel(Progress::At(range.start));
        let number = state.flights_begun;
        state.flights_begun += 1;
        let means = state.means.clone();
        let landing = Landing { arriving: self.clone(), number };
        let flown = range.clone();
        let task = self.runtime.spawn(carried(async move {
            let arriving = landing.arriving.clone();
            let fly = || arriving.fly(&means, flown.clone(), &sender);
            let result = asking_others(&*arriving.far, fly).await;
            if let Err(error @ Error::Corrupt { .. }) = &result {
                tracing::error!(
                    event = event::CORRUPT,
                    digest = %arriving.digest,
                    %error,
                    "a blob is not what it should be"
                );
            }
            // Whoever hears of the end must not find the flight any more.
            drop(landing);
            sender.send_replace(Progress::Ended(result));
        }));
        let task = Some(task.abort_handle());
        state.flights.push(Flight { number, range, wanted_until, waiting: 0, progress, task });
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
            if let Some(task) = &flight.task {
                task.abort();
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
