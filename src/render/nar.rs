//! A node of the store as a Nix archive, or only its size and hash.

use std::{
    io::{self, Write},
    ops::Range,
    sync::Arc,
};

use async_trait::async_trait;
use futures::StreamExt as _;

use super::{NarStream, RenderError};
use crate::{
    castore::Node,
    nix::{NarHash, nar::NarHasher, nar::NarWriteError},
    service::{self, blob::BlobService, directory::DirectoryService, pathinfo::NarCalculation},
};

/// Renders archives, and calculates their hashes by that.
#[derive(Debug, Clone)]
pub struct RenderNar {
    /// Where contents are.
    pub blobs: Arc<dyn BlobService>,
    /// Where directories are.
    pub directories: Arc<dyn DirectoryService>,
}

impl RenderNar {
    /// The bytes `wanted` of the archive of `node`, or, of `0..u64::MAX`, all of them.
    pub fn stream(&self, node: &Node, wanted: Range<u64>) -> NarStream {
        NarStream::new(self.blobs.clone(), self.directories.clone(), node.clone(), wanted)
    }
}

/// Writes the archive of `node` to `out`, which may block, while what follows is read. Returns `out`.
pub async fn write_nar<W: Write + Send>(
    blobs: &Arc<dyn BlobService>,
    directories: &Arc<dyn DirectoryService>,
    node: &Node,
    mut out: W,
) -> Result<W, RenderError> {
    let (blobs, directories) = (blobs.clone(), directories.clone());
    let mut pieces = NarStream::new(blobs, directories, node.clone(), 0..u64::MAX);
    while let Some(piece) = pieces.next().await {
        out.write_all(&piece?).map_err(write_failed)?;
    }
    out.flush().map_err(write_failed)?;
    Ok(out)
}

fn write_failed(error: io::Error) -> RenderError {
    RenderError::Write(NarWriteError::Io(error))
}

#[async_trait]
impl NarCalculation for RenderNar {
    async fn calculate_nar(&self, node: &Node) -> service::Result<NarHash> {
        let hasher = write_nar(&self.blobs, &self.directories, node, NarHasher::default()).await;
        Ok(hasher.map_err(RenderError::into_service_error)?.finish())
    }

    fn reads_contents(&self) -> bool {
        true
    }
}
