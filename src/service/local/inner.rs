//! The parts of a store directory, and what a cache does with all of them.

use std::{
    fs::File,
    io,
    sync::Arc,
    time::{Duration, Instant},
};

use parking_lot::Mutex;

use super::{
    BlobFiles, Database, Packs, Partials, ReserveError,
    cache::Cache,
    evict::{CANDIDATES_MAX, Candidate, candidates, forget_files},
    pins::is_pinned,
    stamp::Stamp,
    sweep::{Sweeper, Swept},
};
use crate::{
    castore::Digest,
    observe::{
        self, names,
        tally::{Evicted, freed},
    },
    service::{
        Error, Result,
        blob::{LocalBlob, LocalPlace},
        sharded_lru::ShardedLru,
    },
};

/// How many blobs are kept open, or their places in packs known.
const OPENED_MAX: usize = 256;

/// Above this part of its bound a cache is emptied, in percent of it.
const FILLING_PERCENT: u64 = 95;

/// Down to this part.
const EVICT_TO_PERCENT: u64 = 90;

/// For how long nobody looks for something to evict where there was nothing.
const GIVE_UP_FOR: Duration = Duration::from_millis(50);

/// How much is evicted at least once the disk is full, in bytes.
const ROOM_ON_DISK_MIN: u64 = 2 << 20;

/// All that a store directory is.
#[derive(Debug)]
pub(super) struct Inner {
    pub(super) endpoint: Arc<str>,
    pub(super) blobs: BlobFiles,
    pub(super) packs: Packs,
    pub(super) partials: Partials,
    pub(super) database: Arc<Database>,
    pub(super) cache: Option<Arc<Cache>>,
    /// Blobs that were read last: those that are read in parts are found and opened once. Of a cache, with how the file
    /// looked when it was found to hold the blob.
    opened: ShardedLru<Digest, (LocalBlob, Option<Stamp>)>,
    /// One makes room at a time.
    evicting: Mutex<()>,
    /// Until when it is not tried again, since all that is left is in use.
    giving_up: Mutex<Option<Instant>>,
}

impl Inner {
    pub(super) fn new(
        endpoint: Arc<str>,
        blobs: BlobFiles,
        packs: Packs,
        partials: Partials,
        database: Arc<Database>,
        cache: Option<Arc<Cache>>,
    ) -> Self {
        let (opened, evicting) = (ShardedLru::new(OPENED_MAX), Mutex::default());
        Inner {
            endpoint,
            blobs,
            packs,
            partials,
            database,
            cache,
            opened,
            evicting,
            giving_up: Mutex::default(),
        }
    }

    /// Makes known how full a cache is, for as long as it is open.
    pub(super) fn tell(self: &Arc<Self>) {
        let inner = Arc::downgrade(self);
        observe::register(move |scrape| {
            let Some(inner) = inner.upgrade() else { return false };
            if let Some(cache) = &inner.cache {
                scrape.count(&names::CACHE_SIZE, &[], cache.bound.size_max());
                scrape.count(&names::CACHE_BYTES, &[], cache.bound.used().unwrap_or(0));
            }
            true
        });
    }

    fn failed(&self, error: impl Into<io::Error>) -> Error {
        Error::unavailable(&self.endpoint, error.into())
    }

    pub(super) fn open_blob(&self, digest: &Digest) -> Result<Option<LocalBlob>> {
        if let Some((blob, stamp)) = self.opened.get(digest) {
            let is_same = |stamp| Stamp::of_file(&blob.file).is_ok_and(|now| now == stamp);
            if stamp.is_none_or(is_same) {
                return Ok(Some(blob));
            }
            self.opened.remove(digest);
        }
        // Taken before the blob is looked at: what is changed while it is looked at is looked at again.
        let blob = match self.packs.open_blob(digest)? {
            Some(packed) => packed,
            None => {
                let Some(file) = self.blobs.open_blob(digest)? else { return Ok(None) };
                let size = file.metadata().map_err(|error| self.failed(error))?.len();
                LocalBlob { file: Arc::new(file), place: LocalPlace::Whole, size }
            }
        };
        let stamp = match &self.cache {
            Some(cache) => {
                let stamp = Stamp::of_file(&blob.file).map_err(|error| self.failed(error))?;
                if !cache.was_checked(digest, stamp) {
                    // It was changed in this very moment, or a pack was appended to.
                    return Ok(Some(blob));
                }
                Some(stamp)
            }
            None => None,
        };
        self.opened.insert(*digest, (blob.clone(), stamp), 1);
        Ok(Some(blob))
    }

