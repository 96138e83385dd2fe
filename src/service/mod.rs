//! The three services that make a store, and what they are built from.
//!
//! Each room holds a trait with its contract, *backends* that end a chain, and *layers* that wrap a service and add
//! one thing. Nothing above a trait knows which backend it talks to; only [`crate::compose`] names them.
//!
//! A future that a service returns may be polled once outside of any task and handed to the runtime if it is not
//! ready. What is at hand is answered within that first poll; see [`crate::vfs`].

#[cfg(feature = "cloud")]
pub mod bigtable;
pub mod blob;
#[cfg(feature = "cloud")]
pub mod bucket;
pub(crate) mod circuit;
pub mod counters;
pub mod crypto;
pub mod directory;
mod error;
pub mod grpc;
pub(crate) mod in_turn;
pub mod local;
pub mod pathinfo;
pub(crate) mod patience;
pub(crate) mod pause;
pub mod range_set;
mod seal;
pub mod sharded_lru;
#[cfg(test)]
pub(crate) mod shelf;
pub mod single_flight;
pub mod swap;

use std::sync::Arc;

pub use error::{Cause, Error, Result};

use blob::BlobService;
use directory::DirectoryService;
use pathinfo::{NarCalculation, PathInfoService};

/// A whole store: the services that belong together.
#[derive(Clone, Debug)]
pub struct Stores {
    /// Contents of files.
    pub blobs: Arc<dyn BlobService>,
    /// Directories.
    pub directories: Arc<dyn DirectoryService>,
    /// Store paths.
    pub path_infos: Arc<dyn PathInfoService>,
    /// Archive hashes of contents.
    pub nars: Arc<dyn NarCalculation>,
}

#[cfg(test)]
mod layer_tests;
#[cfg(test)]
mod routed_tests;
