//! Where a blob that is not near comes from.

use std::{
    num::NonZeroUsize,
    ops::Range,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
};

use bytes::Bytes;
use futures::{StreamExt as _, stream};
use lru::LruCache;
use parking_lot::Mutex;
use tokio::{runtime::Handle, sync::watch};

use super::{
    LazyOptions, Verify,
    arriving::{Arriving, Trust, Wish},
    by_chunks::read_chunks,
    flight::Progress,
    lent::Loans,
    pieces::{counted, cut, step},
    read_ahead::Latency,
    warn_near,
};
use crate::{
    castore::{
        Digest,
        outboard::{PIECE_GROUPS_MAX, RangeWalk, Tree},
    },
    observe::{
        event,
        spent::{self, Phase},
        tally::Reason,
    },
    service::{
        Error, Result,
        blob::{BlobService, BlobStream, Proven, pieces_of, read_all},
        local::LocalStore,
        sharded_lru::ShardedLru,
        single_flight::SingleFlight,
    },
};

/// How many blobs are kept open while they arrive: two files each.
const ARRIVING_MAX: NonZeroUsize = NonZeroUsize::new(128).expect("it is not zero");

/// Of how many blobs the length is remembered, which the far store had to be asked for.
const SIZES_MAX: usize = 4096;

/// The layer's own.
#[derive(Debug)]
pub(super) struct Inner {
    pub(super) near: Option<Arc<dyn BlobService>>,
    /// Where what arrives is put.
    pub(super) partials: Option<Arc<LocalStore>>,
    pub(super) far: Arc<dyn BlobService>,
    pub(super) options: LazyOptions,
    pub(super) trust: Arc<Believer>,
    arriving: Mutex<LruCache<(Digest, u64), Arc<Arriving>>>,
    sizes: ShardedLru<Digest, u64>,
    short: SingleFlight<Digest, Option<Bytes>>,
    copies: SingleFlight<Digest, Copied>,
    latency: Arc<Latency>,
    pub(super) loans: Loans,
    runtime: Handle,
}

/// Believes lists of chunks until one is wrong.
#[derive(Debug)]
pub(super) struct Believer(AtomicBool);

impl Trust for Believer {
    fn believes_chunks(&self) -> bool {
        self.0.load(Relaxed)
    }

    fn was_fooled(&self) {
        self.0.store(false, Relaxed);
    }
}

/// How an attempt to copy a blob near ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Copied {
    /// It is near now.
    Near,
    /// It is not far either.
    Absent,
    /// The near store would not take it.
    Refused,
}

/// What a first question for a blob of unknown length has told.
pub(super) enum Learnt {
    Absent,
    /// How long it is said to be.
    Size(u64),
    /// All of it.
    Contents(Bytes),
    /// No range of it is proven.
    Unproven,
}

impl Inner {
    pub(super) fn new(
        near: Option<Arc<dyn BlobService>>,
        partials: Option<Arc<LocalStore>>,
        far: Arc<dyn BlobService>,
        options: LazyOptions,
    ) -> Self {
        Inner {
            near,
            partials,
            far,
            options,
            trust: Arc::new(Believer(AtomicBool::new(options.verify == Verify::Source))),
            arriving: Mutex::new(LruCache::new(ARRIVING_MAX)),
            sizes: ShardedLru::new(SIZES_MAX),
            short: SingleFlight::default(),
            copies: SingleFlight::default(),
            latency: Arc::default(),
            loans: Loans::default(),
            runtime: Handle::current(),
        }
    }

    /// What the near store has; nothing if it fails.
    pub(super) async fn read_near(&self, digest: &Digest, range: Range<u64>) -> Option<BlobStream> {
        let answer = self.near.as_ref()?.read(digest, range).await;
        answer.unwrap_or_else(|error| {
            tracing::warn!(
                event = event::CACHE_FAILED,
                %digest,
                %error,
                "the near store cannot read a blob"
            );
            None
        })
    }

    /// What is known of a blob that is arriving. Nothing once all of it has.
    pub(super) fn known(&self, digest: &Digest, size: u64) -> Option<Arc<Arriving>> {
        let mut arriving = self.arriving.lock();
        let known = arriving.get(&(*digest, size))?.clone();
        if known.is_adopted() {
            arriving.pop(&(*digest, size));
            return None;
        }
        Some(known)
    }

