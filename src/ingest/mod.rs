//! Trees and archives into the services. What follows is about trees; see [`ingest_nar`] for archives.
//!
//! An import reads every file once. Three kinds of threads work at the same time:
//!
//! * the *walker* lists directories in the order of the archive and says what comes, in batches;
//! * *workers* read, hash and store files: the small ones of a batch together;
//! * the *sequencer*, the caller's thread, takes what the workers have read in the order of the archive, computes the
//!   archive's SHA-256 from it, and builds the directories.
//!
//! What is between them is bounded in bytes ([`IN_FLIGHT_BYTES_MAX`]) and in number. It cannot come to a standstill:
//! workers take files in the order in which the sequencer wants them, so the file that it waits for is always with a
//! worker or already read, and a worker waits for nobody but the sequencer. The walker never waits while it keeps a
//! batch back.
//!
//! Nothing here recurses as deep as the tree is, builds paths longer than one name, or keeps more directories open than
//! a bounded number.

mod budget;
mod decompress;
mod listing;
mod nar;
mod pipe;
mod place;
mod sink;
mod spool;
#[cfg(test)]
mod tests;
mod tree;
mod walk;
mod worker;

use std::{
    io,
    ops::AddAssign,
    path::PathBuf,
    sync::atomic::{AtomicU64, Ordering},
};

pub use decompress::{XZ_MEMORY_MAX, ZSTD_WINDOW_LOG_MAX, decompress};
pub use nar::{CONTENTS_BYTES_MAX, IngestNarError, IngestedNar, ingest_nar};
pub use pipe::{PipeReader, PipeWriter, decompress_into, pipe};
pub use spool::{is_spooled_as_claimed, spool_nar, unnamed_file};
pub use tree::{Contents, Import, import_contents, import_tree};

use crate::{
    castore::{DirectoryError, NameError, SymlinkTargetError},
    nix::{PathInfo, StorePathNameError, nar::NarWriteError},
    service::{self, Stores},
};

/// How many bytes of contents an import holds at most, besides a few pieces of large files.
pub const IN_FLIGHT_BYTES_MAX: usize = 48 << 20;

/// How many entries are under way at most. Each may hold a descriptor of the directory it lies in.
pub const IN_FLIGHT_ENTRIES_MAX: usize = 512;

/// What an import found, and how much of it the store did not have.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Counts {
    /// How many regular files there are.
    pub files: u64,
    /// How many bytes they have.
    pub bytes: u64,
    /// How many of the files were not in the store before.
    pub new_files: u64,
    /// How many bytes those have.
    pub new_bytes: u64,
}

impl AddAssign for Counts {
    fn add_assign(&mut self, other: Self) {
        self.files += other.files;
        self.bytes += other.bytes;
        self.new_files += other.new_files;
        self.new_bytes += other.new_bytes;
    }
}

/// How far an import is. Shared with whoever shows it.
#[derive(Debug, Default)]
pub struct Progress {
    files: AtomicU64,
    bytes: AtomicU64,
}

impl Progress {
    pub(crate) fn add_bytes(&self, bytes: usize) {
        self.bytes.fetch_add(bytes as u64, Ordering::Relaxed);
    }

    pub(crate) fn add_file(&self) {
        self.files.fetch_add(1, Ordering::Relaxed);
    }

    /// How many files were read.
    pub fn files(&self) -> u64 {
        self.files.load(Ordering::Relaxed)
    }

    /// How many bytes were read.
    pub fn bytes(&self) -> u64 {
        self.bytes.load(Ordering::Relaxed)
    }
}

/// Why a tree cannot be imported.
#[derive(Debug, thiserror::Error)]
pub enum ImportError {
    /// A file operation failed.
    #[error("cannot {what} {path}: {source}")]
    Io {
        /// What was tried.
        what: &'static str,
        /// With which file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// It is neither file nor directory nor symlink.
    #[error("{path} is a {kind}, which a store cannot hold")]
    Special {
        /// Which file.
        path: PathBuf,
        /// What it is.
        kind: &'static str,
    },
    /// A file changed while it was read.
    #[error("{path} changed while it was read: it had {expected} bytes, then {found}")]
    Changed {
        /// Which file.
        path: PathBuf,
        /// Its length when it was listed, in bytes.
        expected: u64,
        /// How much was read, in bytes.
        found: u64,
    },
    /// A directory is not where it was when the walk went into it.
    #[error("{path} was moved while it was read")]
    Moved {
        /// Where it was.
        path: PathBuf,
    },
    /// A name is not one a store can hold.
    #[error("{path}: {source}")]
    Name {
        /// Which file.
        path: PathBuf,
        /// What is wrong with it.
        source: NameError,
    },
    /// A symlink's target is not one a store can hold.
    #[error("{path}: {source}")]
    Target {
        /// Which file.
        path: PathBuf,
        /// What is wrong with it.
        source: SymlinkTargetError,
    },
    /// A directory is not one a store can hold.
    #[error("{path}: {source}")]
    Directory {
        /// Which directory.
        path: PathBuf,
        /// What is wrong with it.
        source: DirectoryError,
    },
    /// The last part of the path is no name for a store path.
    #[error(
        "{path} cannot be the name of a store path ({source}): give it another one with --name"
    )]
    StorePathName {
        /// The path.
        path: PathBuf,
        /// What is wrong with the name.
        source: StorePathNameError,
    },
    /// The archive cannot be computed.
    #[error("cannot compute the archive: {0}")]
    Nar(#[from] NarWriteError),
    /// The store does not take it.
    #[error("cannot store {path}: {source}")]
    Store {
        /// What was to be stored.
        path: PathBuf,
        /// Why not.
        source: service::Error,
    },
    /// The store does not take one of several small files.
    #[error("cannot store {first} and files that follow it: {source}")]
    StoreSome {
        /// The first of them.
        first: PathBuf,
        /// Why not.
        source: service::Error,
    },
    /// The import was stopped by an error elsewhere.
    #[error("the import was stopped")]
    Stopped,
}

/// Makes what was imported visible, after bringing it to the disk once for all. Returns the path infos as they are
/// stored.
pub async fn commit(stores: &Stores, imports: &[Import]) -> service::Result<Vec<PathInfo>> {
    stores.blobs.sync().await?;
    stores.directories.sync().await?;
    let mut stored = Vec::new();
    for import in imports {
        let there = stores.path_infos.get(&import.path_info.store_path.digest()).await?;
        stored.push(match there {
            // It may have signatures by now, which are not ours to remove.
            Some(there) if there.node == import.path_info.node => there,
            _ => stores.path_infos.put(import.path_info.clone()).await?,
        });
    }
    Ok(stored)
}
