//! Small blobs, many to a file.
//!
//! A file of its own costs a small blob several times what its contents cost: an inode, a block, a rename, and at
//! every read a lookup and an open. So blobs of up to [`PACKED_LEN_MAX`] bytes lie one after another in *packs*, and a
//! table of the database tells where. A pack is only ever appended to, by the one process that holds its lock.
//!
//! What the table names was on disk before: [`Packs::sync`] brings the pack to disk and then commits the rows. What
//! lies behind the last blob that the table knows is the work of a process that has not got that far. If that process
//! is dead, whoever opens the store next enters what is whole and cuts off the rest; that is what the header before each
//! blob is for.

mod cached;
mod pack;

use std::{collections::HashMap, fs::File, io, os::fd::OwnedFd, path::Path, sync::Arc};

use parking_lot::{Mutex, RwLock};
use rusqlite::{Connection, OptionalExtension as _};
use rustix::{
    fs::{AtFlags, Dir, FlockOperation, Mode, OFlags, flock},
    io::Errno,
};

use self::cached::is_known_or_holds;
pub use self::pack::entry_len;
use self::pack::{Pack, Place, Readable, file_name, parse_file_name};
use super::{
    cache::{self, Cache},
    database::{Database, Durability},
    stamp::Stamp,
};
use crate::{
    castore::Digest,
    observe::event,
    service::{
        Error, Result,
        blob::{LocalBlob, ReadOnce},
        sharded_lru::ShardedLru,
    },
};

/// Blobs of up to this many bytes are packed. Longer ones gain little from it, and lose that the kernel can read a
/// file of their own without us.
pub const PACKED_LEN_MAX: usize = 64 << 10;

/// A pack of a store that is longer takes no more blobs, in bytes.
const PACK_LEN_MAX: u64 = 256 << 20;

/// How long a pack of a cache gets, in bytes. It is evicted whole: so it is a small part of the cache, if it can be.
const CACHE_PACK_LEN_MAX: std::ops::RangeInclusive<u64> = 1 << 20..=16 << 20;
const CACHE_PACKS: u64 = 256;

/// How many staged blobs make [`Packs::is_sync_due`]: what is remembered of them takes some 8 MB.
const STAGED_BLOBS_MAX: usize = 100_000;

/// How many packs are kept open for reading.
const OPEN_PACKS_MAX: usize = 128;

/// How many places of blobs that may be read next are remembered.
const PLACES_AHEAD_MAX: usize = 4096;

/// The packed blobs of one store directory, as one process sees them: those that the database knows and those it
/// has staged itself.
#[derive(Debug)]
pub struct Packs {
    endpoint: Arc<str>,
    folder: OwnedFd,
    pub(super) database: Arc<Database>,
    /// Of a cache: a blob is hashed before anybody gets it, unless its pack looks as it did the last time.
    cache: Option<Arc<Cache>>,
    /// A pack that is longer takes no more blobs, in bytes.
    pack_len_max: u64,
    appending: Mutex<Appending>,
    /// What was appended and is not in the database yet. A digest leaves only after it is there: whoever looks here
    /// first and there second finds every blob.
    staged: RwLock<HashMap<Digest, Place>>,
    /// One sync at a time. Holds why one failed: the kernel reports a write error once and then takes the lost pages
    /// for clean, so no later success can be trusted.
    syncing: Mutex<Option<Error>>,
    /// Packs that are open for reading.
    open: ShardedLru<u32, Readable>,
    /// Where the blobs lie that come behind those that were read last. Blobs are packed in the order of a tree, and a
    /// tree is mostly read in that order: the next one's header costs less to read than a look at the database.
    ahead: ShardedLru<Digest, Place>,
}

/// The packs that this process appends to.
#[derive(Debug, Default)]
struct Appending {
    current: Option<Pack>,
    /// Full ones, with something that is not known to be on disk.
    full: Vec<Pack>,
    /// Whether there is a pack of which the database knows nothing, so that its name may not be on disk.
    unnamed: bool,
}

impl Packs {
    /// Opens the folder, and enters what dead processes have left. The caller holds the lock on `staging/`.
    pub(super) fn open(
        dir: &Path,
        database: Arc<Database>,
        cache: Option<Arc<Cache>>,
        endpoint: Arc<str>,
    ) -> Result<Self> {
        let folder =
            File::open(dir.join("packs")).map_err(|error| Error::unavailable(&endpoint, error))?;
        let pack_len_max = cache.as_ref().map_or(PACK_LEN_MAX, |cache| {
            let (shortest, longest) = CACHE_PACK_LEN_MAX.into_inner();
            (cache.bound.size_max() / CACHE_PACKS).clamp(shortest, longest)
        });
        let packs = Packs {
            endpoint,
            folder: folder.into(),
            database,
            cache,
            pack_len_max,
            appending: Mutex::default(),
            staged: RwLock::default(),
            syncing: Mutex::new(None),
            open: ShardedLru::new(OPEN_PACKS_MAX),
            ahead: ShardedLru::new(PLACES_AHEAD_MAX),
        };
        packs.tidy()?;
        Ok(packs)
    }