    /// Takes a blob out that cannot be read.
    pub(super) fn reject_blob(&self, digest: &Digest) -> Result<()> {
        self.opened.remove(digest);
        self.blobs.remove_damaged(digest);
        self.packs.reject(digest)
    }

    /// Takes room for `bytes`; makes it, if there is none.
    pub(super) fn reserve(&self, cache: &Cache, bytes: u64) -> Result<()> {
        match cache.bound.reserve(bytes) {
            Err(error @ ReserveError::Full(_)) if self.is_giving_up() => {
                return Err(self.no_room(error));
            }
            Err(ReserveError::Full(_)) => {}
            result => return result.map_err(|error| self.no_room(error)),
        }
        self.evict()?;
        match cache.bound.reserve(bytes) {
            Err(ReserveError::Full(_)) => {}
            result => return result.map_err(|error| self.no_room(error)),
        }
        self.evict_staged()?;
        let reserved = cache.bound.reserve(bytes);
        if reserved.is_err() {
            *self.giving_up.lock() = Some(Instant::now() + GIVE_UP_FOR);
        }
        reserved.map_err(|error| self.no_room(error))
    }

    /// Evicts also of what only this process sees yet: it can go once it has its place.
    fn evict_staged(&self) -> Result<()> {
        self.blobs.publish_now()?;
        self.packs.sync()?;
        self.evict()
    }

    /// Makes room ahead of those who need it.
    pub(super) fn keep_room(&self) -> Result<()> {
        self.evict()?;
        match self.is_filling() {
            true => self.evict_staged(),
            false => Ok(()),
        }
    }

    /// Whether a moment ago all that is left was in use.
    fn is_giving_up(&self) -> bool {
        self.giving_up.lock().is_some_and(|until| Instant::now() < until)
    }

    fn no_room(&self, error: ReserveError) -> Error {
        match error {
            ReserveError::Full(full) => {
                let full = io::Error::new(io::ErrorKind::StorageFull, full);
                Error::unavailable(&self.endpoint, full)
            }
            ReserveError::Io(error) => self.failed(error),
        }
    }

    /// Whether the keeper has something to do.
    pub(super) fn is_filling(&self) -> bool {
        self.cache.as_ref().is_some_and(|cache| {
            let filling = cache.bound.size_max() / 100 * FILLING_PERCENT;
            cache.bound.used().is_ok_and(|used| used > filling) && !self.is_giving_up()
        })
    }

    /// Closes what is only kept open for those who may read it again, so that it can be evicted, by others too.
    pub(super) fn let_go(&self) {
        self.opened.clear();
        self.packs.let_go();
    }

    /// Brings what has arrived to disk and to where all see it, and writes what was used.
    pub(super) fn publish(&self) -> Result<()> {
        self.blobs.sync()?;
        self.packs.sync()?;
        self.cache.as_ref().map_or(Ok(()), |cache| cache.flush())
    }

    /// Measures what is there, and enters what nobody knows of.
    pub(super) fn measure(&self) -> Result<()> {
        let Some(cache) = &self.cache else { return Ok(()) };
        for shard in 0..=u8::MAX {
            cache.adopt(shard, || self.blobs.list(shard))?;
        }
        cache.bound.measure().map_err(|error| self.failed(error))
    }

    /// Takes out path infos and directories where they take too much of a cache.
    pub(super) fn sweep(&self, sweeper: &mut Sweeper) -> Result<()> {
        let Some(cache) = &self.cache else { return Ok(()) };
        let swept = sweeper.sweep_if_due(&self.database, cache.bound.size_max())?;
        Evicted::PathInfo.went(swept.path_infos as u64);
        Evicted::Directory.went(swept.directories as u64);
        if swept != Swept::default() {
            tracing::debug!(?swept, "took out of the cache what was asked for longest ago");
        }
        Ok(())
    }

