//! Blobs of a cache that have files: they may be damaged, and they are evicted.

use std::{collections::HashMap, fs::File};

use rustix::{
    fs::{AtFlags, Dir, FlockOperation, Mode, OFlags, flock},
    io::Errno,
};

use super::{
    blob_files::{BlobFiles, READ_FLAGS},
    session::{blob_path, parse_name},
    stamp::Stamp,
    usage::on_disk,
    writeback::has_lost_pages,
};
use crate::{
    observe::event,
    {castore::Digest, service::Result},
};

/// A blob's file, as it lies in its place.
#[derive(Debug, Clone, Copy)]
pub(super) struct Found {
    /// In bytes.
    pub(super) len: u64,
    /// In milliseconds since 1970.
    pub(super) written: i64,
}

impl BlobFiles {
    /// Lets nobody have a file of a cache that is not what its name says. Such a file is removed. `staged` is how it
    /// looked when this process had written it.
    pub(super) fn check(
        &self,
        digest: &Digest,
        file: File,
        staged: Option<Stamp>,
    ) -> Result<Option<File>> {
        let Some(cache) = &self.cache else { return Ok(Some(file)) };
        // Somebody who has the lock is about to remove it. A file system without locks evicts what is open; whoever
        // has it open does not notice.
        if let Err(Errno::WOULDBLOCK) = flock(&file, FlockOperation::NonBlockingLockShared) {
            return Ok(None);
        }
        let stamp = Stamp::of_file(&file).map_err(|error| self.failed(error))?;
        if stamp.is_gone() {
            return Ok(None);
        }
        // What this process knows may have got lost since, on its way to a disk that is broken.
        let was_whole = staged == Some(stamp) || cache.was_checked(digest, stamp);
        let is_known = (was_whole && !has_lost_pages(&file))
            || cache.was_durable(digest, stamp).unwrap_or(false);
        if is_known || self.holds(digest, &file) {
            cache.checked(digest, stamp);
            cache.used_file(digest);
            return Ok(Some(file));
        }
        tracing::warn!(
            event = event::CACHE_DAMAGED,
            %digest,
            "a blob in the cache was damaged; it is removed and fetched again"
        );
        self.remove_damaged(digest);
        Ok(None)
    }

    /// Removes a blob that is not what its name says, or cannot be read.
    pub(super) fn remove_damaged(&self, digest: &Digest) {
        self.staged.write().remove(digest);
        let (staged, published) = (digest.to_hex(), blob_path(digest));
        for (folder, name) in [(&self.session.folder, staged), (&self.blobs, published)] {
            let Ok(stat) = rustix::fs::statat(folder, &name, AtFlags::SYMLINK_NOFOLLOW) else {
                continue;
            };
            if rustix::fs::unlinkat(folder, &name, AtFlags::empty()).is_ok()
                && let Some(cache) = &self.cache
            {
                cache.bound.release(on_disk(stat.st_size as u64));
            }
        }
    }

    /// Hashes the file of a blob, whatever is known of it, and removes it if it is damaged. Returns its length
    /// and whether it was whole; `None` if it is gone.
    pub(super) fn verify(&self, digest: &Digest) -> Result<Option<(u64, bool)>> {
        let path = blob_path(digest);
        let file = match rustix::fs::openat(&self.blobs, path, READ_FLAGS, Mode::empty()) {
            Ok(file) => File::from(file),
            Err(Errno::NOENT) => return Ok(None),
            Err(errno) => return Err(self.failed(errno)),
        };
        // Keeps it from being evicted meanwhile.
        let _ = flock(&file, FlockOperation::NonBlockingLockShared);
        let len = file.metadata().map_err(|error| self.failed(error))?.len();
        let is_whole = self.holds(digest, &file);
        if !is_whole {
            self.remove_damaged(digest);
        }
        Ok(Some((len, is_whole)))
    }

    /// Whether the file can be read and is what its name says.
    fn holds(&self, digest: &Digest, file: &File) -> bool {
        let mut hasher = blake3::Hasher::new();
        match hasher.update_reader(file) {
            Ok(_) => Digest::from(hasher.finalize()) == *digest,
            Err(error) => {
                tracing::warn!(
                    event = event::DISK_FAILED,
                    %digest,
                    %error,
                    store = %self.endpoint,
                    "cannot read a blob"
                );
                false
            }
        }
    }

    /// What lies in a shard of `blobs/`.
    pub(super) fn list(&self, shard: u8) -> Result<HashMap<Digest, Found>> {
        let list = || {
            let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
            let folder =
                rustix::fs::openat(&self.blobs, format!("{shard:02x}"), flags, Mode::empty())?;
            let mut found = HashMap::new();
            for entry in Dir::read_from(&folder)? {
                let name = entry?.file_name().to_owned();
                let Some(digest) = name.to_str().ok().and_then(parse_name) else { continue };
                match rustix::fs::statat(&folder, &name, AtFlags::SYMLINK_NOFOLLOW) {
                    Ok(stat) => {
                        let written = stat.st_mtime.saturating_mul(1000);
                        found.insert(digest, Found { len: stat.st_size as u64, written })
                    }
                    Err(Errno::NOENT) => continue,
                    Err(errno) => return Err(errno),
                };
            }
            Ok(found)
        };
        list().map_err(|errno: Errno| self.failed(errno))
    }

    /// Removes a blob's file, unless somebody has it open. Returns its length on disk, or `None` if it is in use.
    pub(super) fn evict(&self, digest: &Digest) -> Result<Option<u64>> {
        let path = blob_path(digest);
        let file = match rustix::fs::openat(&self.blobs, &path, READ_FLAGS, Mode::empty()) {
            Ok(file) => File::from(file),
            Err(Errno::NOENT) => return self.remove_outboard(digest).map(Some),
            Err(errno) => return Err(self.failed(errno)),
        };
        if let Err(Errno::WOULDBLOCK) = flock(&file, FlockOperation::NonBlockingLockExclusive) {
            return Ok(None);
        }
        let stamp = Stamp::of_file(&file).map_err(|error| self.failed(error))?;
        let tree = self.remove_outboard(digest)?;
        match rustix::fs::unlinkat(&self.blobs, &path, AtFlags::empty()) {
            Ok(()) => Ok(Some(on_disk(stamp.len) + tree)),
            Err(Errno::NOENT) => Ok(Some(tree)),
            Err(errno) => Err(self.failed(errno)),
        }
    }
}
