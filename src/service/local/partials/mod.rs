//! Blobs that are still arriving, in `partials/`.
//!
//! ```text
//! <64 hex>.<n>.data       the bytes that came, each in its place; sparse
//! <64 hex>.<n>.outboard   the nodes of the tree that came, each in its place; zero where none has
//! ```
//!
//! A process holds a lock on the outboard for as long as it uses a partial. Where it is locked by another process, the next
//! `n` is used. The two files together are the map of what is here: a group is here if its hash is known, by nodes that lead
//! to the digest, and its bytes have that hash. That is only looked at when the group is wanted first, once in the life of a
//! process. So nothing has to be written in an order, flushed or mended: what a crash, a full disk or a broken one made of the
//! files is found out before it is used, and fetched again.
//!
//! A partial that is complete becomes a staged blob like any other, by a rename.

mod partial;

use std::{
    fs::{self, File},
    io,
    os::{
        fd::OwnedFd,
        unix::fs::{FileExt as _, MetadataExt as _},
    },
    path::Path,
    sync::Arc,
};

use rustix::{
    fs::{AtFlags, Dir, FlockOperation, Mode, OFlags, flock},
    io::Errno,
};

pub use partial::Partial;

use super::{LocalStore, outboards::StoredOutboard};
use crate::{
    castore::{Digest, outboard::Tree},
    observe::event,
    service::{Error, Result},
};

/// How many processes may each have a partial of the same blob.
const SAME_BLOB_MAX: u32 = 16;

const FLAGS: OFlags =
    OFlags::RDWR.union(OFlags::CREATE).union(OFlags::NOFOLLOW).union(OFlags::CLOEXEC);

/// The folder.
#[derive(Debug)]
pub struct Partials {
    pub(super) folder: OwnedFd,
}

/// The names of a partial's files.
#[derive(Debug, Clone)]
pub(super) struct Names {
    pub(super) data: String,
    pub(super) outboard: String,
}

impl Names {
    fn new(digest: &Digest, number: u32) -> Self {
        let hex = digest.to_hex();
        Names { data: format!("{hex}.{number}.data"), outboard: format!("{hex}.{number}.outboard") }
    }

    /// The blob, if they are names as we write them.
    pub(super) fn digest(&self) -> Option<Digest> {
        self.data.get(..64)?.parse().ok()
    }
}

impl Partials {
    pub(super) fn open(dir: &Path) -> io::Result<Self> {
        let path = dir.join("partials");
        fs::create_dir_all(&path)?;
        Ok(Partials { folder: File::open(path)?.into() })
    }

    /// All that is here, each with when bytes of it last came, in milliseconds since 1970, the oldest first.
    pub(super) fn list(&self) -> io::Result<Vec<(i64, Names)>> {
        let mut found = Vec::new();
        for entry in Dir::read_from(&self.folder)? {
            let name = entry?.file_name().to_owned();
            let Some(stem) = name.to_str().ok().and_then(|name| name.strip_suffix(".outboard"))
            else {
                continue;
            };
            let names =
                Names { data: format!("{stem}.data"), outboard: format!("{stem}.outboard") };
            match rustix::fs::statat(&self.folder, &names.data, AtFlags::SYMLINK_NOFOLLOW) {
                Ok(stat) => found.push((stat.st_mtime.saturating_mul(1000), names)),
                // It became a blob, or goes; an outboard alone is as good as the oldest.
                Err(Errno::NOENT) => found.push((0, names)),
                Err(errno) => return Err(errno.into()),
            }
        }
        found.sort_by_key(|(used, _)| *used);
        Ok(found)
    }

