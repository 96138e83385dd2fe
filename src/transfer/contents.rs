//! Contents from one store into another.

use std::{
    collections::{HashMap, HashSet},
    sync::Arc,
};

use bytes::Bytes;
use futures::{StreamExt as _, TryStreamExt as _, stream};

use super::QUESTIONS_AT_ONCE;
use crate::{
    castore::{Digest, Directory, Name, Node, NodeRef, SizeRule},
    ingest::Progress,
    service::{
        Error, Result, Stores,
        blob::{SMALL_BLOB_LEN_MAX, read_all},
    },
};

/// How many groups of small files are under way for one path.
const GROUPS_AT_ONCE: usize = 4;

/// A group with so many small files is full.
const GROUP_FILES_MAX: usize = 64;

/// A group whose small files have so many bytes is full. A file more may be longer than that.
const GROUP_BYTES_MAX: u64 = 1 << 20;

/// Directories by digest.
type Closure = HashMap<Digest, Arc<Directory>>;

/// Copies what `node` of `source` holds and `target` lacks: files first, then directories, leaves first. Returns what
/// it is in the target, whose rule for the sizes of directories may be another.
pub(super) async fn copy_contents(
    source: &Stores,
    target: &Stores,
    node: &Node,
    progress: &Progress,
) -> Result<Node> {
    let root = match node {
        Node::Symlink { .. } => return Ok(node.clone()),
        Node::File { digest, size, .. } => {
            copy_files(source, target, vec![(*digest, *size)], progress).await?;
            return Ok(node.clone());
        }
        Node::Directory { digest, .. } => *digest,
    };
    let closure = closure(source, &root).await?;
    let mut seen = HashSet::new();
    let files = closure.values().flat_map(|directory| directory.entries());
    let files = files.filter_map(|entry| match entry.node {
        NodeRef::File { digest, size, .. } => Some((digest, size)),
        NodeRef::Directory { .. } | NodeRef::Symlink { .. } => None,
    });
    let files = files.filter(|(digest, _)| seen.insert(*digest)).collect();
    copy_files(source, target, files, progress).await?;
    copy_directories(target, &closure, &root).await
}

async fn closure(source: &Stores, root: &Digest) -> Result<Closure> {
    let directories = source.directories.get_closure(root).await?;
    let mut directories = directories.ok_or_else(|| missing("directory", root))?;
    let mut closure = HashMap::new();
    while let Some(directory) = directories.next().await {
        let directory = directory?;
        closure.insert(directory.digest(), directory);
    }
    Ok(closure)
}

fn missing(what: &str, digest: &Digest) -> Error {
    Error::corrupt("the source", format!("{what} {digest} is missing"))
}

/// Copies those of `files`, each of so many bytes, that the target lacks.
async fn copy_files(
    source: &Stores,
    target: &Stores,
    files: Vec<(Digest, u64)>,
    progress: &Progress,
) -> Result<()> {
    let (small, large): (Vec<_>, Vec<_>) =
        files.into_iter().partition(|(_, size)| *size <= SMALL_BLOB_LEN_MAX as u64);
    let groups = stream::iter(groups(small))
        .map(|group| copy_small_files(source, target, group, progress))
        .buffer_unordered(GROUPS_AT_ONCE);
    groups.try_collect::<()>().await?;
    for (digest, size) in large {
        copy_large_file(source, target, &digest, size, progress).await?;
    }
    Ok(())
}

fn groups(files: Vec<(Digest, u64)>) -> Vec<Vec<(Digest, u64)>> {
    let mut groups = Vec::new();
    let mut group = Vec::new();
    let mut bytes = 0;
    for (digest, size) in files {
        group.push((digest, size));
        bytes += size;
        if group.len() >= GROUP_FILES_MAX || bytes >= GROUP_BYTES_MAX {
            groups.push(std::mem::take(&mut group));
            bytes = 0;
        }
    }
    groups.push(group);
    groups
}

