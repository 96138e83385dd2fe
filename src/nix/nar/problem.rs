//! What can be wrong with an archive.

use std::io;

use crate::castore::{NameError, SymlinkTargetError};

/// Why an archive cannot be read, with where that was found.
#[derive(Debug, thiserror::Error)]
#[error("byte {offset} of the archive, in \"{path}\": {problem}")]
pub struct NarReadError {
    /// Where in the archive, in bytes.
    pub offset: u64,
    /// Where in the tree, as names between slashes, escaped. Empty at the root.
    pub path: String,
    /// What is wrong.
    #[source]
    pub problem: NarProblem,
}

/// What is wrong with an archive.
#[derive(Debug, thiserror::Error)]
pub enum NarProblem {
    /// The source failed.
    #[error("cannot read on: {0}")]
    Io(#[from] io::Error),
    /// The bytes end before the archive does.
    #[error("the archive is cut off")]
    CutOff,
    /// Bytes behind the end of the archive.
    #[error("something follows where the archive ends")]
    Trailing,
    /// The archive does not end where it should at the latest.
    #[error("the archive is longer than {0} bytes")]
    TooLong(u64),
    /// A string that would reach beyond the longest legal archive.
    #[error("a string of {len} bytes, where the archive has at most {left} left")]
    Length {
        /// The length announced, in bytes.
        len: u64,
        /// How many bytes can follow.
        left: u64,
    },
    /// A string is filled up with something else than zeros.
    #[error("a string is not followed by zeros")]
    Padding,
    /// Another string than the format has here.
    #[error("expected {expected}, found {found}")]
    Word {
        /// What may stand here.
        expected: &'static str,
        /// What stands here, escaped and in quotes; only its length, if it is longer than any word.
        found: String,
    },
    /// An illegal name.
    #[error(transparent)]
    Name(#[from] NameError),
    /// An illegal symlink target.
    #[error(transparent)]
    Target(#[from] SymlinkTargetError),
    /// A name that does not come after the one before it.
    #[error("the entry \"{name}\" comes after \"{last}\": out of order, or twice")]
    Unsorted {
        /// The name, escaped.
        name: String,
        /// The one before it, escaped.
        last: String,
    },
    /// More directories inside of each other than are allowed.
    #[error("more than {0} directories inside of each other")]
    Nesting(usize),
    /// Something was wrong before.
    #[error("reading goes on after an error")]
    AfterError,
}
