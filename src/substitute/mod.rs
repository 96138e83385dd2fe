//! Ordinary Nix binary caches, seen as the three services.
//!
//! A cache answers, for a store path, with a *narinfo* that says which archive holds its contents, and with that archive.
//! What it tells is believed if a trusted key signed it, or if the contents themselves prove it. The archive is fetched,
//! decompressed, hashed and taken apart at the same time ([`crate::ingest`]), and only once it was found to be the one
//! that was told of does the path become visible.
//!
//! | file | holds |
//! | --- | --- |
//! | `client` | HTTP: deadlines, redirects, credentials, files that break off |
//! | `binary_cache` | one cache: what it tells, and whether that is believed |
//! | `transfer` | one archive on its way, beside `checked_file` and `pipe` |
//! | `flights`, `catcher`, `keeping` | each archive once for all who want something of it; who waits for what; what is kept |
//! | `substituter` | several caches, in turn |
//! | `records` | which archives were here, and what was in them |
//! | `path_infos`, `directories`, `blobs` | the services |
//! | `believed` | of what was kept, what is believed |

mod believed;
mod binary_cache;
mod blobs;
mod cache_info;
mod catcher;
mod checked_file;
mod client;
mod directories;
mod fault;
mod flights;
mod keeping;
mod netrc;
mod path_infos;
mod records;
mod substituter;
mod transfer;

pub use believed::BelievedPathInfos;
pub use binary_cache::{BinaryCache, CacheOptions, CacheOptionsError};
pub use blobs::SubstitutedBlobs;
pub use cache_info::{CacheInfo, CacheInfoError};
pub use client::{Credentials, CredentialsError, REDIRECTS_MAX};
pub use directories::SubstitutedDirectories;
pub use fault::CacheFault;
pub use netrc::{Login, Netrc, NetrcError};
pub use path_infos::SubstitutedPathInfos;
pub use records::{ArchiveRecords, ContentKey, RecordsInMemory, RecordsInStore};
pub use substituter::{Destination, Substituter};
