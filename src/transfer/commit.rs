//! Path infos into the target, in order.

use std::{collections::HashSet, pin::pin, sync::atomic::Ordering::Relaxed};

use futures::{Stream, StreamExt as _, TryStreamExt as _, stream};

use super::{Progress, QUESTIONS_AT_ONCE, Result, TransferError};
use crate::{
    nix::{Details, PathInfo},
    service::Stores,
};

/// How many path infos are put after one wait for the disk at most.
const COMMIT_PATHS_MAX: usize = 256;

/// Puts what comes, whose contents have been put, in the order in which it comes. Of an error that comes, only what
/// came before it is put.
pub(super) async fn commit(
    target: &Stores,
    contents: impl Stream<Item = Result<PathInfo>>,
    progress: &Progress,
) -> Result<()> {
    let mut batches = pin!(contents.ready_chunks(COMMIT_PATHS_MAX));
    while let Some(batch) = batches.next().await {
        let mut path_infos = Vec::new();
        let mut failed = None;
        for path_info in batch {
            match path_info {
                Ok(path_info) => path_infos.push(path_info),
                Err(error) => {
                    failed = Some(error);
                    break;
                }
            }
        }
        put(target, path_infos, progress).await?;
        if let Some(error) = failed {
            return Err(error);
        }
    }
    Ok(())
}

async fn put(target: &Stores, path_infos: Vec<PathInfo>, progress: &Progress) -> Result<()> {
    if path_infos.is_empty() {
        return Ok(());
    }
    target.blobs.sync().await?;
    target.directories.sync().await?;
    // Those that do not refer to each other are put at once.
    let mut wave = Vec::new();
    let mut in_wave = HashSet::new();
    for path_info in path_infos {
        if path_info.references().any(|reference| in_wave.contains(&reference)) {
            put_wave(target, std::mem::take(&mut wave), progress).await?;
            in_wave.clear();
        }
        in_wave.insert(path_info.store_path.digest());
        wave.push(path_info);
    }
    put_wave(target, wave, progress).await
}

async fn put_wave(target: &Stores, wave: Vec<PathInfo>, progress: &Progress) -> Result<()> {
    let puts = stream::iter(wave).map(|mut path_info| async move {
        let path = path_info.store_path.clone();
        if let Some(there) = target.path_infos.get(&path.digest()).await? {
            keep_signatures(&mut path_info, &there);
        }
        let put = target.path_infos.put(path_info).await;
        put.map_err(|source| TransferError::Store { path, source })?;
        progress.done.fetch_add(1, Relaxed);
        Ok(())
    });
    puts.buffer_unordered(QUESTIONS_AT_ONCE).try_collect().await
}

/// Those that the target has of the same path with the same archive are not ours to remove.
fn keep_signatures(path_info: &mut PathInfo, there: &PathInfo) {
    let Details::NarInfo(info) = &mut path_info.details else { return };
    let Some(old) = there.nar_info() else { return };
    if there.store_path == path_info.store_path && old.nar == info.nar {
        let lacking = old.signatures.iter().filter(|old| !info.signatures.contains(old));
        let lacking: Vec<_> = lacking.cloned().collect();
        info.signatures.extend(lacking);
    }
}
