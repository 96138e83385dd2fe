//! All that is wrong in a tree.

use std::collections::HashSet;

use futures::StreamExt as _;

use super::{ENDPOINT, Finding, Problem};
use crate::{
    castore::{Digest, Node, NodeRef},
    nix::StorePath,
    service::{Error, Result, blob::BlobService, directory::DirectoryService},
};

/// How much is told of one store path.
const FINDINGS_MAX: usize = 1000;

/// Looks at every file and directory of a store path, each contents once, and adds what is wrong to `findings`.
pub(super) async fn survey(
    blobs: &dyn BlobService,
    directories: &dyn DirectoryService,
    store_path: &StorePath,
    node: &Node,
    findings: &mut Vec<Finding>,
) {
    let mut seen = HashSet::new();
    let mut todo = vec![(store_path.absolute(), node.clone())];
    while let Some((path, node)) = todo.pop() {
        if findings.len() >= FINDINGS_MAX {
            findings.push(Finding::of(store_path, Problem::More));
            return;
        }
        match node {
            Node::Symlink { .. } => {}
            Node::File { digest, size, .. } => {
                if !seen.insert(digest) {
                    continue;
                }
                if let Err(source) = read(blobs, &digest, size).await {
                    findings.push(Finding { path, problem: Problem::Blob { digest, source } });
                }
            }
            Node::Directory { digest, size } => {
                if !seen.insert(digest) {
                    continue;
                }
                let found = directories.get(&digest).await;
                let found = found.and_then(|found| found.ok_or_else(|| wrong("it is missing")));
                let directory = match found {
                    Ok(directory) => directory,
                    Err(source) => {
                        let problem = Problem::Directory { digest, source };
                        findings.push(Finding { path, problem });
                        continue;
                    }
                };
                if !directory.has_size(size) {
                    let source = wrong(&format!("its size is not {size}, as is said of it"));
                    let problem = Problem::Directory { digest, source };
                    findings.push(Finding { path: path.clone(), problem });
                }
                let inner = directory.entries().filter(|entry| !is_symlink(entry.node));
                todo.extend(inner.map(|entry| {
                    (format!("{path}/{}", entry.name.escape_ascii()), entry.node.to_node())
                }));
            }
        }
    }
}

fn is_symlink(node: NodeRef<'_>) -> bool {
    matches!(node, NodeRef::Symlink { .. })
}

/// Reads a blob to its end, which hashes it.
async fn read(blobs: &dyn BlobService, digest: &Digest, size: u64) -> Result<()> {
    let pieces = blobs.read_sized(digest, size, 0..u64::MAX).await?;
    let mut pieces = pieces.ok_or_else(|| wrong("it is missing"))?;
    let mut len = 0;
    while let Some(piece) = pieces.next().await {
        len += piece?.len() as u64;
    }
    match len == size {
        true => Ok(()),
        false => Err(wrong(&format!("it has {len} bytes instead of {size}"))),
    }
}

fn wrong(what: &str) -> Error {
    Error::corrupt(ENDPOINT, what)
}
