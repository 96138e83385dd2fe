//! A node of the store as a Nix archive, or only its size and hash.

use std::{io::Write, sync::Arc};

use async_trait::async_trait;
use futures::StreamExt as _;

use crate::{
    castore::{Digest, Node},
    nix::{
        NarHash,
        nar::{NarHasher, NarWriteError, NarWriter},
    },
    service::{self, blob::BlobService, directory::DirectoryService, pathinfo::NarCalculation},
};

/// Why an archive cannot be rendered.
#[derive(Debug, thiserror::Error)]
pub enum RenderError {
    /// A service failed.
    #[error(transparent)]
    Service(#[from] service::Error),
    /// The archive cannot be written.
    #[error(transparent)]
    Write(#[from] NarWriteError),
    /// The store names something it does not have.
    #[error("{0} is missing from the store")]
    Missing(String),
}

/// What is still to be written of a directory.
enum Todo {
    Node { name: Option<Vec<u8>>, node: Node },
    EndDirectory,
}

/// Writes the archive of `node` to `out`. Holds the entries of the directories on the way to where it is, and one
/// piece of a blob. Returns `out`.
pub async fn write_nar<W: Write + Send>(
    blobs: &dyn BlobService,
    directories: &dyn DirectoryService,
    node: &Node,
    out: W,
) -> Result<W, RenderError> {
    let mut nar = NarWriter::new(out)?;
    // A stack of our own: how deep a tree is must not decide how much of the thread's stack is used.
    let mut todo = vec![Todo::Node { name: None, node: node.clone() }];
    while let Some(next) = todo.pop() {
        let Todo::Node { name, node } = next else {
            nar.end_directory()?;
            continue;
        };
        if let Some(name) = name {
            nar.entry(&name)?;
        }
        match node {
            Node::Symlink { target } => nar.symlink(target.as_bytes())?,
            Node::File { digest, size, executable } => {
                nar.begin_file(executable, size)?;
                write_contents(&mut nar, blobs, &digest, size).await?;
                nar.end_file()?;
            }
            Node::Directory { digest, .. } => {
                let directory = directories.get(&digest).await?;
                let directory =
                    directory.ok_or_else(|| RenderError::Missing(format!("directory {digest}")))?;
                nar.begin_directory()?;
                todo.push(Todo::EndDirectory);
                let from = todo.len();
                todo.extend(directory.entries().map(|entry| Todo::Node {
                    name: Some(entry.name.to_vec()),
                    node: entry.node.to_node(),
                }));
                todo[from..].reverse();
            }
        }
    }
    Ok(nar.finish()?)
}

async fn write_contents<W: Write>(
    nar: &mut NarWriter<W>,
    blobs: &dyn BlobService,
    digest: &Digest,
    size: u64,
) -> Result<(), RenderError> {
    let pieces = blobs.read_sized(digest, size, 0..u64::MAX).await?;
    let mut pieces = pieces.ok_or_else(|| RenderError::Missing(format!("blob {digest}")))?;
    while let Some(piece) = pieces.next().await {
        nar.contents(&piece?)?;
    }
    Ok(())
}

/// Calculates archive hashes by rendering.
#[derive(Debug, Clone)]
pub struct RenderNar {
    /// Where contents are.
    pub blobs: Arc<dyn BlobService>,
    /// Where directories are.
    pub directories: Arc<dyn DirectoryService>,
}

#[async_trait]
impl NarCalculation for RenderNar {
    async fn calculate_nar(&self, node: &Node) -> service::Result<NarHash> {
        let hasher = NarHasher::default();
        match write_nar(&*self.blobs, &*self.directories, node, hasher).await {
            Ok(hasher) => Ok(hasher.finish()),
            Err(RenderError::Service(error)) => Err(error),
            Err(error @ (RenderError::Write(_) | RenderError::Missing(_))) => {
                Err(service::Error::corrupt("the store", error))
            }
        }
    }
}
