//! What can be wrong with a store path.

use std::fmt;

use crate::{
    castore::Digest,
    nix::{Ca, NarHash, StorePath},
    service,
};

/// Something that is wrong, and where. Displayed as one line.
#[derive(Debug)]
pub struct Finding {
    /// The store path, or what in it is wrong, as an absolute path, escaped.
    pub path: String,
    /// What is wrong.
    pub problem: Problem,
}

/// What is wrong with something.
#[derive(Debug, thiserror::Error)]
pub enum Problem {
    /// A directory is missing, damaged, or cannot be read.
    #[error("directory {digest}: {source}")]
    Directory {
        /// Its digest.
        digest: Digest,
        /// What the store says.
        source: service::Error,
    },
    /// A file is missing, damaged, or cannot be read.
    #[error("blob {digest}: {source}")]
    Blob {
        /// The digest of its contents.
        digest: Digest,
        /// What the store says.
        source: service::Error,
    },
    /// What the store sent cannot be read to its end.
    #[error("it cannot be read: {0}")]
    Unreadable(service::Error),
    /// The archive is not the one that is told of.
    #[error("its archive has {found:?}, and should have {expected:?}")]
    NarHash {
        /// What its contents make.
        found: NarHash,
        /// What its path info says.
        expected: NarHash,
    },
    /// The contents do not have the hash that their address says.
    #[error("its contents are not those of its content address {0}")]
    Address(Ca),
    /// The address, with these references, belongs to another path.
    #[error("its content address {0} is that of another path")]
    AddressName(Ca),
    /// A signature by a key that is trusted is not one of this path.
    #[error("its signature by {0} is wrong")]
    Signature(String),
    /// Nobody who is trusted vouches for it, nor do its contents.
    #[error("it is not signed by a trusted key")]
    Unsigned,
    /// Something it refers to is not there.
    #[error("it refers to {0}, which is absent")]
    Reference(String),
    /// There is more than is told.
    #[error("more of it is wrong than is told here")]
    More,
}

impl Finding {
    pub(super) fn of(store_path: &StorePath, problem: Problem) -> Self {
        Finding { path: store_path.absolute(), problem }
    }
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.path, self.problem)
    }
}