    /// Begins to fetch parts of a blob, if there is a place to put them.
    pub(super) fn begin(&self, digest: &Digest, size: u64) -> Option<Arc<Arriving>> {
        if let Some(known) = self.known(digest, size) {
            return Some(known);
        }
        let store = self.partials.as_ref()?;
        if let Err(error) = store.check_len(size) {
            tracing::debug!(%digest, %error, "going on without the cache");
            return None;
        }
        let mut arriving = self.arriving.lock();
        // Another may have been first. Two must not open the same partial.
        if let Some(known) = arriving.get(&(*digest, size)) {
            return Some(known.clone());
        }
        let partial = store
            .open_partial(digest, size)
            .inspect_err(|error| {
                tracing::warn!(
                    event = event::CACHE_FAILED,
                    %digest,
                    %error,
                    "going on without the cache"
                )
            })
            .ok()?;
        let (far, trust, latency) = (self.far.clone(), self.trust.clone(), self.latency.clone());
        let begun = Arc::new(Arriving::new(partial, far, trust, latency, self.runtime.clone()));
        arriving.put((*digest, size), begun.clone());
        Some(begun)
    }

    /// A blob that is not near and is fetched in parts.
    pub(super) async fn read_parts(
        self: &Arc<Self>,
        digest: &Digest,
        size: u64,
        range: Range<u64>,
    ) -> Result<Option<BlobStream>> {
        let range = range.start.min(size)..range.end.min(size);
        if range.is_empty() {
            return Ok(self.far.has(digest).await?.then(|| stream::empty().boxed()));
        }
        let Some(arriving) = self.begin(digest, size) else {
            return self.read_past(digest, size, range).await;
        };
        let first = step(&range);
        match arriving.want(&first).await? {
            Wish::Here => {}
            Wish::Absent => {
                self.forget(&arriving);
                return Ok(None);
            }
            Wish::NoRoom => {
                self.forget(&arriving);
                self.forget_idle();
                return self.read_past(digest, size, range).await;
            }
            Wish::WholeOnly => {
                self.forget(&arriving);
                arriving.partial.discard();
                return self.read_copied(digest, range).await;
            }
        }
        let rest = first.end..range.end;
        let first = spent::here(Phase::Disk, || arriving.partial.read(&first));
        let state = (self.clone(), arriving, rest);
        let rest = stream::unfold(Some(state), |state| async move {
            let (this, arriving, left) = state?;
            if left.is_empty() {
                return None;
            }
            let now = step(&left);
            let piece = match arriving.want(&now).await {
                Ok(Wish::Here) => spent::here(Phase::Disk, || arriving.partial.read(&now)),
                Ok(wish) => this.read_otherwise(wish, &arriving, &now).await,
                Err(error) => Err(error),
            };
            let goes_on = piece.is_ok();
            Some((piece, goes_on.then_some((this, arriving, now.end..left.end))))
        });
        Ok(Some(stream::iter([first]).chain(rest).boxed()))
    }

    /// A step of a stream that has begun, after its parts can be had no longer.
    async fn read_otherwise(
        self: &Arc<Self>,
        wish: Wish,
        arriving: &Arc<Arriving>,
        range: &Range<u64>,
    ) -> Result<Bytes> {
        let digest = arriving.digest();
        self.forget(arriving);
        let found = match wish {
            Wish::Here | Wish::NoRoom => {
                self.read_past(digest, arriving.size(), range.clone()).await?
            }
            Wish::WholeOnly => self.read_copied(digest, range.clone()).await?,
            Wish::Absent => None,
        };
        let gone = || Error::unavailable("the far store", format!("blob {digest} is gone"));
        let mut pieces = found.ok_or_else(gone)?;
        let mut all = Vec::new();
        while let Some(piece) = pieces.next().await {
            all.extend_from_slice(&piece?);
        }
        Ok(all.into())
    }

    /// What cannot be fetched in parts any more is begun anew by the next who wants it.
    fn forget(&self, arriving: &Arc<Arriving>) {
        let key = (*arriving.digest(), arriving.size());
        let mut all = self.arriving.lock();
        if all.peek(&key).is_some_and(|known| Arc::ptr_eq(known, arriving)) {
            all.pop(&key);
        }
    }

