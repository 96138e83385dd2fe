//! What tells that a file is as it was.

use std::{fs, io, os::unix::fs::MetadataExt as _};

/// A file's inode, length, and the time at which anything about it last changed. Whoever writes to the file changes the
/// latter, and cannot set it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Stamp {
    pub(super) inode: u64,
    /// In bytes.
    pub(super) len: u64,
    /// In nanoseconds since 1970.
    pub(super) changed: i64,
    /// How many names it has. With none it is only there for those who have it open.
    names: u64,
}

impl Stamp {
    pub(super) fn of(metadata: &fs::Metadata) -> Self {
        Stamp {
            inode: metadata.ino(),
            len: metadata.len(),
            changed: changed(metadata),
            names: metadata.nlink(),
        }
    }

    pub(super) fn of_file(file: &fs::File) -> io::Result<Self> {
        Ok(Stamp::of(&file.metadata()?))
    }

    /// Whether the file has been removed.
    pub(super) fn is_gone(&self) -> bool {
        self.names == 0
    }

    /// Whether it is a file that was seen with these three.
    pub(super) fn is(&self, (inode, len, changed): (i64, i64, i64)) -> bool {
        (self.inode as i64, self.len as i64, self.changed) == (inode, len, changed)
    }
}

fn changed(metadata: &fs::Metadata) -> i64 {
    metadata.ctime().saturating_mul(1_000_000_000).saturating_add(metadata.ctime_nsec())
}
