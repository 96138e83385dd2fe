//! What can be wrong with what a binary cache tells or sends.

use super::cache_info::CacheInfoError;
use crate::{
    ingest::IngestNarError,
    nix::{NarInfoFileError, StorePath, StorePathDigest, base32},
};

/// Why a cache is not believed. Nothing of what it told becomes visible.
#[derive(Debug, thiserror::Error)]
pub enum CacheFault {
    /// It has nothing where every cache has something.
    #[error("there is no nix-cache-info: is it a binary cache?")]
    NoCacheInfo,
    /// What it says of itself.
    #[error(transparent)]
    CacheInfo(#[from] CacheInfoError),
    /// Text that is no narinfo.
    #[error("{digest}.narinfo: {source}")]
    NarInfo {
        /// Which one.
        digest: StorePathDigest,
        /// What is wrong with it.
        source: NarInfoFileError,
    },
    /// More than was asked for.
    #[error("{what} is longer than {len_max} bytes")]
    TooLong {
        /// What was asked for.
        what: String,
        /// How much is read, in bytes.
        len_max: usize,
    },
    /// The narinfo of another store path.
    #[error("{asked}.narinfo is about {told}")]
    OtherPath {
        /// What was asked for.
        asked: StorePathDigest,
        /// What it tells about.
        told: StorePath,
    },
    /// Nobody vouches for the path.
    #[error("{0} is not signed, and signatures are required")]
    Unsigned(StorePath),
    /// Those who vouch for it are not trusted.
    #[error("{path} is signed by {signers}, none of which is among the trusted public keys")]
    Untrusted {
        /// The store path.
        path: StorePath,
        /// Their names.
        signers: String,
    },
    /// A trusted key's name stands by a signature that it did not make.
    #[error("{path} has a wrong signature by {signer}: what was signed is not what is told")]
    BadSignature {
        /// The store path.
        path: StorePath,
        /// The key's name.
        signer: String,
    },
    /// The archive is said to be on another server.
    #[error(
        "the archive of {path} is said to be at {url}, which is not on this server; \
         foreign-urls=1 in the cache's address allows that"
    )]
    Elsewhere {
        /// The store path.
        path: StorePath,
        /// Where.
        url: String,
    },
    /// It is told of an archive, but not there.
    #[error("the archive {0} is not there")]
    NoArchive(String),
    /// What is not compressed has two hashes or two lengths.
    #[error(
        "the archive of {0} is not compressed, but FileHash or FileSize is not that of the archive"
    )]
    TwoHashes(StorePath),
    /// The file does not have the length that was told.
    #[error("the file has {found}, where FileSize is {expected} bytes")]
    FileSize {
        /// What was told, in bytes.
        expected: u64,
        /// How many bytes came.
        found: String,
    },
    /// More came than even the worst compression makes of such an archive.
    #[error("the file has more than {0} bytes, too many for an archive of that NarSize")]
    Inflated(u64),
    /// The file does not have the hash that was told.
    #[error(
        "the file has the hash {}, not the FileHash {}",
        base32::encode(found),
        base32::encode(expected)
    )]
    FileHash {
        /// What was told.
        expected: [u8; 32],
        /// What came.
        found: [u8; 32],
    },
    /// The file cannot be decompressed, or is no archive, or another one.
    #[error("the archive of {path} at {url}: {source}")]
    Archive {
        /// The store path.
        path: StorePath,
        /// Where it was.
        url: String,
        /// What is wrong with it.
        source: Box<IngestNarError>,
    },
    /// The contents are not what their address says.
    #[error("the contents of {0} do not have the hash in its content address")]
    ContentAddress(StorePath),
}
