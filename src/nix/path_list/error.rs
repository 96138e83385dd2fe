//! What is wrong with a list of store paths.

use crate::nix::{
    CaError, HashError, PathInfoError, STORE_DIR, SignatureError, StorePath, StorePathError,
    hash::HashAlgorithm,
};

/// Why a list of store paths is refused.
#[derive(Debug, thiserror::Error)]
pub enum PathListError {
    /// Longer than [`PATH_LIST_LEN_MAX`](super::PATH_LIST_LEN_MAX).
    #[error(
        "a list of store paths has at most {} bytes, and this one is longer",
        super::PATH_LIST_LEN_MAX
    )]
    TooLong,
    /// Neither JSON nor a registration.
    #[error("neither JSON nor a registration: expected {{, [ or {STORE_DIR} at its start")]
    Format,
    /// JSON that cannot be read.
    #[error("wrong JSON: {0}")]
    Json(#[from] serde_json::Error),
    /// An object that is of none of the known shapes.
    #[error(
        "an object of an unknown shape: expected the output of nix path-info --json, or structured attributes with exportReferencesGraph or \"closure\""
    )]
    Shape,
    /// A newer version than is known.
    #[error("version {0} of the JSON of nix path-info is not known, only 1 to 3")]
    Version(String),
    /// A key of a map is no store path.
    #[error("{key:?} is no store path: {source}")]
    Key {
        /// The key.
        key: String,
        /// What is wrong with it.
        source: StorePathError,
    },
    /// An entry is wrong.
    #[error("{path}: {problem}")]
    Entry {
        /// The store path, or where in the list it would be.
        path: String,
        /// What is wrong.
        problem: EntryProblem,
    },
    /// The same path twice, and not the same of it.
    #[error("{0} is listed twice, in two ways")]
    Contradiction(StorePath),
    /// A line of a registration is wrong.
    #[error("line {line} of the registration: {problem}")]
    Line {
        /// Its number, from 1.
        line: usize,
        /// What is wrong.
        problem: EntryProblem,
    },
}

/// What is wrong with one store path in a list.
#[derive(Debug, thiserror::Error)]
pub enum EntryProblem {
    /// Something is not there.
    #[error("{0} is missing")]
    Missing(&'static str),
    /// Something is of another kind.
    #[error("{0} is not {1}")]
    Kind(&'static str, &'static str),
    /// It is not valid where the list was made.
    #[error("it is not valid in the store that the list is of")]
    NotValid,
    /// A number that is none.
    #[error("{0} is no number from {1} to 2^64 - 1")]
    Number(&'static str, u64),
    /// Another store directory.
    #[error("it is for a store in {0:?}, not in {STORE_DIR}")]
    StoreDir(String),
    /// A store path that is none.
    #[error("{field}: {source}")]
    StorePath {
        /// Where it stands.
        field: &'static str,
        /// What is wrong.
        source: StorePathError,
    },
    /// A hash that is none.
    #[error("{field}: {source}")]
    Hash {
        /// Where it stands.
        field: &'static str,
        /// What is wrong.
        source: HashError,
    },
    /// The hash of an archive by another algorithm.
    #[error("the archive's hash is by {0}, not by sha256")]
    Algorithm(HashAlgorithm),
    /// A content address that is none.
    #[error("ca: {0}")]
    Ca(#[from] CaError),
    /// A way to address contents that is not known.
    #[error("ca: the method {0:?} is none of flat, nar, text")]
    Method(String),
    /// A signature that is none.
    #[error("signatures: {0}")]
    Signature(#[from] SignatureError),
    /// The deriver is no derivation.
    #[error("deriver: {0}")]
    Deriver(#[from] PathInfoError),
    /// There is no hash of the archive, so that nobody could tell whether what is read is what was meant.
    #[error(
        "there is no hash: of what exportReferencesGraph writes, only that with structured attributes has them"
    )]
    NoHash,
}