    fn failed(&self, error: impl Into<io::Error>) -> Error {
        Error::unavailable(&self.endpoint, error.into())
    }

    /// Whether the blob is there, packed.
    pub fn has(&self, digest: &Digest) -> Result<bool> {
        Ok(self.locate(digest)?.is_some())
    }

    /// The blob, if it is there, packed. In a cache it is whole.
    pub fn open_blob(&self, digest: &Digest) -> Result<Option<LocalBlob>> {
        let place = match self.ahead.get(digest) {
            Some(place) => place,
            None => match self.locate(digest)? {
                Some(place) => place,
                None => return Ok(None),
            },
        };
        let pack = match (self.open_to_read(place.pack)?, &self.cache) {
            (Some(pack), _) => pack,
            // It was evicted.
            (None, Some(_)) => {
                self.ahead.remove(digest);
                return Ok(None);
            }
            (None, None) => {
                let pack = file_name(place.pack);
                let what = format!("blob {digest} is in packs/{pack}, which is gone");
                return Err(Error::corrupt(&self.endpoint, what));
            }
        };
        if let Some((digest, place)) = pack.behind(&place) {
            self.ahead.insert(digest, place, 1);
        }
        let blob = pack.blob(&place);
        if let Some(cache) = &self.cache {
            if !is_known_or_holds(cache, digest, &blob) {
                self.forget(digest, &place)?;
                return Ok(None);
            }
            cache.used_pack(place.pack);
        }
        Ok(Some(blob))
    }

    /// A pack, open for reading. `None` if it is gone.
    fn open_to_read(&self, number: u32) -> Result<Option<Readable>> {
        if let Some(pack) = self.open.get(&number) {
            let is_gone = || Stamp::of_file(&pack.file).map_or(true, |stamp| stamp.is_gone());
            if self.cache.is_none() || !is_gone() {
                return Ok(Some(pack));
            }
            self.open.remove(&number);
        }
        let file = match self.open_pack(number, OFlags::RDONLY) {
            Ok(file) => file,
            Err(Errno::NOENT) => return Ok(None),
            Err(errno) => return Err(self.failed(errno)),
        };
        if self.cache.is_some() {
            // Keeps it from being evicted, as does the lock of whoever appends to it. Whoever is evicting it at this
            // moment takes its rows first, so that nothing is looked for in it.
            let _ = flock(&file, FlockOperation::NonBlockingLockShared);
        }
        let known_len = self.known_len(number)?;
        let pack = Readable { file: Arc::new(file), known_len, passed: passed() };
        self.open.insert(number, pack.clone(), 1);
        Ok(Some(pack))
    }

    fn locate(&self, digest: &Digest) -> Result<Option<Place>> {
        if let Some(place) = self.staged.read().get(digest) {
            return Ok(Some(*place));
        }
        self.database.read(|connection| find(connection, digest))
    }

    /// Stages blobs of at most [`PACKED_LEN_MAX`] bytes, whose digests the caller has computed. Returns of each whether
    /// it was not there before. Many cost little more than one: one write, and one look at the database.
    pub fn put_all<'a>(
        &self,
        blobs: impl ExactSizeIterator<Item = (Digest, &'a [u8])> + Clone,
    ) -> Result<Vec<bool>> {
        let known = self.database.read(|connection| {
            let snapshot = connection.unchecked_transaction()?;
            let known: rusqlite::Result<Vec<bool>> =
                blobs.clone().map(|(digest, _)| Ok(find(&snapshot, &digest)?.is_some())).collect();
            known
        })?;
        if known.iter().all(|known| *known) {
            return Ok(vec![false; known.len()]);
        }
        let mut is_new = Vec::with_capacity(blobs.len());
        let mut appending = self.appending.lock();
        let pack = appending.pack(self)?;
        let mut places = HashMap::new();
        let staged = self.staged.read();
        for ((digest, contents), known) in blobs.zip(known) {
            // Another thread may have been first since; and what was entered since is only stored twice.
            let known = known || staged.contains_key(&digest) || places.contains_key(&digest);
            if !known {
                places.insert(digest, pack.add(&digest, contents));
            }
            is_new.push(!known);
        }
        drop(staged);
        pack.write().map_err(|error| self.failed(error))?;
        self.staged.write().extend(places);
        Ok(is_new)
    }

    /// Whether so much is staged that the next who puts a blob should sync.
    pub fn is_sync_due(&self) -> bool {
        self.staged.read().len() >= STAGED_BLOBS_MAX
    }