    /// Lets go of what nobody reads at the moment: the cache may remove nothing that is held.
    fn forget_idle(&self) {
        let mut all = self.arriving.lock();
        let idle = all.iter().filter(|(_, arriving)| Arc::strong_count(arriving) == 1);
        let idle: Vec<_> = idle.map(|(key, _)| *key).collect();
        for key in idle {
            all.pop(&key);
        }
    }

    /// A range that is not kept.
    async fn read_past(
        &self,
        digest: &Digest,
        size: u64,
        range: Range<u64>,
    ) -> Result<Option<BlobStream>> {
        match self.far.read_proven(digest, range.clone()).await? {
            None => Ok(None),
            Some(Proven::Lacking) => self.read_unproven(digest, size, range).await,
            Some(Proven::Range { size, pieces }) => Ok(Some(counted(cut(size, range, pieces)))),
        }
    }

    /// A range that is not kept, of a blob that proves nothing: from the chunks that it touches, if their list is believed.
    async fn read_unproven(
        &self,
        digest: &Digest,
        size: u64,
        range: Range<u64>,
    ) -> Result<Option<BlobStream>> {
        // What is read whole is checked as a whole.
        let is_whole = range.start == 0 && range.end >= size;
        if !is_whole
            && self.trust.believes_chunks()
            && let Some(chunks) = self.far.chunks_sized(digest, size).await?
            && chunks.blob_size() == size
        {
            return Ok(Some(counted(read_chunks(self.far.clone(), chunks, range))));
        }
        Ok(self.far.read_sized(digest, size, range).await?.map(counted))
    }

    /// A blob that is copied near before any of it is read.
    pub(super) async fn read_copied(
        self: &Arc<Self>,
        digest: &Digest,
        range: Range<u64>,
    ) -> Result<Option<BlobStream>> {
        let (this, digest) = (self.clone(), *digest);
        let copy = || async move { asking_others(&*this.far, || this.copy(digest)).await };
        let copied = spent::on(Phase::Remote, self.copies.run(digest, copy)).await?;
        match copied {
            Copied::Absent => return Ok(None),
            Copied::Near => {
                if let Some(stream) = self.read_near(&digest, range.clone()).await {
                    return Ok(Some(stream));
                }
            }
            Copied::Refused => {}
        }
        Ok(self.far.read(&digest, range).await?.map(counted))
    }

    /// Copies a blob near, if it is far.
    async fn copy(&self, digest: Digest) -> Result<Copied> {
        let Some(near) = &self.near else { return Ok(Copied::Refused) };
        // Another may have brought it since this reader looked.
        if warn_near(near.has(&digest).await) == Some(true) {
            return Ok(Copied::Near);
        }
        let Some(mut pieces) = self.far.read(&digest, 0..u64::MAX).await? else {
            return Ok(Copied::Absent);
        };
        let Some(mut writer) = warn_near(near.writer().await) else { return Ok(Copied::Refused) };
        while let Some(piece) = pieces.next().await.transpose()? {
            Reason::Read.fetched(piece.len() as u64);
            if warn_near(writer.write(piece).await).is_none() {
                return Ok(Copied::Refused);
            }
        }
        match warn_near(writer.finish().await) {
            None => Ok(Copied::Refused),
            Some((got, _)) if got == digest => Ok(Copied::Near),
            Some((got, _)) => {
                let what = format!("asked for blob {digest}, got the contents of {got}");
                Err(Error::corrupt("the far store", what))
            }
        }
    }

    /// A short blob, whole.
    pub(super) async fn read_short(
        self: &Arc<Self>,
        digest: &Digest,
        len_max: u64,
        range: Range<u64>,
    ) -> Result<Option<BlobStream>> {
        let (this, digest, reason) = (self.clone(), *digest, Reason::of_this_task());
        let fetch = || async move {
            // Another may have brought it since this reader looked.
            if let Some(near) = &this.near
                && let Some(Some(contents)) =
                    warn_near(read_all(&**near, &digest, len_max as usize).await)
            {
                return Ok(Some(contents));
            }
            let read = || read_all(&*this.far, &digest, len_max as usize);
            let contents = asking_others(&*this.far, read).await?;
            reason.fetched(contents.as_ref().map_or(0, Bytes::len) as u64);
            if let (Some(near), Some(contents)) = (&this.near, &contents) {
                warn_near(near.put(contents.clone()).await);
            }
            Ok(contents)
        };
        let contents = spent::on(Phase::Remote, self.short.run(digest, fetch)).await?;
        Ok(contents.map(|contents| pieces_of(&contents, &range)))
    }