    /// Removes a partial, unless a process uses it. Returns how many bytes are free now.
    pub(super) fn evict(&self, names: &Names) -> io::Result<u64> {
        let flags = OFlags::RDWR | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let outboard = match rustix::fs::openat(&self.folder, &names.outboard, flags, Mode::empty())
        {
            Ok(outboard) => File::from(outboard),
            Err(Errno::NOENT) => return Ok(0),
            Err(errno) => return Err(errno.into()),
        };
        match flock(&outboard, FlockOperation::NonBlockingLockExclusive) {
            Err(Errno::WOULDBLOCK) => return Ok(0),
            _ if !self.is_still(&outboard, &names.outboard)? => return Ok(0),
            _ => {}
        }
        let mut freed = outboard.metadata()?.blocks() * 512;
        if let Ok(stat) = rustix::fs::statat(&self.folder, &names.data, AtFlags::SYMLINK_NOFOLLOW) {
            freed += stat.st_blocks as u64 * 512;
        }
        self.remove(names);
        Ok(freed)
    }

    fn open_file(&self, name: &str) -> io::Result<File> {
        Ok(rustix::fs::openat(&self.folder, name, FLAGS, Mode::from(0o644))?.into())
    }

    pub(super) fn remove(&self, names: &Names) {
        for name in [&names.data, &names.outboard] {
            match rustix::fs::unlinkat(&self.folder, name, AtFlags::empty()) {
                Ok(()) | Err(Errno::NOENT) => {}
                Err(errno) => {
                    tracing::warn!(
                        event = event::DISK_FAILED,
                        name,
                        %errno,
                        "cannot remove a partial blob"
                    )
                }
            }
        }
    }

    /// Opens the files under `names`, locked. `None` if another process holds them.
    fn try_own(&self, names: &Names, tree: Tree) -> io::Result<Option<(File, File, bool)>> {
        loop {
            let outboard = self.open_file(&names.outboard)?;
            match flock(&outboard, FlockOperation::NonBlockingLockExclusive) {
                Ok(()) => {}
                Err(Errno::WOULDBLOCK) => return Ok(None),
                Err(errno) => return Err(errno.into()),
            }
            // Whoever had it before may have completed or removed it meanwhile.
            if !self.is_still(&outboard, &names.outboard)? {
                continue;
            }
            let data = self.open_file(&names.data)?;
            let header = tree.size().to_le_bytes();
            let mut found = [0; 8];
            let known = outboard.read_exact_at(&mut found, 0).is_ok();
            let is_old = known && found == header && data.metadata()?.len() <= tree.size();
            if !is_old {
                outboard.set_len(0)?;
                data.set_len(0)?;
                outboard.write_all_at(&header, 0)?;
            }
            return Ok(Some((data, outboard, is_old)));
        }
    }

    fn is_still(&self, file: &File, name: &str) -> io::Result<bool> {
        let there = match rustix::fs::statat(&self.folder, name, AtFlags::SYMLINK_NOFOLLOW) {
            Ok(there) => there,
            Err(Errno::NOENT) => return Ok(false),
            Err(errno) => return Err(errno.into()),
        };
        let here = rustix::fs::fstat(file)?;
        Ok((there.st_dev, there.st_ino) == (here.st_dev, here.st_ino))
    }
}

impl LocalStore {
    /// Opens what is here of a blob that is said to have `size` bytes, for this process alone; nothing is here of most.
    pub fn open_partial(self: &Arc<Self>, digest: &Digest, size: u64) -> Result<Partial> {
        let failed = |error: io::Error| Error::unavailable(self.endpoint(), error);
        let tree = Tree::new(size);
        for number in 0..SAME_BLOB_MAX {
            let names = Names::new(digest, number);
            if let Some((data, outboard, is_old)) =
                self.partials().try_own(&names, tree).map_err(failed)?
            {
                let outboard = StoredOutboard::new(outboard);
                return Ok(Partial::new(
                    self.clone(),
                    *digest,
                    tree,
                    names,
                    data,
                    outboard,
                    is_old,
                ));
            }
        }
        let what = format!("{SAME_BLOB_MAX} processes are fetching blob {digest} already");
        Err(Error::unavailable(self.endpoint(), what))
    }
}

#[cfg(test)]
mod tests;
