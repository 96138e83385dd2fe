//! Lists of store paths with what Nix keeps of each: what says which paths are to be moved.
//!
//! | form | made by |
//! | --- | --- |
//! | JSON list | `nix path-info --json` up to 2.18 |
//! | JSON map by path | `nix path-info --json` since 2.19; [`to_json`] |
//! | JSON object with `version` and `info` | `nix path-info --json --json-format 2` (and 3) |
//! | structured attributes | a derivation with `exportReferencesGraph` and `__structuredAttrs`, as `.attrs.json` |
//! | registration | `nix-store --dump-db`, `closureInfo`; [`to_registration`] |
//!
//! Which one it is, the text tells. Fields that are not known are read over. Of a key that a JSON object has twice, the
//! last counts, as for Nix itself.

mod error;
mod json;
mod registration;

use std::collections::HashMap;

pub use error::{EntryProblem, PathListError};
pub use json::to_json;
pub use registration::to_registration;

use super::{
    hash::NixHash,
    path_info::{NarInfo, PathInfoError, derivation_stem},
    store_path::{STORE_DIR, StorePath, StorePathError},
};

/// The longest list, in bytes: room for some 100,000 store paths.
pub const PATH_LIST_LEN_MAX: usize = 64 << 20;

/// A store path in a list.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ListedPath {
    /// The store path.
    pub store_path: StorePath,
    /// What Nix keeps of it.
    pub info: NarInfo,
}

/// Reads a list in any form. Each path is there once, in the order in which the list has them.
pub fn read(text: &[u8]) -> Result<Vec<ListedPath>, PathListError> {
    if text.len() > PATH_LIST_LEN_MAX {
        return Err(PathListError::TooLong);
    }
    let listed = match text.trim_ascii_start() {
        [b'{' | b'[', ..] => json::read(text)?,
        [] => Vec::new(),
        start if start.starts_with(STORE_DIR.as_bytes()) => registration::read(text)?,
        _ => return Err(PathListError::Format),
    };
    once_each(listed)
}

/// Several graphs may have paths in common.
fn once_each(listed: Vec<ListedPath>) -> Result<Vec<ListedPath>, PathListError> {
    let mut places: HashMap<_, usize> = HashMap::with_capacity(listed.len());
    let mut once: Vec<ListedPath> = Vec::with_capacity(listed.len());
    for path in listed {
        match places.get(&path.store_path.digest()) {
            Some(place) if once[*place] == path => {}
            Some(_) => return Err(PathListError::Contradiction(path.store_path)),
            None => {
                places.insert(path.store_path.digest(), once.len());
                once.push(path);
            }
        }
    }
    Ok(once)
}

/// A store path, absolute or as its base name.
fn store_path(text: &str) -> Result<StorePath, StorePathError> {
    match text.starts_with('/') {
        true => StorePath::from_absolute(text.as_bytes()),
        false => text.parse(),
    }
}

fn derivation(field: &'static str, text: &str) -> Result<StorePath, EntryProblem> {
    let deriver = store_path(text).map_err(|source| EntryProblem::StorePath { field, source })?;
    match derivation_stem(&deriver) {
        Some(_) => Ok(deriver),
        None => Err(PathInfoError::Deriver(deriver).into()),
    }
}

fn sha256(hash: NixHash) -> Result<[u8; 32], EntryProblem> {
    match hash {
        NixHash::Sha256(sha256) => Ok(sha256),
        NixHash::Md5(_) | NixHash::Sha1(_) | NixHash::Sha512(_) => {
            Err(EntryProblem::Algorithm(hash.algorithm()))
        }
    }
}

#[cfg(test)]
#[path = "../path_list_tests.rs"]
mod tests;
