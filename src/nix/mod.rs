//! Nix: store paths, hashes, signatures, path infos and archives. Pure types, no I/O.

pub mod base32;
mod ca;
mod compression;
mod compute;
mod content_claim;
mod hash;
mod hasher;
pub mod nar;
mod nar_url;
mod narinfo;
mod path_info;
pub mod path_list;
mod self_references;
mod signature;
mod store_path;

pub use base32::Base32Error;
pub use ca::{Ca, CaError};
pub use compression::{Compression, CompressionError};
pub use compute::{
    ComputeError, ContentReferences, compress20, content_addressed_path, source_path,
};
pub use content_claim::{ClaimCheck, ClaimHasher, ContentClaim};
pub use hash::{HashAlgorithm, HashError, NixHash};
pub use hasher::NixHasher;
pub use nar_url::{NAR_URL_LEN_MAX, NarUrl, NarUrlError, Origin};
pub use narinfo::{
    ArchiveFile, Field, FieldError, NARINFO_LEN_MAX, NARINFO_SIGNATURES_MAX, NarInfoFile,
    NarInfoFileError, SYSTEM_LEN_MAX, System,
};
pub use path_info::{
    DERIVATION_SUFFIX, Details, NarHash, NarInfo, PathInfo, PathInfoError, derivation_stem,
};
pub use self_references::SelfReferenceHasher;
pub use signature::{PublicKey, SecretKey, Signature, SignatureError};
pub use store_path::{
    STORE_DIR, STORE_PATH_NAME_LEN_MAX, StorePath, StorePathDigest, StorePathDigestError,
    StorePathError, StorePathNameError, check_store_path_name,
};
