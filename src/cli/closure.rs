//! What store paths hold, and what they refer to.

use std::{
    collections::{HashMap, HashSet},
    ffi::OsString,
    os::unix::ffi::OsStrExt as _,
};

use anyhow::{Context as _, ensure};
use futures::{StreamExt as _, TryStreamExt as _, stream};

use super::{Absent, look};
use crate::{
    castore::{Digest, Node, NodeRef},
    nix::{PathInfo, StorePath, StorePathDigest},
    service::Stores,
};

/// How many questions are under way at once.
const AT_ONCE: usize = 16;

/// How many store paths a closure may have: a store that makes up references must not keep us for ever.
const PATHS_MAX: usize = 1_000_000;

/// Some store paths, and all files in them.
#[derive(Debug, Default)]
pub(super) struct Closure {
    pub(super) store_paths: HashSet<StorePathDigest>,
    /// The contents of files, each once, with their lengths in bytes.
    pub(super) files: HashMap<Digest, u64>,
}

/// The store paths that arguments name, each as a whole.
pub(super) fn parse(paths: &[OsString]) -> anyhow::Result<Vec<StorePath>> {
    paths.iter().map(|path| parse_one(path.as_bytes())).collect()
}

/// The store path that is named, as a whole.
pub(super) fn parse_one(path: &[u8]) -> anyhow::Result<StorePath> {
    let (store_path, inner) =
        look::split(path).with_context(|| format!("{} is no store path", path.escape_ascii()))?;
    ensure!(inner.is_empty(), "{} is inside of a store path", path.escape_ascii());
    Ok(store_path)
}

/// What is known of each of `paths`, all of which must be there.
pub(super) async fn find(stores: &Stores, paths: &[StorePath]) -> anyhow::Result<Vec<PathInfo>> {
    let found = stream::iter(paths).map(|path| async move {
        let found = stores.path_infos.get(&path.digest()).await?;
        let found = found.filter(|info| info.store_path == *path);
        Ok::<_, anyhow::Error>(found.ok_or_else(|| Absent(path.absolute()))?)
    });
    found.buffered(AT_ONCE).try_collect().await
}

/// What is known of `roots` and of all that they refer to, however far. Each is there once, `roots` first.
pub(super) async fn path_infos(
    stores: &Stores,
    roots: &[StorePath],
) -> anyhow::Result<Vec<PathInfo>> {
    let mut seen = HashSet::new();
    let mut found = find(stores, roots).await?;
    found.retain(|info| seen.insert(info.store_path.digest()));
    let mut looked_at = 0;
    while looked_at < found.len() {
        let more = references(stores, &found[looked_at..], &mut seen).await?;
        looked_at = found.len();
        found.extend(more);
    }
    Ok(found)
}

/// What lies in `roots`, and, `with_references`, in all that they refer to, however far.
pub(super) async fn collect(
    stores: &Stores,
    roots: &[StorePath],
    with_references: bool,
) -> anyhow::Result<Closure> {
    let path_infos = match with_references {
        true => path_infos(stores, roots).await?,
        false => find(stores, roots).await?,
    };
    let mut closure = Closure::default();
    closure.store_paths.extend(path_infos.iter().map(|info| info.store_path.digest()));
    let mut seen_directories = HashSet::new();
    let nodes = path_infos.into_iter().map(|info| info.node);
    let nodes = nodes.filter(|node| match node {
        Node::Directory { digest, .. } => seen_directories.insert(*digest),
        Node::File { .. } | Node::Symlink { .. } => true,
    });
    let nodes: Vec<_> = nodes.collect();
    let mut files =
        stream::iter(nodes).map(|node| files_in(stores, node)).buffer_unordered(AT_ONCE);
    while let Some(files) = files.try_next().await? {
        closure.files.extend(files);
    }
    Ok(closure)
}

/// The path infos that `path_infos` refer to and that are not among `seen`, where they are added.
async fn references(
    stores: &Stores,
    path_infos: &[PathInfo],
    seen: &mut HashSet<StorePathDigest>,
) -> anyhow::Result<Vec<PathInfo>> {
    let mut wanted = Vec::new();
    for info in path_infos {
        let new = info.references().filter(|digest| seen.insert(*digest));
        wanted.extend(new.map(|digest| (digest, info.store_path.absolute())));
    }
    ensure!(seen.len() <= PATHS_MAX, "the closure has more than {PATHS_MAX} store paths");
    let found = stream::iter(wanted).map(|(digest, by)| async move {
        let found = stores.path_infos.get(&digest).await?;
        let absent = || Absent(format!("the store path {digest}-…, to which {by} refers,"));
        Ok::<_, anyhow::Error>(found.ok_or_else(absent)?)
    });
    found.buffer_unordered(AT_ONCE).try_collect().await
}

/// The files in a store path with these contents.
async fn files_in(stores: &Stores, node: Node) -> anyhow::Result<Vec<(Digest, u64)>> {
    let root = match node {
        Node::File { digest, size, .. } => return Ok(vec![(digest, size)]),
        Node::Symlink { .. } => return Ok(Vec::new()),
        Node::Directory { digest, .. } => digest,
    };
    let closure = stores.directories.get_closure(&root).await?;
    let mut closure =
        closure.with_context(|| format!("directory {root} is missing from the store"))?;
    let mut files = Vec::new();
    while let Some(directory) = closure.next().await {
        let directory = directory?;
        files.extend(directory.entries().filter_map(|entry| match entry.node {
            NodeRef::File { digest, size, .. } => Some((digest, size)),
            NodeRef::Directory { .. } | NodeRef::Symlink { .. } => None,
        }));
    }
    Ok(files)
}