    /// Makes the cache smaller where others have filled its disk.
    pub(super) fn make_room_on_disk(&self, cache: &Cache) -> Result<()> {
        let used = cache.bound.used().map_err(|error| self.failed(error))?;
        self.evict_to(cache, used.saturating_sub(used / 20 + ROOM_ON_DISK_MIN))
    }

    /// Evicts what was used longest ago until the cache is as small as it should be, or nothing is left that may go.
    pub(super) fn evict(&self) -> Result<()> {
        let Some(cache) = &self.cache else { return Ok(()) };
        self.evict_to(cache, cache.bound.size_max() / 100 * EVICT_TO_PERCENT)
    }

    /// The same, down to `target` bytes.
    pub(super) fn evict_to(&self, cache: &Cache, target: u64) -> Result<()> {
        let _one_at_a_time = self.evicting.lock();
        let mut used = cache.bound.used().map_err(|error| self.failed(error))?;
        if used <= target {
            return Ok(());
        }
        // On a disk that is full or broken this may fail, and room is needed all the more.
        if let Err(error) = cache.flush() {
            tracing::debug!(%error, "the last uses are not taken into account");
        }
        self.let_go();
        let (before, mut skipped) = (used, 0);
        let mut partials = self.partials.list().map_err(|error| self.failed(error))?;
        while used > target {
            let mut candidates = candidates(&self.database, skipped)?;
            let is_last = candidates.len() < CANDIDATES_MAX;
            // Those that come before the end of this page, or all that are left.
            let end = candidates.last().filter(|_| !is_last).map_or(i64::MAX, |(used, _)| *used);
            let rest = partials.partition_point(|(used, _)| *used <= end);
            let rest = partials.split_off(rest);
            let partials = std::mem::replace(&mut partials, rest);
            candidates.extend(partials.into_iter().map(|(used, n)| (used, Candidate::Partial(n))));
            candidates.sort_by_key(|(used, _)| *used);
            let batch = self.evict_some(&candidates, used - target)?;
            cache.bound.release(batch.freed);
            skipped += batch.in_use;
            if is_last {
                break;
            }
            used = cache.bound.used().map_err(|error| self.failed(error))?;
        }
        let after = cache.bound.used().map_err(|error| self.failed(error))?;
        tracing::debug!(before, after, target, in_use = skipped, "evicted from the cache");
        Ok(())
    }

    /// Evicts of the candidates, in their order, until `wanted` bytes are free.
    fn evict_some(&self, candidates: &[(i64, Candidate)], wanted: u64) -> Result<Batch> {
        let mut batch = Batch::default();
        let mut files = Vec::new();
        let mut packs: Vec<(u32, File)> = Vec::new();
        let mut locked = 0;
        for (_, candidate) in candidates {
            if batch.freed + locked >= wanted {
                break;
            }
            match candidate {
                Candidate::File(digest) => match self.blobs.evict(digest)? {
                    Some(len) => {
                        batch.freed += len;
                        files.push(*digest);
                    }
                    None => batch.in_use += 1,
                },
                Candidate::Pack(number) => match self.packs.lock_to_evict(*number)? {
                    Some(file) => {
                        locked += file.metadata().map_err(|error| self.failed(error))?.len();
                        packs.push((*number, file));
                    }
                    None => batch.in_use += 1,
                },
                // One that is in use is not in the way of the next page: it is no row.
                Candidate::Partial(names) => {
                    let digest = names.digest();
                    let pinned = digest.map(|digest| is_pinned(&self.database, &digest));
                    if pinned.transpose()? != Some(true) {
                        let freed = self.partials.evict(names);
                        let freed = freed.map_err(|error| self.failed(error))?;
                        Evicted::Partial.went(u64::from(freed > 0));
                        batch.freed += freed;
                    }
                }
            }
        }
        // A row without its file does no harm, and goes when the directory is measured.
        if let Err(error) = forget_files(&self.database, &files) {
            tracing::debug!(%error, "rows of what was evicted are left");
        }
        if !packs.is_empty() {
            batch.freed += self.packs.evict(&packs)?;
        }
        Evicted::File.went(files.len() as u64);
        Evicted::Pack.went(packs.len() as u64);
        freed(batch.freed);
        Ok(batch)
    }
}

/// What became of some candidates.
#[derive(Debug, Default)]
struct Batch {
    /// In bytes.
    freed: u64,
    /// How many rows could not go.
    in_use: usize,
}