    /// Asks for the beginning of `range` of a blob whose length is not known. What comes is kept.
    pub(super) async fn learn(&self, digest: &Digest, range: &Range<u64>) -> Result<Learnt> {
        if let Some(size) = self.sizes.get(digest) {
            return Ok(Learnt::Size(size));
        }
        let end = range.start.saturating_add(self.options.whole_len_max).min(range.end);
        let begin = range.start..end.max(range.start);
        let (size, mut pieces) = match self.far.read_proven(digest, begin.clone()).await? {
            None => return Ok(Learnt::Absent),
            Some(Proven::Lacking) => return self.learn_from_chunks(digest).await,
            Some(Proven::Range { size, pieces }) => (size, pieces),
        };
        if begin.start == 0 && size <= end {
            let mut contents = Vec::with_capacity(size as usize);
            while let Some(piece) = pieces.next().await {
                contents.extend_from_slice(&piece?.data);
            }
            let contents = Bytes::from(contents);
            Reason::Read.fetched(contents.len() as u64);
            if let Some(near) = &self.near {
                warn_near(near.put(contents.clone()).await);
            }
            return Ok(Learnt::Contents(contents));
        }
        if size > self.options.whole_len_max
            && let Some(arriving) = self.begin(digest, size)
        {
            let (progress, _) = watch::channel(Progress::At(begin.start));
            arriving.take_pieces(&begin, pieces, &progress).await?;
            Reason::Read.fetched(begin.end.min(size).saturating_sub(begin.start));
        }
        self.sizes.insert(*digest, size, 1);
        Ok(Learnt::Size(size))
    }

    /// The length of a blob that proves nothing, if its list of chunks is believed and tells one.
    async fn learn_from_chunks(&self, digest: &Digest) -> Result<Learnt> {
        if !self.trust.believes_chunks() {
            return Ok(Learnt::Unproven);
        }
        match self.far.chunks(digest).await? {
            None => Ok(Learnt::Absent),
            Some(chunks) if chunks.is_empty() => Ok(Learnt::Unproven),
            Some(chunks) => {
                self.sizes.insert(*digest, chunks.blob_size(), 1);
                Ok(Learnt::Size(chunks.blob_size()))
            }
        }
    }

    /// Ranges of a blob that is arriving, with their proof, as they come.
    pub(super) fn prove_arriving(
        self: &Arc<Self>,
        arriving: Arc<Arriving>,
        range: &Range<u64>,
    ) -> Proven {
        let (digest, size) = (*arriving.digest(), arriving.size());
        let tree = Tree::new(size);
        let walk = RangeWalk::new(&digest, tree, tree.groups_of(range));
        let state = Some((self.clone(), arriving, walk));
        let pieces = stream::unfold(state, move |state| async move {
            let (this, arriving, mut walk) = state?;
            let groups = walk.next_groups(PIECE_GROUPS_MAX);
            if groups.is_empty() {
                return None;
            }
            let piece = match arriving.want(&tree.bytes_of(&groups)).await {
                Ok(Wish::Here) => arriving.partial.prove(&mut walk, groups.end),
                Ok(wish) => {
                    this.forget(&arriving);
                    let what = format!("blob {digest} cannot be fetched in parts: {wish:?}");
                    Err(Error::unavailable("the cache", what))
                }
                Err(error) => Err(error),
            };
            let goes_on = piece.is_ok();
            Some((piece, goes_on.then_some((this, arriving, walk))))
        });
        Proven::Range { size, pieces: pieces.boxed() }
    }
}

/// How often something is asked for where one after the other has sent something wrong.
const LIARS_MAX: usize = 4;

/// The outcome of `ask`, which is asked again where something wrong was sent and `far` has others to ask.
pub(super) async fn asking_others<T, F: Future<Output = Result<T>>>(
    far: &dyn BlobService,
    ask: impl Fn() -> F,
) -> Result<T> {
    for _ in 1..LIARS_MAX {
        match ask().await {
            Err(error @ Error::Corrupt { .. }) if far.has_others() => {
                tracing::error!(event = event::CORRUPT, %error, "another is asked");
            }
            outcome => return outcome,
        }
    }
    ask().await
}
