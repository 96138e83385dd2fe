//! Packs of a cache: their blobs may be damaged, and they are evicted whole.

use std::fs::File;

use rustix::{
    fs::{AtFlags, FlockOperation, OFlags, flock},
    io::Errno,
};

use super::{
    super::{cache::Cache, database::Durability, stamp::Stamp},
    PACKED_LEN_MAX, Packs,
    pack::{Place, file_name},
};
use crate::{
    castore::Digest,
    observe::event,
    service::{Result, blob::LocalBlob},
};

impl Packs {
    /// Takes a blob out that cannot be read, if it is here.
    pub(in crate::service::local) fn reject(&self, digest: &Digest) -> Result<()> {
        self.locate(digest)?.map_or(Ok(()), |place| self.forget(digest, &place))
    }

    /// Hashes a blob, whatever is known of it, and takes it out if it is damaged. Returns whether it was whole;
    /// one that has been evicted is.
    pub(in crate::service::local) fn verify(&self, digest: &Digest) -> Result<bool> {
        let Some(place) = self.locate(digest)? else { return Ok(true) };
        let Some(pack) = self.open_to_read(place.pack)? else {
            return self.locate(digest)?.map_or(Ok(true), |place| {
                self.forget(digest, &place)?;
                Ok(false)
            });
        };
        let is_whole = holds(digest, &pack.blob(&place));
        if !is_whole {
            self.forget(digest, &place)?;
        }
        Ok(is_whole)
    }

    /// Takes a damaged blob out, so that it can be put again.
    pub(super) fn forget(&self, digest: &Digest, place: &Place) -> Result<()> {
        let pack = file_name(place.pack);
        tracing::warn!(
            event = event::CACHE_DAMAGED,
            %digest,
            pack,
            "a blob was damaged, and is taken out"
        );
        self.staged.write().remove(digest);
        self.ahead.remove(digest);
        self.database.write(Durability::Ordered, |transaction| {
            let mut delete = transaction.prepare_cached(
                "DELETE FROM packed_blobs WHERE digest = ? AND pack = ? AND start = ?",
            )?;
            delete.execute((digest.as_bytes(), place.pack, place.start as i64)).map(drop)
        })
    }

    /// Closes packs that nobody reads, so that they can be evicted.
    pub(in crate::service::local) fn let_go(&self) {
        self.open.clear();
    }

    /// Locks a pack for eviction. `None` if somebody reads it or appends to it. What has the lock is evicted with it.
    pub(in crate::service::local) fn lock_to_evict(&self, number: u32) -> Result<Option<File>> {
        let file = match self.open_pack(number, OFlags::RDONLY) {
            Ok(file) => file,
            Err(Errno::NOENT) => return Ok(None),
            Err(errno) => return Err(self.failed(errno)),
        };
        match flock(&file, FlockOperation::NonBlockingLockExclusive) {
            Err(Errno::WOULDBLOCK) => Ok(None),
            _ => Ok(Some(file)),
        }
    }

    /// Removes packs and what is known of what was in them. The rows go first: a row without its pack makes a blob
    /// seem to be here. Only on a full disk, where that takes the room that is to be made, they go last. Returns how many
    /// bytes are free now.
    pub(in crate::service::local) fn evict(&self, packs: &[(u32, File)]) -> Result<u64> {
        let forgotten = self.forget_packs(packs);
        let mut freed = 0;
        for (number, file) in packs {
            self.open.remove(number);
            let len = file.metadata().map_err(|error| self.failed(error))?.len();
            match rustix::fs::unlinkat(&self.folder, file_name(*number), AtFlags::empty()) {
                Ok(()) => freed += len,
                Err(Errno::NOENT) => {}
                Err(errno) => return Err(self.failed(errno)),
            }
        }
        if forgotten.is_err() {
            self.forget_packs(packs)?;
        }
        Ok(freed)
    }

    fn forget_packs(&self, packs: &[(u32, File)]) -> Result<()> {
        self.database.write(Durability::Ordered, |transaction| {
            for sql in [
                "DELETE FROM packed_blobs WHERE pack = ?",
                "DELETE FROM kept_packs WHERE number = ?",
                "DELETE FROM packs WHERE number = ?",
            ] {
                let mut delete = transaction.prepare_cached(sql)?;
                for (number, _) in packs {
                    delete.execute([number])?;
                }
            }
            Ok(())
        })
    }
}

/// Whether the blob in a pack of a cache is what its digest says, as it was found to be since the pack last changed, or
/// is found now.
pub(super) fn is_known_or_holds(cache: &Cache, digest: &Digest, blob: &LocalBlob) -> bool {
    // Taken first: what is changed while it is hashed is hashed again the next time.
    let stamp = Stamp::of_file(&blob.file).ok();
    if stamp.is_some_and(|stamp| cache.was_checked(digest, stamp)) {
        return true;
    }
    let is_whole = holds(digest, blob);
    if let Some(stamp) = stamp.filter(|_| is_whole) {
        cache.checked(digest, stamp);
    }
    is_whole
}

/// Whether the packed blob can be read and is what its digest says.
fn holds(digest: &Digest, blob: &LocalBlob) -> bool {
    if blob.size > PACKED_LEN_MAX as u64 {
        return false;
    }
    let mut contents = vec![0; blob.size as usize];
    blob.read_exact_at(&mut contents, 0).is_ok() && Digest::of(&contents) == *digest
}