    /// Whether everything that was put is on disk already.
    pub fn is_synced(&self) -> bool {
        self.staged.read().is_empty() && self.database.is_flushed()
    }

    /// Brings what was staged to disk, and then to where all see it. Blocks.
    pub fn sync(&self) -> Result<()> {
        let mut failure = self.syncing.lock();
        if let Some(error) = &*failure {
            return Err(error.clone());
        }
        let (packs, staged, unnamed) = self.appended();
        if !staged.is_empty() {
            // Blobs of a cache are hashed before they are read, so that they need not be on disk.
            let to_sync: &[Pack] = if self.cache.is_some() { &[] } else { &packs };
            let synced = to_sync.iter().try_for_each(|pack| pack.file.sync_data());
            let synced = match unnamed && self.cache.is_none() {
                true => synced.and_then(|()| Ok(rustix::fs::fsync(&self.folder)?)),
                false => synced,
            };
            if let Err(error) = synced {
                return Err(failure.insert(self.failed(error)).clone());
            }
            self.enter(&packs, &staged)?;
            let mut left = self.staged.write();
            for (digest, _) in &staged {
                left.remove(digest);
            }
            if left.is_empty() {
                left.shrink_to_fit();
            }
        }
        let mut appending = self.appending.lock();
        // One that was appended to in the meantime stays.
        appending
            .full
            .retain(|full| !packs.iter().any(|p| (p.number, p.len) == (full.number, full.len)));
        drop(appending);
        match self.cache {
            Some(_) => Ok(()),
            None => self.database.flush(),
        }
    }

    /// What was appended so far: the packs, up to where, the blobs in them, and whether the name of one
    /// may not be on disk.
    fn appended(&self) -> (Vec<Pack>, Vec<(Digest, Place)>, bool) {
        let mut appending = self.appending.lock();
        let mut packs = appending.full.clone();
        packs.extend(appending.current.clone());
        let mut staged: Vec<_> =
            self.staged.read().iter().map(|(digest, place)| (*digest, *place)).collect();
        let unnamed = !staged.is_empty() && std::mem::take(&mut appending.unnamed);
        drop(appending);
        // The table is a tree in this order, and takes such rows several times faster.
        staged.sort_unstable_by(|(a, _), (b, _)| a.as_bytes().cmp(b.as_bytes()));
        (packs, staged, unnamed)
    }

    /// Commits the rows of blobs that are on disk.
    fn enter(&self, packs: &[Pack], staged: &[(Digest, Place)]) -> Result<()> {
        self.database.write(Durability::Ordered, |transaction| {
            let mut pack_row = transaction.prepare_cached(
                "INSERT INTO packs (number, len) VALUES (?, ?)
                 ON CONFLICT (number) DO UPDATE SET len = max(len, excluded.len)",
            )?;
            for pack in packs {
                pack_row.execute((pack.number, pack.len as i64))?;
            }
            if self.cache.is_some() {
                let mut kept = transaction.prepare_cached(
                    "INSERT INTO kept_packs (number, used) VALUES (?, ?)
                     ON CONFLICT (number) DO UPDATE SET used = max(used, excluded.used)",
                )?;
                for pack in packs {
                    kept.execute((pack.number, cache::now()))?;
                }
            }
            // Another process may have packed the same blob. Either place does.
            let mut insert = transaction.prepare_cached(
                "INSERT INTO packed_blobs (digest, pack, start, len) VALUES (?, ?, ?, ?)
                 ON CONFLICT DO NOTHING",
            )?;
            for (digest, place) in staged {
                insert.execute((digest.as_bytes(), place.pack, place.start as i64, place.len))?;
            }
            Ok(())
        })
    }

    fn open_pack(&self, number: u32, flags: OFlags) -> rustix::io::Result<File> {
        let flags = flags | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        rustix::fs::openat(&self.folder, file_name(number), flags, Mode::from(0o644))
            .map(File::from)
    }

    /// The number of every pack there is, in no order.
    fn numbers(&self) -> rustix::io::Result<Vec<u32>> {
        let mut numbers = Vec::new();
        for entry in Dir::read_from(&self.folder)? {
            let entry = entry?;
            numbers.extend(entry.file_name().to_str().ok().and_then(parse_file_name));
        }
        Ok(numbers)
    }

    /// Up to where the database knows the pack, in bytes.
    fn known_len(&self, number: u32) -> Result<u64> {
        let len: Option<i64> = self.database.read(|connection| {
            let mut query = connection.prepare_cached("SELECT len FROM packs WHERE number = ?")?;
            query.query_row([number], |row| row.get(0)).optional()
        })?;
        Ok(len.unwrap_or(0) as u64)
    }

