//! Blobs as plain files.

use std::{
    collections::HashMap,
    fs::File,
    io::{self, Write as _},
    os::fd::OwnedFd,
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use parking_lot::{Mutex, RwLock};
use rustix::{
    fs::{Access, AtFlags, Mode, OFlags},
    io::Errno,
};

use super::{
    cache::{Cache, Published},
    session::{self, Session, blob_path, publish},
    stamp::Stamp,
    usage::on_disk,
};
use crate::{
    castore::Digest,
    observe::event,
    service::{Error, Result},
};

/// How many staged blobs make [`BlobFiles::is_sync_due`]: what is remembered of them takes some 5 MB.
const STAGED_BLOBS_MAX: usize = 100_000;

const PUT_LOCKS: usize = 64;

pub(super) const READ_FLAGS: OFlags = OFlags::RDONLY.union(OFlags::CLOEXEC);
const CREATE_FLAGS: OFlags =
    OFlags::WRONLY.union(OFlags::CREATE).union(OFlags::EXCL).union(OFlags::CLOEXEC);

/// The blobs of one store directory, as one process sees them: those in `blobs/` and those it has staged itself.
///
/// The empty blob needs no file; the service above answers for it.
#[derive(Debug)]
pub struct BlobFiles {
    pub(super) endpoint: Arc<str>,
    pub(super) blobs: OwnedFd,
    pub(super) session: Session,
    /// Of a cache: a file is looked at before anybody gets it.
    pub(super) cache: Option<Arc<Cache>>,
    /// What is complete in the session's folder, and how it looked then. A digest leaves only after its file is in
    /// `blobs/`: whoever looks here first and there second finds every blob.
    pub(super) staged: RwLock<HashMap<Digest, Stamp>>,
    /// By digest: two puts of one blob must not write the same file at once.
    put_locks: [Mutex<()>; PUT_LOCKS],
    /// One sync at a time; those who wait meanwhile share the next. Holds why one failed: the kernel reports a write
    /// error once and then takes the lost pages for clean, so no later success can be trusted.
    syncing: Mutex<Option<Error>>,
    temporaries: AtomicU64,
}

impl BlobFiles {
    /// Opens the folders, finishes dead sessions, and starts one. The caller holds the lock on `staging/`.
    pub(super) fn open(
        dir: &Path,
        cache: Option<Arc<Cache>>,
        endpoint: Arc<str>,
    ) -> io::Result<Self> {
        let blobs = OwnedFd::from(File::open(dir.join("blobs"))?);
        let staging = OwnedFd::from(File::open(dir.join("staging"))?);
        session::tidy(&staging, &blobs)?;
        Ok(BlobFiles {
            endpoint,
            blobs,
            session: Session::start(staging)?,
            cache,
            staged: RwLock::default(),
            put_locks: [const { Mutex::new(()) }; PUT_LOCKS],
            syncing: Mutex::new(None),
            temporaries: AtomicU64::new(0),
        })
    }

    pub(super) fn failed(&self, error: impl Into<io::Error>) -> Error {
        Error::unavailable(&self.endpoint, error.into())
    }

    /// Whether the blob is there.
    pub fn has(&self, digest: &Digest) -> Result<bool> {
        if self.staged.read().contains_key(digest) {
            return Ok(true);
        }
        let path = blob_path(digest);
        match rustix::fs::accessat(&self.blobs, &path, Access::EXISTS, AtFlags::empty()) {
            Ok(()) => Ok(true),
            Err(Errno::NOENT) => Ok(false),
            Err(errno) => Err(self.failed(errno)),
        }
    }

    /// The blob's file, open for reading. In a cache it is whole, and stays there for as long as it is open.
    pub fn open_blob(&self, digest: &Digest) -> Result<Option<File>> {
        let staged = self.staged.read().get(digest).copied();
        if let Some(stamp) = staged {
            let name = digest.to_hex();
            match rustix::fs::openat(&self.session.folder, &name, READ_FLAGS, Mode::empty()) {
                Ok(file) => return self.check(digest, file.into(), Some(stamp)),
                // It has moved into `blobs/` since.
                Err(Errno::NOENT) => {}
                Err(errno) => return Err(self.failed(errno)),
            }
        }
        match rustix::fs::openat(&self.blobs, blob_path(digest), READ_FLAGS, Mode::empty()) {
            Ok(file) => self.check(digest, file.into(), None),
            Err(Errno::NOENT) => Ok(None),
            Err(errno) => Err(self.failed(errno)),
        }
    }

    /// Stages a blob that is at hand. The caller has computed `digest` from `contents`. Returns whether it was not
    /// there before.
    pub fn put(&self, digest: &Digest, contents: &[u8]) -> Result<bool> {
        let _guard = self.put_lock(digest).lock();
        if self.has(digest)? {
            return Ok(false);
        }
        let name = digest.to_hex();
        let mut file = self.create(&name)?;
        if let Err(error) = file.write_all(contents) {
            self.remove(&name);
            return Err(self.failed(error));
        }
        let stamp = Stamp::of_file(&file).map_err(|error| self.failed(error))?;
        self.staged.write().insert(*digest, stamp);
        Ok(true)
    }

    /// A file for a blob whose digest is not known yet.
    pub fn create_temporary(&self) -> Result<Temporary> {
        let name = format!("tmp-{}", self.temporaries.fetch_add(1, Ordering::Relaxed));
        let file = Arc::new(self.create(&name)?);
        Ok(Temporary { name, file })
    }

    /// Stages the blob that was written to `temporary`. The caller has computed `digest` from what it wrote. Returns
    /// whether it was not there before.
    pub fn keep(&self, temporary: &Temporary, digest: &Digest) -> Result<bool> {
        let _guard = self.put_lock(digest).lock();
        if self.has(digest)? {
            self.remove(&temporary.name);
            return Ok(false);
        }
        let folder = &self.session.folder;
        rustix::fs::renameat(folder, &temporary.name, folder, digest.to_hex())
            .map_err(|errno| self.failed(errno))?;
        // Only now, since the renaming is a change.
        let stamp = Stamp::of_file(&temporary.file).map_err(|error| self.failed(error))?;
        self.staged.write().insert(*digest, stamp);
        Ok(true)
    }

    /// Stages the blob that is in the file `name` of another folder of the store. The caller has seen that it is the blob.
    /// Returns whether it was not there before; then the file is gone from its folder.
    pub(super) fn adopt(&self, digest: &Digest, folder: &OwnedFd, name: &str) -> Result<bool> {
        let _guard = self.put_lock(digest).lock();
        if self.has(digest)? {
            return Ok(false);
        }
        rustix::fs::renameat(folder, name, &self.session.folder, digest.to_hex())
            .map_err(|errno| self.failed(errno))?;
        let folder = &self.session.folder;
        let file = rustix::fs::openat(folder, digest.to_hex(), READ_FLAGS, Mode::empty())
            .map_err(|errno| self.failed(errno))?;
        let stamp = Stamp::of_file(&file.into()).map_err(|error| self.failed(error))?;
        self.staged.write().insert(*digest, stamp);
        Ok(true)
    }

    /// Removes what was written to `temporary`.
    pub fn discard(&self, temporary: &Temporary) {
        self.remove(&temporary.name);
    }

    /// Whether so much is staged that the next who puts a blob should sync.
    pub fn is_sync_due(&self) -> bool {
        self.staged.read().len() >= STAGED_BLOBS_MAX
    }

    /// Whether nothing waits for a sync.
    pub fn is_synced(&self) -> bool {
        self.staged.read().is_empty()
    }

    /// Brings what was staged to disk, and then to where all see it. Blocks.
    pub fn sync(&self) -> Result<()> {
        let mut failure = self.syncing.lock();
        if let Some(error) = &*failure {
            return Err(error.clone());
        }
        let staged = self.all_staged();
        if staged.is_empty() {
            return Ok(());
        }
        if let Err(errno) = rustix::fs::syncfs(&self.blobs) {
            let error = self.failed(errno);
            if self.cache.is_some() {
                // It may have lost any of them; and all of them can be fetched again.
                self.drop_staged(&staged);
                return Err(error);
            }
            return Err(failure.insert(error).clone());
        }
        self.publish(&staged, true)
    }

    /// Moves what was staged to where all see it, and where it can be evicted, without bringing it to disk first: for a
    /// cache, where whoever opens it next finds out whether it got there.
    pub(super) fn publish_now(&self) -> Result<()> {
        let _one_at_a_time = self.syncing.lock();
        self.publish(&self.all_staged(), false)
    }

    fn all_staged(&self) -> Vec<(Digest, Stamp)> {
        self.staged.read().iter().map(|(digest, stamp)| (*digest, *stamp)).collect()
    }

    /// Moves what was staged to `blobs/`, and, in a cache, enters it there.
    fn publish(&self, staged: &[(Digest, Stamp)], is_durable: bool) -> Result<()> {
        let mut result = Ok(());
        let mut moved = 0;
        let mut published = Vec::new();
        for (digest, stamp) in staged {
            match self.publish_one(digest, stamp, is_durable) {
                Ok(done) => published.extend(done),
                Err(error) => {
                    result = Err(self.failed(error));
                    break;
                }
            }
            moved += 1;
        }
        if let Some(cache) = self.cache.as_ref().filter(|_| !published.is_empty()) {
            result = result.and(cache.published(&published));
        }
        let mut left = self.staged.write();
        for (digest, _) in &staged[..moved] {
            left.remove(digest);
        }
        if left.is_empty() {
            left.shrink_to_fit();
        }
        result
    }

    /// Moves one. Returns what there is to enter in a cache.
    fn publish_one(
        &self,
        digest: &Digest,
        staged: &Stamp,
        is_durable: bool,
    ) -> io::Result<Option<Published>> {
        let folder = &self.session.folder;
        let Some(cache) = &self.cache else {
            return publish(folder, &self.blobs, digest).map(|_| None);
        };
        let file = match rustix::fs::openat(folder, digest.to_hex(), READ_FLAGS, Mode::empty()) {
            Ok(file) => File::from(file),
            // It was found to be damaged since.
            Err(Errno::NOENT) => return Ok(None),
            Err(errno) => return Err(errno.into()),
        };
        // Whether it is still what was written.
        let is_same = Stamp::of_file(&file)? == *staged;
        if !publish(folder, &self.blobs, digest)? {
            cache.bound.release(on_disk(staged.len));
            return Ok(None);
        }
        let stamp = Stamp::of_file(&file)?;
        Ok(is_same.then_some(Published { digest: *digest, stamp, is_durable }))
    }

    fn drop_staged(&self, staged: &[(Digest, Stamp)]) {
        let mut left = self.staged.write();
        for (digest, stamp) in staged {
            left.remove(digest);
            self.remove(&digest.to_hex());
            if let Some(cache) = &self.cache {
                cache.bound.release(on_disk(stamp.len));
            }
        }
    }

    fn put_lock(&self, digest: &Digest) -> &Mutex<()> {
        &self.put_locks[usize::from(digest.as_bytes()[0]) % PUT_LOCKS]
    }

    /// The process's umask may take permissions away.
    fn create(&self, name: &str) -> Result<File> {
        rustix::fs::openat(&self.session.folder, name, CREATE_FLAGS, Mode::from(0o444))
            .map(File::from)
            .map_err(|errno| self.failed(errno))
    }

    fn remove(&self, name: &str) {
        if let Err(errno) = rustix::fs::unlinkat(&self.session.folder, name, AtFlags::empty()) {
            tracing::warn!(
                event = event::DISK_FAILED,
                name,
                %errno,
                "cannot remove a staged file; the next opening will"
            );
        }
    }
}

impl Drop for BlobFiles {
    /// What cannot be finished here is finished by whoever opens the store next.
    fn drop(&mut self) {
        let synced = self.sync();
        if let Err(error) = synced {
            tracing::warn!(event = event::DISK_FAILED, %error, "some blobs are not on disk yet");
        } else if let Err(error) = self.session.remove() {
            tracing::warn!(
                event = event::DISK_FAILED,
                %error,
                store = %self.endpoint,
                "cannot remove the session's folder"
            );
        }
    }
}

/// A file that is being written in the session's folder. Whoever holds it must keep or discard it.
#[derive(Debug)]
pub struct Temporary {
    name: String,
    file: Arc<File>,
}

impl Temporary {
    /// Its name in the session's folder.
    pub(super) fn name(&self) -> &str {
        &self.name
    }

    /// The file, open for writing.
    pub fn file(&self) -> &Arc<File> {
        &self.file
    }
}
