//! What a file operation can answer besides its result.

use crate::service;

/// Why a file operation failed. [`crate::mount::errno`] says what the kernel gets to hear.
#[derive(Debug, Clone, thiserror::Error)]
pub enum Error {
    /// No such name.
    #[error("no such entry")]
    NotFound,
    /// The inode is not one the table knows: the kernel never looked it up, or has forgotten it.
    #[error("unknown inode number")]
    Stale,
    /// A directory was needed.
    #[error("not a directory")]
    NotDirectory,
    /// A regular file was needed, this is a directory.
    #[error("is a directory")]
    IsDirectory,
    /// A regular file or a symlink was needed, and this is another kind.
    #[error("not possible for this kind of file")]
    WrongKind,
    /// The inode has no extended attribute of that name.
    #[error("no such extended attribute")]
    NoAttribute,
    /// Extended attributes of that kind (`security.`, `system.`, `trusted.`) do not exist here at all.
    #[error("only user attributes exist here")]
    NoAttributesOfKind,
    /// An answer that has a size of its own does not fit what the caller offers.
    #[error("the buffer is too small")]
    TooSmall,
    /// The directory names something its store does not have.
    #[error("{0} is missing from the store")]
    Missing(String),
    /// A service failed.
    #[error(transparent)]
    Service(#[from] service::Error),
}

/// The result of a file operation.
pub type Result<T, E = Error> = std::result::Result<T, E>;