    /// Locks a pack for appending, and finishes the work of a dead process that appended to it. `None` if it is
    /// another's, or full.
    fn try_own(&self, number: u32) -> Result<Option<Pack>> {
        let file = self.open_pack(number, OFlags::RDWR).map_err(|errno| self.failed(errno))?;
        match flock(&file, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => {}
            Err(Errno::WOULDBLOCK) => return Ok(None),
            Err(errno) => return Err(self.failed(errno)),
        }
        if Stamp::of_file(&file).map_err(|error| self.failed(error))?.is_gone() {
            return Ok(None);
        }
        // Asked only now: until it let go of the lock, another process may have moved it.
        let len = self.known_len(number)?;
        let file_len = file.metadata().map_err(|error| self.failed(error))?.len();
        let mut pack = Pack::new(number, Arc::new(file), len);
        if file_len > len {
            self.finish(&mut pack, file_len)?;
        }
        Ok((pack.len < self.pack_len_max).then_some(pack))
    }

    /// Enters what a dead process appended to a pack that has `file_len` bytes, and cuts off what is not whole.
    fn finish(&self, pack: &mut Pack, file_len: u64) -> Result<()> {
        let whole = pack.whole_entries(file_len).map_err(|error| self.failed(error))?;
        tracing::info!(
            event = event::TIDIED,
            pack = file_name(pack.number),
            kept = whole.len(),
            cut = file_len - pack.len,
            "tidied up after a process that died"
        );
        let kept = pack.file.set_len(pack.len).and_then(|()| pack.file.sync_data());
        kept.map_err(|error| self.failed(error))?;
        rustix::fs::fsync(&self.folder).map_err(|errno| self.failed(errno))?;
        self.enter(std::slice::from_ref(pack), &whole)
    }

    /// A pack to append to: the youngest that is free and has room, or a new one.
    fn own_any(&self) -> Result<Pack> {
        let mut numbers = self.numbers().map_err(|errno| self.failed(errno))?;
        numbers.sort_unstable_by(|a, b| b.cmp(a));
        // Old ones are full; where they are not, that is not worth looking.
        for &number in numbers.iter().take(16) {
            if let Some(pack) = self.try_own(number)? {
                return Ok(pack);
            }
        }
        let mut number = numbers.first().map_or(0, |last| last + 1);
        loop {
            match self.open_pack(number, OFlags::RDWR | OFlags::CREATE | OFlags::EXCL) {
                Ok(_) => {
                    // Another process may take it in this moment.
                    if let Some(pack) = self.try_own(number)? {
                        return Ok(pack);
                    }
                }
                Err(Errno::EXIST) => {}
                Err(errno) => return Err(self.failed(errno)),
            }
            number += 1;
        }
    }

    /// Finishes the work of dead processes.
    fn tidy(&self) -> Result<()> {
        for number in self.numbers().map_err(|errno| self.failed(errno))? {
            let flags = AtFlags::SYMLINK_NOFOLLOW;
            let stat = rustix::fs::statat(&self.folder, file_name(number), flags);
            let file_len = stat.map_err(|errno| self.failed(errno))?.st_size as u64;
            if file_len > self.known_len(number)? {
                self.try_own(number)?;
            }
        }
        Ok(())
    }
}

/// What was read of a pack: nothing yet.
fn passed() -> Arc<ReadOnce> {
    // The last blob may begin right before the limit.
    let len_max = PACK_LEN_MAX + PACKED_LEN_MAX as u64;
    Arc::new(ReadOnce::new(len_max, entry_len(&[]) as u32))
}

/// Where the blob lies, as far as the database knows.
fn find(connection: &Connection, digest: &Digest) -> rusqlite::Result<Option<Place>> {
    let mut query =
        connection.prepare_cached("SELECT pack, start, len FROM packed_blobs WHERE digest = ?")?;
    let place = |row: &rusqlite::Row| {
        let start: i64 = row.get(1)?;
        Ok(Place { pack: row.get(0)?, start: start as u64, len: row.get(2)? })
    };
    query.query_row([digest.as_bytes()], place).optional()
}

impl Appending {
    /// The pack to append to.
    fn pack(&mut self, packs: &Packs) -> Result<&mut Pack> {
        if let Some(full) = self.current.take_if(|pack| pack.len >= packs.pack_len_max) {
            self.full.push(full);
        }
        let current = match self.current.take() {
            Some(pack) => pack,
            None => {
                let pack = packs.own_any()?;
                // Whoever made it may have died before that.
                self.unnamed |= pack.len == 0;
                pack
            }
        };
        Ok(self.current.insert(current))
    }
}

impl Drop for Packs {
    /// What cannot be finished here is finished by whoever opens the store next.
    fn drop(&mut self) {
        if !self.staged.get_mut().is_empty()
            && let Err(error) = self.sync()
        {
            tracing::warn!(
                event = event::DISK_FAILED,
                %error,
                "some small blobs are not on disk yet"
            );
        }
    }
}
