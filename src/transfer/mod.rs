//! Store paths from one place to another: from files, or from another store.
//!
//! What the target has is left out. The contents of many paths are under way at the same time; their path infos are
//! put in an order in which each comes after all that it refers to, and after its contents survive a power cut. So a
//! transfer that was killed at any moment left nothing behind that is not whole, and does only the rest when it is
//! started again.
//!
//! **Memory.** The path infos of all paths; the contents of as many paths as are under way: see [`PATHS_AT_ONCE`].

mod commit;
mod contents;
mod from_files;
mod from_store;
mod order;

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use futures::{StreamExt as _, TryStreamExt as _, stream};

use crate::{
    ingest::{self, ImportError},
    nix::{NarHash, StorePath, StorePathDigest},
    service::{self, Stores},
};

pub use from_files::from_files;
pub use from_store::from_store;

/// How many paths have their contents brought at once. From files each may take
/// [`IN_FLIGHT_BYTES_MAX`](ingest::IN_FLIGHT_BYTES_MAX); from a store, its directories and some small files.
pub const PATHS_AT_ONCE: usize = 4;

/// How many questions are under way at once.
const QUESTIONS_AT_ONCE: usize = 32;

/// How far a transfer is. Shared with whoever shows it.
#[derive(Debug, Default)]
pub struct Progress {
    /// What was read.
    pub read: ingest::Progress,
    paths: AtomicU64,
    there: AtomicU64,
    done: AtomicU64,
}

/// What is done about paths that the target has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum There {
    /// They are left out.
    LeaveOut,
    /// What is missing of their contents is brought back, and they get no signature less than they have.
    Again,
}

/// What a transfer did.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Transferred {
    /// How many paths the target had already.
    pub there: u64,
    /// How many it has now in addition.
    pub done: u64,
}

/// Why a transfer failed.
#[derive(Debug, thiserror::Error)]
pub enum TransferError {
    /// A path refers to one that would not be there.
    #[error(
        "{path} refers to {reference}, which is neither among what is to be copied nor in the target"
    )]
    Reference {
        /// The path that refers to it.
        path: StorePath,
        /// What it refers to, as far as its name is known.
        reference: String,
    },
    /// Several paths refer to each other in a circle, which Nix does not make.
    #[error("{0} refers to itself by way of others")]
    Circle(StorePath),
    /// The source does not have a path.
    #[error("{0} is not in the store that is copied from")]
    Absent(String),
    /// Contents are not what is known of them.
    #[error(transparent)]
    Differs(Box<Difference>),
    /// A tree of files cannot be read or stored.
    #[error(transparent)]
    Import(#[from] ImportError),
    /// A store failed.
    #[error("cannot copy {path}: {source}")]
    Store {
        /// The store path.
        path: StorePath,
        /// Why not.
        source: service::Error,
    },
    /// A store failed, and it was about no path alone.
    #[error(transparent)]
    Service(#[from] service::Error),
    /// A part of the work ended without a result.
    #[error("the work on {0} was stopped")]
    Stopped(StorePath),
}

/// Contents that are not what is known of them.
#[derive(Debug, thiserror::Error)]
#[error("{path}: {what} has {found:?}, but {said_by} says {expected:?}")]
pub struct Difference {
    /// The store path.
    pub path: StorePath,
    /// What was read.
    pub what: String,
    /// Its archive's length and hash.
    pub found: NarHash,
    /// Who said something else.
    pub said_by: &'static str,
    /// What was said.
    pub expected: NarHash,
}

type Result<T> = std::result::Result<T, TransferError>;

impl Progress {
    /// How many paths there are.
    pub fn paths(&self) -> u64 {
        self.paths.load(Relaxed)
    }

    /// How many of them need nothing more: the target had them, or has them now.
    pub fn done(&self) -> u64 {
        self.there.load(Relaxed) + self.done.load(Relaxed)
    }

    fn begin(&self, paths: usize, there: usize) {
        self.paths.store(paths as u64, Relaxed);
        self.there.store(there as u64, Relaxed);
    }

    fn transferred(&self) -> Transferred {
        Transferred { there: self.there.load(Relaxed), done: self.done.load(Relaxed) }
    }
}

/// Something that is to be copied, as far as the order needs to know it.
trait Wanted {
    fn store_path(&self) -> &StorePath;

    /// What it refers to; may include itself.
    fn references(&self) -> Vec<StorePathDigest>;

    /// The name of a reference, for errors.
    fn name_of(&self, reference: &StorePathDigest) -> String;
}

/// Takes those out that the target has, and checks that all that the others refer to is there or will be.
async fn lacking<W: Wanted>(target: &Stores, ordered: Vec<W>, when_there: There) -> Result<Vec<W>> {
    let asked = stream::iter(ordered).map(|wanted| async move {
        let found = target.path_infos.get(&wanted.store_path().digest()).await?;
        let there = found.is_some_and(|found| found.store_path == *wanted.store_path());
        Ok::<_, TransferError>((wanted, there))
    });
    let mut lacking = Vec::new();
    // Only now, and only those: a path that is there may have been copied without what it refers to.
    let mut known = std::collections::HashSet::new();
    let mut asked = asked.buffered(QUESTIONS_AT_ONCE);
    let mut outside = Vec::new();
    while let Some((wanted, there)) = asked.try_next().await? {
        known.insert(wanted.store_path().digest());
        if there && when_there == There::LeaveOut {
            continue;
        }
        for reference in wanted.references() {
            if known.insert(reference) {
                outside.push((wanted.store_path().clone(), wanted.name_of(&reference), reference));
            }
        }
        lacking.push(wanted);
    }
    let outside = stream::iter(outside).map(|(path, name, digest)| async move {
        match target.path_infos.get(&digest).await? {
            Some(_) => Ok(()),
            None => Err(TransferError::Reference { path, reference: name }),
        }
    });
    outside.buffer_unordered(QUESTIONS_AT_ONCE).try_collect::<()>().await?;
    Ok(lacking)
}
