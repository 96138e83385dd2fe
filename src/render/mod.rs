//! The services into archives and listings, and what archives prove.
//!
//! An archive is rendered in *segments*: many small files with what stands between them, or one large file. A few
//! segments are read at the same time, ahead of whoever takes the bytes, and are handed over in their order. What is
//! held is bounded ([`NarStream`]), however large the tree is, and nothing recurses as deep as it is.

mod claim;
mod listing;
mod nar;
mod read;
mod segment;
mod stream;
#[cfg(test)]
mod tests;
mod walk;

pub use claim::is_as_claimed;
pub use listing::render_listing;
pub use nar::{RenderNar, write_nar};
pub use stream::NarStream;
pub use walk::{Step, TreeWalk};

use crate::{
    castore::Digest,
    nix::nar::{ListingWriteError, NarWriteError},
    service,
};

/// Why an archive or a listing cannot be rendered.
#[derive(Debug, thiserror::Error)]
pub enum RenderError {
    /// A service failed.
    #[error(transparent)]
    Service(#[from] service::Error),
    /// The archive cannot be written.
    #[error(transparent)]
    Write(#[from] NarWriteError),
    /// The listing cannot be written.
    #[error(transparent)]
    Listing(#[from] ListingWriteError),
    /// The store names something it does not have.
    #[error("{0} is missing from the store")]
    Missing(String),
    /// A directory says another length of a blob than it has.
    #[error("blob {digest} has {found} bytes, and {expected} where a directory names it")]
    Length {
        /// Which blob.
        digest: Digest,
        /// What the directory says, in bytes.
        expected: u64,
        /// What the store has, in bytes.
        found: u64,
    },
    /// Reading ended without an error, before all was read.
    #[error("reading stopped before the end")]
    Stopped,
}

impl RenderError {
    fn missing_blob(digest: &Digest) -> Self {
        RenderError::Missing(format!("blob {digest}"))
    }

    /// The same as an error of the store.
    pub fn into_service_error(self) -> service::Error {
        match self {
            RenderError::Service(error) => error,
            error @ RenderError::Stopped => service::Error::unavailable("the store", error),
            error @ (RenderError::Write(_)
            | RenderError::Listing(_)
            | RenderError::Missing(_)
            | RenderError::Length { .. }) => service::Error::corrupt("the store", error),
        }
    }
}
