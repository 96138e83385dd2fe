//! One store directory on this machine, shared by any number of processes.
//!
//! ```text
//! <dir>/version                  the format's number
//! <dir>/meta.sqlite              directories, path infos, and where packed blobs lie, in WAL mode
//! <dir>/blobs/<2 hex>/<64 hex>   complete blobs that are longer than 64 KiB: plain files, never modified
//! <dir>/blobs/<…>.outboard       the BLAKE3 trees of those that are longer than 1 MiB; see the `outboards` module
//! <dir>/packs/<number>.pack      the shorter ones, one after another; see the `packs` module
//! <dir>/partials/                blobs of which not all is here; see the `partials` module
//! <dir>/staging/<session>/       blobs on their way; one folder a process, held by a lock on its `lock` file
//! ```
//!
//! **What lies in `blobs/` was on disk before it got there.** A long blob is first written into the session's staging
//! folder, where only its own process sees it. [`BlobFiles::sync`] makes one `syncfs` for all of them and then
//! renames each into `blobs/`. So no blob costs an fsync of its own, and none of those that others see can be short
//! after a power cut. The renames themselves may be lost by one; then the files are still in `staging/`, and whoever
//! opens the store next finds them there, checks their digests and finishes the work. That is also how what a killed
//! process left behind is cleaned up.
//!
//! **Directories, path infos and places are ordered by the database's log.** Directories are committed without waiting
//! for the disk, and so are the places of packed blobs, after their pack was brought there. A path info is committed
//! with a flush of the log, in which everything it refers to stands before it.
//!
//! Lock order, where one thread holds two: the lock on `staging/` (only while opening), then the lock of a session;
//! inside a process `syncing` or one of the `put_locks` or `Packs::appending`, then `staged`. The database's come last.

mod archives;
mod blob_files;
mod bound;
mod cache;
mod cached_files;
mod database;
mod evict;
mod inner;
mod keeper;
mod kind;
mod offload;
mod outboards;
mod packs;
mod partials;
mod pins;
mod proof;
mod sample;
mod session;
mod stamp;
mod stats;
mod sweep;
mod usage;
mod verify;
mod writeback;

use std::{
    fs, io,
    path::{Path, PathBuf},
    sync::Arc,
};

use rustix::{
    fs::{FlockOperation, flock},
    io::Errno,
};

pub use blob_files::{BlobFiles, Temporary};
pub use bound::{Bound, Full, ReserveError};
pub(in crate::service) use cache::enter_path_info;
pub use database::{Database, Durability};
pub use kind::Kind;
pub(crate) use offload::offload;
pub use outboards::{OUTBOARD_ABOVE_LEN, StoredOutboard, hash_blob};
pub use packs::{PACKED_LEN_MAX, Packs, entry_len};
pub use partials::{Partial, Partials};
pub use pins::PinnedClosure;
pub use sample::Sample;
pub use stats::CacheStats;
pub use usage::{default_size_max, on_disk};
pub use verify::Verified;
pub use writeback::Writeback;

use self::{cache::Cache, inner::Inner, keeper::Keeper};
use super::{Error, blob::LocalBlob};
use crate::{
    observe::event,
    {castore::Digest, nix::StorePathDigest},
};

/// The format that is written and understood.
const FORMAT: u32 = 1;

/// A store directory, open. Dropped, it brings what was put to disk and leaves no session behind.
#[derive(Debug)]
pub struct LocalStore {
    inner: Arc<Inner>,
    /// Of a cache. It shares the parts, and is waited for before they go.
    keeper: Option<Keeper>,
}

