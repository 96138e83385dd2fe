//! The BLAKE3 trees of long blobs, kept beside them: `blobs/<2 hex>/<64 hex>.outboard`.
//!
//! A tree needs no care: it is checked against the digest whenever it is used, and computed again where it is missing or
//! damaged. So it is not brought to disk before its blob is, and may be removed at any time. Shorter blobs have none: to
//! hash them again costs less than a file.

use std::{
    fs::File,
    io::{self, Write as _},
    os::{fd::OwnedFd, unix::fs::FileExt as _},
};

use rustix::{fs::AtFlags, io::Errno};

use super::{
    LocalStore,
    blob_files::{BlobFiles, READ_FLAGS},
    session::blob_path,
    usage::on_disk,
};
use crate::{
    castore::{
        Digest,
        outboard::{NODE_LEN, Outboard, OutboardBuilder, Tree, TreeNode},
    },
    service::{Result, blob::LocalBlob},
};

/// Blobs that are longer, in bytes, have their trees kept.
pub const OUTBOARD_ABOVE_LEN: u64 = 1 << 20;

/// How many nodes are read at once: those of a subtree lie in a row.
const NODES_AT_ONCE: usize = 64;

/// How much of a blob is read at once to hash it, in bytes.
const HASHED_PIECE_LEN: usize = 1 << 20;

impl LocalStore {
    /// Keeps the tree of a blob that is here or about to be. Others see it at once.
    pub fn keep_outboard(&self, digest: &Digest, outboard: &Outboard) -> Result<()> {
        let replaced = match self.blobs().open_outboard(digest)? {
            Some(replaced) => replaced.file().metadata().map_or(0, |metadata| metadata.len()),
            None => 0,
        };
        let len = on_disk(outboard.as_bytes().len() as u64);
        self.reserve(len)?;
        let kept = self.blobs().put_outboard(digest, outboard);
        self.release(if kept.is_ok() { on_disk(replaced) } else { len });
        kept
    }
}

impl BlobFiles {
    fn put_outboard(&self, digest: &Digest, outboard: &Outboard) -> Result<()> {
        let temporary = self.create_temporary()?;
        let written = (&**temporary.file()).write_all(outboard.as_bytes());
        let kept = written.map_err(|error| self.failed(error)).and_then(|()| {
            let (from, to) = (&self.session.folder, &self.blobs);
            rustix::fs::renameat(from, temporary.name(), to, outboard_path(digest))
                .map_err(|errno| self.failed(errno))
        });
        if kept.is_err() {
            self.discard(&temporary);
        }
        kept
    }

    /// Keeps a file in `folder` as the tree of a blob.
    pub(super) fn adopt_outboard(
        &self,
        digest: &Digest,
        folder: &OwnedFd,
        name: &str,
    ) -> Result<()> {
        rustix::fs::renameat(folder, name, &self.blobs, outboard_path(digest))
            .map_err(|errno| self.failed(errno))
    }

    /// Removes the tree of a blob. Returns the bytes of disk that it took.
    pub(super) fn remove_outboard(&self, digest: &Digest) -> Result<u64> {
        let path = outboard_path(digest);
        let flags = AtFlags::SYMLINK_NOFOLLOW;
        let removed = rustix::fs::statat(&self.blobs, &path, flags).and_then(|stat| {
            rustix::fs::unlinkat(&self.blobs, &path, AtFlags::empty())?;
            Ok(on_disk(stat.st_size as u64))
        });
        match removed {
            Err(Errno::NOENT) => Ok(0),
            removed => removed.map_err(|errno| self.failed(errno)),
        }
    }

    /// The tree of a blob, as it was kept; not checked yet.
    pub fn open_outboard(&self, digest: &Digest) -> Result<Option<StoredOutboard>> {
        let path = outboard_path(digest);
        match rustix::fs::openat(&self.blobs, path, READ_FLAGS, rustix::fs::Mode::empty()) {
            Ok(file) => Ok(Some(StoredOutboard::new(file.into()))),
            Err(Errno::NOENT) => Ok(None),
            Err(errno) => Err(self.failed(errno)),
        }
    }
}

fn outboard_path(digest: &Digest) -> String {
    blob_path(digest) + ".outboard"
}

/// A tree in a file, read as it is needed. Nothing in it is to be believed unchecked.
#[derive(Debug)]
pub struct StoredOutboard {
    file: File,
    /// What was read last: which node it begins with, and how many bytes there are.
    first: u64,
    len: usize,
    buffer: Box<[u8; NODES_AT_ONCE * NODE_LEN]>,
}

impl StoredOutboard {
    pub(super) fn new(file: File) -> Self {
        StoredOutboard { file, first: 0, len: 0, buffer: Box::new([0; NODES_AT_ONCE * NODE_LEN]) }
    }

    /// The file.
    pub fn file(&self) -> &File {
        &self.file
    }

    /// Has to be called when the file was written to.
    pub(super) fn forget(&mut self) {
        self.len = 0;
    }

    /// A node; `None` if the file is too short for it.
    pub fn node(&mut self, index: u64) -> io::Result<Option<TreeNode>> {
        if let Some(node) = self.buffered(index) {
            return Ok(Some(node));
        }
        (self.first, self.len) = (index, 0);
        while self.len < NODE_LEN {
            let at = Tree::node_offset(index) + self.len as u64;
            match self.file.read_at(&mut self.buffer[self.len..], at) {
                Ok(0) => break,
                Ok(more) => self.len += more,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(self.buffered(index))
    }

    fn buffered(&self, index: u64) -> Option<TreeNode> {
        let place = usize::try_from(index.checked_sub(self.first)?).ok()?.checked_mul(NODE_LEN)?;
        self.buffer[..self.len].get(place..place.checked_add(NODE_LEN)?)?.try_into().ok()
    }
}

/// Hashes a blob that lies here: what its digest and its tree really are. Blocks.
pub fn hash_blob(blob: &LocalBlob) -> io::Result<(Digest, Outboard)> {
    let mut builder = OutboardBuilder::new();
    let mut buffer = vec![0; blob.size.min(HASHED_PIECE_LEN as u64) as usize];
    while builder.len() < blob.size {
        let at = builder.len();
        let len = (blob.size - at).min(HASHED_PIECE_LEN as u64) as usize;
        blob.read_exact_at(&mut buffer[..len], at)?;
        builder.update(&buffer[..len]);
    }
    Ok(builder.finish())
}
