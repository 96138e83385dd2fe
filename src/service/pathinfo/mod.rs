//! Path infos, addressed by the 20 bytes of the store path's digest, and the archive hashes of contents.

pub mod backend;
pub mod layer;

use std::{fmt, pin::Pin};

use async_trait::async_trait;
use futures::Stream;

use super::Result;
use crate::{
    castore::Node,
    nix::{NarHash, PathInfo, StorePathDigest},
};

/// Path infos in no order. An error ends the stream.
pub type PathInfoStream = Pin<Box<dyn Stream<Item = Result<PathInfo>> + Send>>;

/// Stores path infos.
#[async_trait]
pub trait PathInfoService: Send + Sync + fmt::Debug {
    /// What is known of the store path with this digest. `None` if it is absent. The caller compares the name.
    async fn get(&self, digest: &StorePathDigest) -> Result<Option<PathInfo>>;

    /// Stores a path info in place of one that may be there. Returns it as it is stored, once that survives a
    /// power cut: signatures may have been added. Its contents must have been put, and synced, before.
    async fn put(&self, path_info: PathInfo) -> Result<PathInfo>;

    /// All of them. One that is put meanwhile may or may not be among them; the others are there exactly once.
    fn list(&self) -> PathInfoStream;
}

/// Computes archive hashes.
#[async_trait]
pub trait NarCalculation: Send + Sync + fmt::Debug {
    /// The size and SHA-256 of the archive of `node`.
    async fn calculate_nar(&self, node: &Node) -> Result<NarHash>;

    /// Whether all contents come to this process to be hashed.
    fn reads_contents(&self) -> bool {
        false
    }
}