/// Why a store directory cannot be opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// A newer lazystore wrote it.
    #[error(
        "{dir} has store format {found}, but this version knows only {FORMAT}: use a newer lazystore"
    )]
    NewerFormat {
        /// The store directory.
        dir: PathBuf,
        /// The format found.
        found: u32,
    },
    /// A store is not to be used as a cache, nor a cache as a store, nor anything else as either.
    #[error("{dir} is {what}: {next}")]
    OtherKind {
        /// The directory.
        dir: PathBuf,
        /// What it is.
        what: &'static str,
        /// What to do about it.
        next: &'static str,
    },
    /// The version file holds no format number.
    #[error("{path} says {text:?}, which is no store format")]
    NoFormat {
        /// The version file.
        path: PathBuf,
        /// The beginning of what it holds.
        text: String,
    },
    /// Every user of a store directory must be able to write to it, if only to hold a session.
    #[error("the store directory {dir} is not writable: {source}")]
    NotWritable {
        /// The store directory.
        dir: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// A file operation failed.
    #[error("cannot open the store directory {dir}: {source}")]
    Io {
        /// The store directory.
        dir: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// What a dead process left cannot be tidied up.
    #[error(transparent)]
    Tidying(#[from] Error),
    /// The database does not open.
    #[error("cannot open the database {path}: {source}")]
    Database {
        /// The database's file.
        path: PathBuf,
        /// What SQLite said.
        source: rusqlite::Error,
    },
}

impl OpenError {
    fn from_io(dir: &Path, source: io::Error) -> Self {
        let dir = dir.to_owned();
        match source.kind() {
            io::ErrorKind::PermissionDenied | io::ErrorKind::ReadOnlyFilesystem => {
                OpenError::NotWritable { dir, source }
            }
            _ => OpenError::Io { dir, source },
        }
    }
}

impl LocalStore {
    /// Opens the store in `dir`, which is made if it is not there. Finishes what dead processes left behind; while
    /// one process does that, others that open the same store wait for it.
    pub fn open(dir: &Path) -> Result<Arc<LocalStore>, Error> {
        Self::open_kind(dir, Kind::Store, None)
    }

    /// Opens the cache in `dir`, in the same way. It takes at most `size_max` bytes of the disk; `None` for
    /// [`default_size_max`].
    pub fn open_cache(dir: &Path, size_max: Option<u64>) -> Result<Arc<LocalStore>, Error> {
        Self::open_kind(dir, Kind::Cache, size_max)
    }

    fn open_kind(dir: &Path, kind: Kind, size_max: Option<u64>) -> Result<Arc<LocalStore>, Error> {
        let endpoint: Arc<str> = match kind {
            Kind::Store => format!("local://{}", dir.display()),
            Kind::Cache => format!("the cache in {}", dir.display()),
        }
        .into();
        match Self::try_open(dir, kind, size_max, endpoint.clone()) {
            Ok(store) => Ok(Arc::new(store)),
            Err(OpenError::Tidying(error)) => Err(error),
            Err(error) => Err(Error::unavailable(&endpoint, error)),
        }
    }

    fn try_open(
        dir: &Path,
        kind: Kind,
        size_max: Option<u64>,
        endpoint: Arc<str>,
    ) -> Result<Self, OpenError> {
        let io_error = |source: io::Error| OpenError::from_io(dir, source);
        fs::create_dir_all(dir).map_err(io_error)?;
        kind.claim(dir)?;
        let is_new = read_version(dir, io_error)?.is_none();
        fs::create_dir_all(dir.join("staging")).map_err(io_error)?;
        // Held until the end of this function: sessions appear and are tidied by one process at a time.
        let opening = fs::File::open(dir.join("staging")).map_err(io_error)?;
        rustix::io::retry_on_intr(|| flock(&opening, FlockOperation::LockExclusive))
            .map_err(|errno| io_error(errno.into()))?;
        if is_new {
            create(dir).map_err(io_error)?;
        }
        let (database, path) = (dir.join("meta.sqlite"), dir.join("meta.sqlite"));
        let database = match kind {
            Kind::Store => Database::open(database, endpoint.clone()),
            Kind::Cache => Database::open_of_cache(
                database,
                &[cache::SCHEMA, pins::SCHEMA].concat(),
                endpoint.clone(),
            ),
        };
        let database = database.map_err(|source| OpenError::Database { path, source })?;
        let database = Arc::new(database);
        let cache = match kind {
            Kind::Store => None,
            Kind::Cache => {
                let size_max = size_max.map_or_else(|| default_size_max(dir), Ok);
                let bound = size_max.and_then(|size_max| Bound::open(dir, size_max));
                Some(Arc::new(Cache::new(bound.map_err(io_error)?, database.clone())))
            }
        };
        let blobs = BlobFiles::open(dir, cache.clone(), endpoint.clone()).map_err(io_error)?;
        let packs = Packs::open(dir, database.clone(), cache.clone(), endpoint.clone())?;
        let partials = Partials::open(dir).map_err(io_error)?;
        let inner = Arc::new(Inner::new(endpoint, blobs, packs, partials, database, cache));
        let keeper = match kind {
            Kind::Store => None,
            Kind::Cache => {
                inner.tell();
                Some(Keeper::start(inner.clone()).map_err(io_error)?)
            }
        };
        Ok(LocalStore { inner, keeper })
    }

    /// How the store is called in errors.
    pub fn endpoint(&self) -> &Arc<str> {
        &self.inner.endpoint
    }

    /// The blobs that have files of their own.
    pub fn blobs(&self) -> &BlobFiles {
        &self.inner.blobs
    }

    /// The blobs of which not all is here.
    pub(super) fn partials(&self) -> &Partials {
        &self.inner.partials
    }

    /// The blobs that are packed.
    pub fn packs(&self) -> &Packs {
        &self.inner.packs
    }

    /// The blob, if it is here. In a cache it was found to be whole.
    pub fn open_blob(&self, digest: &Digest) -> Result<Option<LocalBlob>, Error> {
        self.inner.open_blob(digest)
    }

    /// Takes a blob out of a cache whose disk cannot read it; nothing is ever taken out of a store.
    pub(in crate::service) fn reject_blob(&self, digest: &Digest) {
        if self.is_cache()
            && let Err(error) = self.inner.reject_blob(digest)
        {
            tracing::warn!(
                event = event::CACHE_FAILED,
                %digest,
                %error,
                "cannot take a blob out of the cache"
            );
        }
    }

    /// What bounds a cache; `None` for a store.
    pub fn bound(&self) -> Option<&Bound> {
        self.inner.cache.as_ref().map(|cache| &cache.bound)
    }

    /// Whether what is here may be damaged, and may go at any time.
    pub fn is_cache(&self) -> bool {
        self.inner.cache.is_some()
    }

    /// Remembers that somebody asked for the path info.
    pub(in crate::service) fn used_path_info(&self, digest: &StorePathDigest) {
        if let Some(cache) = &self.inner.cache {
            cache.used_path_info(digest);
        }
    }

    /// Takes room for `bytes` that are to be written; a store has room for all that its disk takes. What is not written
    /// in the end is to be [released](LocalStore::release). A cache that is full is emptied as far as it takes. An error
    /// says that it cannot be: then the caller goes on without it.
    pub fn reserve(&self, bytes: u64) -> Result<(), Error> {
        let Some(cache) = &self.inner.cache else { return Ok(()) };
        self.inner.reserve(cache, bytes)?;
        if let Some(keeper) = self.keeper.as_ref().filter(|_| self.inner.is_filling()) {
            keeper.wake();
        }
        Ok(())
    }

    /// Whether a blob of `len` bytes may be kept: one that takes more than half of a cache would drive out everything.
    pub fn check_len(&self, len: u64) -> Result<(), Error> {
        match self.bound() {
            Some(bound) if len > bound.size_max() / 2 => {
                let too_long = format!(
                    "a blob of {len} bytes or more is not kept in a cache of {}",
                    bound.size_max()
                );
                let too_long = io::Error::new(io::ErrorKind::StorageFull, too_long);
                Err(Error::unavailable(self.endpoint(), too_long))
            }
            _ => Ok(()),
        }
    }

    /// Writes, and if the disk is full, evicts a part of the cache and tries once more. A store has nothing to evict.
    pub fn write_in_full<T>(
        &self,
        mut write: impl FnMut() -> Result<T, Error>,
    ) -> Result<T, Error> {
        let written = write();
        match (&self.inner.cache, &written) {
            (Some(cache), Err(error)) if is_disk_full(error) => {
                self.inner.make_room_on_disk(cache)?;
                write()
            }
            _ => written,
        }
    }

    /// Evicts what was used longest ago until a cache takes at most `target` bytes, or all the rest is in use.
    pub fn evict_to(&self, target: u64) -> Result<(), Error> {
        self.inner.cache.as_ref().map_or(Ok(()), |cache| self.inner.evict_to(cache, target))
    }

    /// Gives back what was reserved.
    pub fn release(&self, bytes: u64) {
        if let Some(bound) = self.bound().filter(|_| bytes > 0) {
            bound.release(bytes);
        }
    }

    /// A quick look at some of the blobs, or at all if there are few.
    pub fn sample(&self) -> Sample {
        Sample::take(&self.inner.blobs, &self.inner.packs)
    }

    /// The directories, the path infos, and where packed blobs lie.
    pub fn database(&self) -> &Database {
        &self.inner.database
    }
}

fn is_disk_full(error: &Error) -> bool {
    let Error::Unavailable { source, .. } = error else { return false };
    // Not any "storage full": the bound of the cache says that too.
    let code = source.as_io().and_then(io::Error::raw_os_error);
    code.is_some_and(|code| [Errno::NOSPC, Errno::DQUOT].contains(&Errno::from_raw_os_error(code)))
}

/// The format of the store in `dir`, or `None` if it is new.
fn read_version(
    dir: &Path,
    io_error: impl Fn(io::Error) -> OpenError,
) -> Result<Option<u32>, OpenError> {
    let path = dir.join("version");
    let bytes = match fs::read(&path) {
        Ok(bytes) => bytes,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(io_error(error)),
    };
    let text = String::from_utf8_lossy(&bytes);
    match text.trim().parse() {
        Ok(0) | Err(_) => {
            let text = text.chars().take(20).collect();
            Err(OpenError::NoFormat { path, text })
        }
        Ok(found) if found > FORMAT => Err(OpenError::NewerFormat { dir: dir.to_owned(), found }),
        Ok(found) => Ok(Some(found)),
    }
}

/// Lays out a new store. The version comes last and in one piece: a store that has one is complete.
fn create(dir: &Path) -> io::Result<()> {
    for shard in 0..=u8::MAX {
        fs::create_dir_all(dir.join(format!("blobs/{shard:02x}")))?;
    }
    fs::create_dir_all(dir.join("packs"))?;
    fs::write(dir.join("version.new"), format!("{FORMAT}\n"))?;
    fs::rename(dir.join("version.new"), dir.join("version"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_version_that_is_no_number_is_named() {
        let dir = tempfile::tempdir().expect("a folder");
        fs::write(dir.path().join("version"), "one\n").expect("written");
        let error = LocalStore::open(dir.path()).expect_err("refused").to_string();
        assert!(error.contains("says \"one\\n\", which is no store format"), "{error}");
    }
}
