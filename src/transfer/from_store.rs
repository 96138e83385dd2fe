//! Store paths that lie in another store.

use std::{collections::HashSet, sync::Arc};

use futures::{StreamExt as _, TryStreamExt as _, stream};

use super::{
    Difference, PATHS_AT_ONCE, Progress, QUESTIONS_AT_ONCE, Result, There, TransferError,
    Transferred, Wanted, commit::commit, contents::copy_contents, lacking, order::references_first,
};
use crate::{
    nix::{PathInfo, StorePath, StorePathDigest},
    service::Stores,
};

impl Wanted for PathInfo {
    fn store_path(&self) -> &StorePath {
        &self.store_path
    }

    fn references(&self) -> Vec<StorePathDigest> {
        PathInfo::references(self).collect()
    }

    fn name_of(&self, reference: &StorePathDigest) -> String {
        let mut named = self.nar_info().into_iter().flat_map(|info| &info.references);
        let found = named.find(|path| path.digest() == *reference);
        found.map_or_else(|| reference.to_string(), ToString::to_string)
    }
}

/// Copies `roots` and all that they refer to, however far, from `source`. Of what arrives, the target computes the
/// archive's size and hash once more, and it is refused if they are not what the source says.
///
/// `progress` tells of it meanwhile. Needs the context of the runtime.
pub async fn from_store(
    source: &Stores,
    roots: &[StorePath],
    target: &Stores,
    when_there: There,
    progress: &Arc<Progress>,
) -> Result<Transferred> {
    let closure = closure(source, roots).await?;
    let paths = closure.len();
    let lacking = lacking(target, references_first(closure)?, when_there).await?;
    progress.begin(paths, paths - lacking.len());
    let copies = stream::iter(lacking).map(|path_info| {
        let (source, target, progress) = (source.clone(), target.clone(), progress.clone());
        async move {
            let path = path_info.store_path.clone();
            // A task each, so that they are hashed on all processors.
            let copied =
                tokio::spawn(async move { copy(&source, path_info, &target, &progress).await });
            copied.await.map_err(|_| TransferError::Stopped(path))?
        }
    });
    commit(target, copies.buffered(PATHS_AT_ONCE), progress).await?;
    Ok(progress.transferred())
}

async fn copy(
    source: &Stores,
    mut path_info: PathInfo,
    target: &Stores,
    progress: &Progress,
) -> Result<PathInfo> {
    let failed = |path: &StorePath| {
        let path = path.clone();
        |source| TransferError::Store { path, source }
    };
    let node = copy_contents(source, target, &path_info.node, &progress.read).await;
    let there =
        std::mem::replace(&mut path_info.node, node.map_err(failed(&path_info.store_path))?);
    if let Some(expected) = path_info.nar_info().map(|info| info.nar) {
        // What was put somewhere far is not fetched again: the digests say that it is the same.
        let is_fetched = target.nars.reads_contents() && !target.blobs.is_local();
        let found = match is_fetched && source.nars.reads_contents() {
            true => source.nars.calculate_nar(&there).await,
            false => target.nars.calculate_nar(&path_info.node).await,
        };
        let found = found.map_err(failed(&path_info.store_path))?;
        if found != expected {
            return Err(TransferError::Differs(Box::new(Difference {
                path: path_info.store_path,
                what: "what lies there".to_owned(),
                found,
                said_by: "its path info",
                expected,
            })));
        }
    }
    Ok(path_info)
}

/// The path infos of `roots` and of all that they refer to.
async fn closure(source: &Stores, roots: &[StorePath]) -> Result<Vec<PathInfo>> {
    let mut seen: HashSet<_> = HashSet::new();
    let mut closure = Vec::new();
    let mut next: Vec<_> = roots
        .iter()
        .filter(|root| seen.insert(root.digest()))
        .map(|root| (root.digest(), Some(root.clone()), root.absolute()))
        .collect();
    while !next.is_empty() {
        let found = stream::iter(next).map(|(digest, path, name)| async move {
            let found = source.path_infos.get(&digest).await?;
            let found = found.filter(|found| path.is_none_or(|path| path == found.store_path));
            found.ok_or(TransferError::Absent(name))
        });
        let found: Vec<PathInfo> = found.buffered(QUESTIONS_AT_ONCE).try_collect().await?;
        next = Vec::new();
        for path_info in &found {
            for digest in path_info.references().filter(|digest| seen.insert(*digest)) {
                let (by, name) = (&path_info.store_path, path_info.name_of(&digest));
                next.push((digest, None, format!("{name}, to which {by} refers,")));
            }
        }
        closure.extend(found);
    }
    Ok(closure)
}
