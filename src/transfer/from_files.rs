//! Store paths that lie on this machine as files.

use std::{path::Path, sync::Arc};

use futures::{StreamExt as _, stream};
use tokio::runtime::Handle;

use super::{
    Difference, PATHS_AT_ONCE, Progress, Result, There, TransferError, Transferred, Wanted,
    commit::commit, lacking, order::references_first,
};
use crate::{
    ingest::import_contents,
    nix::{Details, PathInfo, StorePath, StorePathDigest, path_list::ListedPath},
    service::Stores,
};

impl Wanted for ListedPath {
    fn store_path(&self) -> &StorePath {
        &self.store_path
    }

    fn references(&self) -> Vec<StorePathDigest> {
        self.info.references.iter().map(StorePath::digest).collect()
    }

    fn name_of(&self, reference: &StorePathDigest) -> String {
        let found = self.info.references.iter().find(|path| path.digest() == *reference);
        found.map_or_else(|| reference.to_string(), ToString::to_string)
    }
}

/// Copies `listed`, which lie in `dir` under their base names. Each is read once, and is refused if its archive does
/// not have the size and hash that the list says; what refers to it, too.
///
/// `progress` tells of it meanwhile. Needs the context of the runtime.
pub async fn from_files(
    dir: &Path,
    listed: Vec<ListedPath>,
    target: &Stores,
    when_there: There,
    progress: &Arc<Progress>,
) -> Result<Transferred> {
    let paths = listed.len();
    let lacking = lacking(target, references_first(listed)?, when_there).await?;
    progress.begin(paths, paths - lacking.len());
    let runtime = Handle::current();
    let reads = stream::iter(lacking).map(|listed| {
        let file = dir.join(listed.store_path.to_string());
        let (target, runtime, progress) = (target.clone(), runtime.clone(), progress.clone());
        async move {
            let path = listed.store_path.clone();
            let read = move || read(&file, listed, &target, &runtime, &progress);
            let read = tokio::task::spawn_blocking(read).await;
            read.map_err(|_| TransferError::Stopped(path))?
        }
    });
    commit(target, reads.buffered(PATHS_AT_ONCE), progress).await?;
    Ok(progress.transferred())
}

fn read(
    file: &Path,
    listed: ListedPath,
    target: &Stores,
    runtime: &Handle,
    progress: &Progress,
) -> Result<PathInfo> {
    let ListedPath { store_path, info } = listed;
    let contents = import_contents(file, target, runtime, &progress.read)?;
    if contents.nar != info.nar {
        return Err(TransferError::Differs(Box::new(Difference {
            path: store_path,
            what: file.display().to_string(),
            found: contents.nar,
            said_by: "the list",
            expected: info.nar,
        })));
    }
    Ok(PathInfo { store_path, node: contents.node, details: Details::NarInfo(info) })
}
