//! From contents to store paths.

use std::collections::BTreeSet;

use data_encoding::HEXLOWER;
use sha2::{Digest as _, Sha256};

use super::{
    ca::Ca,
    hash::NixHash,
    store_path::{STORE_DIR, StorePath, StorePathDigest, StorePathNameError},
};

/// What contents refer to.
#[derive(Debug, Clone, Copy, Default)]
pub struct ContentReferences<'a> {
    /// Other store paths, in any order.
    pub others: &'a [StorePath],
    /// Whether the contents refer to the store path that is being computed. The hash is then that of the contents
    /// without these references, because nobody knew them yet.
    pub itself: bool,
}

/// Why there is no store path for contents.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ComputeError {
    /// The name is illegal.
    #[error(transparent)]
    Name(#[from] StorePathNameError),
    /// Only texts, and archives by SHA-256, have a place for references in their address.
    #[error("contents addressed by {0} cannot have references")]
    References(Ca),
    /// A text would have to hold its own hash.
    #[error("a text cannot refer to itself")]
    TextRefersToItself,
}

/// Folds a SHA-256 into the 20 bytes of a store path's digest.
pub fn compress20(sha256: &[u8; 32]) -> [u8; 20] {
    let mut out = [0; 20];
    for (at, byte) in sha256.iter().enumerate() {
        out[at % 20] ^= byte;
    }
    out
}

/// The store path of contents that refer to nothing, by the SHA-256 of their archive: what `nix-store --add` prints.
pub fn source_path(name: &str, nar_sha256: &[u8; 32]) -> Result<StorePath, StorePathNameError> {
    store_path("source", nar_sha256, name)
}

/// The store path of content-addressed contents.
pub fn content_addressed_path(
    name: &str,
    ca: &Ca,
    references: ContentReferences<'_>,
) -> Result<StorePath, ComputeError> {
    let (kind, sha256) = match ca {
        Ca::Text(_) if references.itself => return Err(ComputeError::TextRefersToItself),
        Ca::Text(sha256) => (with_references("text", references), *sha256),
        Ca::Nar(NixHash::Sha256(sha256)) => (with_references("source", references), *sha256),
        Ca::Flat(_) | Ca::Nar(_) if references.itself || !references.others.is_empty() => {
            return Err(ComputeError::References(*ca));
        }
        Ca::Flat(hash) => ("output:out".to_owned(), fixed_output(hash, "")),
        Ca::Nar(hash) => ("output:out".to_owned(), fixed_output(hash, "r:")),
    };
    Ok(store_path(&kind, &sha256, name)?)
}

/// References are part of the type, sorted, each once.
fn with_references(kind: &str, references: ContentReferences<'_>) -> String {
    let mut out = kind.to_owned();
    for path in references.others.iter().collect::<BTreeSet<_>>() {
        out.push(':');
        out.push_str(&path.absolute());
    }
    if references.itself {
        out.push_str(":self");
    }
    out
}

/// The description of a fixed output, hashed, stands for its contents.
fn fixed_output(hash: &NixHash, method: &str) -> [u8; 32] {
    let text = format!("fixed:out:{method}{}:{}:", hash.algorithm(), hash.to_hex());
    Sha256::digest(text).into()
}

fn store_path(kind: &str, sha256: &[u8; 32], name: &str) -> Result<StorePath, StorePathNameError> {
    let text = format!("{kind}:sha256:{}:{STORE_DIR}:{name}", HEXLOWER.encode(sha256));
    let digest = compress20(&Sha256::digest(text).into());
    StorePath::new(StorePathDigest::from(digest), name)
}

#[cfg(test)]
#[path = "compute_tests.rs"]
mod tests;