async fn copy_small_files(
    source: &Stores,
    target: &Stores,
    group: Vec<(Digest, u64)>,
    progress: &Progress,
) -> Result<()> {
    let reads = stream::iter(group).map(|(digest, size)| async move {
        if !target.blobs.lacks(&digest, size).await? {
            progress.add_file();
            return Ok(None);
        }
        let contents = read_all(&*source.blobs, &digest, SMALL_BLOB_LEN_MAX).await?;
        let contents = contents.ok_or_else(|| missing("blob", &digest))?;
        check_len(&digest, size, contents.len() as u64)?;
        progress.add_bytes(contents.len());
        progress.add_file();
        Ok::<_, Error>(Some((digest, contents)))
    });
    let read: Vec<_> = reads.buffer_unordered(QUESTIONS_AT_ONCE).try_collect().await?;
    let (digests, contents): (Vec<Digest>, Vec<Bytes>) = read.into_iter().flatten().unzip();
    if contents.is_empty() {
        return Ok(());
    }
    let puts = target.blobs.put_all(contents).await?;
    for (digest, put) in digests.iter().zip(puts) {
        check_digest(digest, &put.digest)?;
    }
    Ok(())
}

async fn copy_large_file(
    source: &Stores,
    target: &Stores,
    digest: &Digest,
    size: u64,
    progress: &Progress,
) -> Result<()> {
    progress.add_file();
    if !target.blobs.lacks(digest, size).await? {
        return Ok(());
    }
    let pieces = source.blobs.read_sized(digest, size, 0..u64::MAX).await?;
    let mut pieces = pieces.ok_or_else(|| missing("blob", digest))?;
    let mut writer = target.blobs.writer().await?;
    while let Some(piece) = pieces.next().await {
        let piece = piece?;
        progress.add_bytes(piece.len());
        writer.write(piece).await?;
    }
    let (found, len) = writer.finish().await?;
    check_len(digest, size, len)?;
    check_digest(digest, &found)
}

fn check_len(digest: &Digest, size: u64, len: u64) -> Result<()> {
    match len == size {
        true => Ok(()),
        false => {
            let what = format!("blob {digest} has {len} bytes, its directory says {size}");
            Err(Error::corrupt("the source", what))
        }
    }
}

fn check_digest(expected: &Digest, found: &Digest) -> Result<()> {
    match expected == found {
        true => Ok(()),
        false => {
            let what = format!("blob {expected} has the contents of {found}");
            Err(Error::corrupt("the source", what))
        }
    }
}

/// Puts a closure, leaves first. Returns its root in the target.
async fn copy_directories(target: &Stores, closure: &Closure, root: &Digest) -> Result<Node> {
    let rule = target.directories.size_rule().await?;
    let mut putter = target.directories.put_closure().await?;
    // What each directory is in the target.
    let mut nodes: HashMap<Digest, Node> = HashMap::new();
    let mut todo = vec![*root];
    while let Some(digest) = todo.last() {
        let digest = *digest;
        if nodes.contains_key(&digest) {
            todo.pop();
            continue;
        }
        let directory = closure.get(&digest).ok_or_else(|| missing("directory", &digest))?;
        let before = todo.len();
        todo.extend(
            directory.directories().map(|(child, _)| child).filter(|c| !nodes.contains_key(c)),
        );
        if todo.len() > before {
            continue;
        }
        todo.pop();
        let directory = by_rule(directory, &nodes, rule)?;
        nodes.insert(digest, directory.node(rule));
        putter.put(directory).await?;
    }
    putter.finish().await?;
    nodes.remove(root).ok_or_else(|| missing("directory", root))
}

/// The same directory, with the sizes and digests that its children have in the target.
fn by_rule(
    directory: &Arc<Directory>,
    nodes: &HashMap<Digest, Node>,
    rule: SizeRule,
) -> Result<Arc<Directory>> {
    let in_target = |node: NodeRef<'_>| match node {
        NodeRef::Directory { digest, .. } => nodes.get(&digest).cloned(),
        NodeRef::File { .. } | NodeRef::Symlink { .. } => None,
    };
    let is_same = |node: NodeRef<'_>| in_target(node).is_none_or(|there| there == node.to_node());
    if directory.entries().all(|entry| is_same(entry.node)) {
        return Ok(directory.clone());
    }
    let mut builder = Directory::builder();
    for entry in directory.entries() {
        let node = in_target(entry.node).unwrap_or_else(|| entry.node.to_node());
        builder.add(Name::try_from(entry.name).map_err(Error::invalid)?, node);
    }
    match builder.build() {
        Ok(directory) => Ok(Arc::new(directory)),
        Err(error) => {
            Err(Error::invalid(format!("directory {} by {rule:?}: {error}", directory.digest())))
        }
    }
}
