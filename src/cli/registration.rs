//! `lazystore closure` and `lazystore registration`: what Nix has to know of store paths that it did not put there.

use std::{
    ffi::OsString,
    io::{self, Write as _},
};

use clap::Args;
use futures::{StreamExt as _, TryStreamExt as _, stream};

use super::{Absent, GlobalOptions, closure};
use crate::{
    nix::{
        Details, NarInfo, PathInfo,
        path_list::{ListedPath, to_registration},
    },
    service::Stores,
};

/// How many archive hashes are looked for at once.
const AT_ONCE: usize = 4;

/// Print store paths and all that they refer to, however far.
#[derive(Debug, Args)]
#[command(after_help = "Example:
  lazystore closure /nix/store/3c3vsw8xbk8ls38vmw8qq1fd61ckdrbq-src > inputs
  lazystore mount --only-from inputs /build/store

One a line, sorted, each once. Exit code 3 if one of them is absent.")]
pub(super) struct Closure {
    /// Store paths
    #[arg(value_name = "STORE-PATH", required = true)]
    paths: Vec<OsString>,
}

impl Closure {
    pub(super) async fn run(&self, options: &GlobalOptions) -> anyhow::Result<()> {
        let stores = options.open()?;
        let found = closure::path_infos(&stores, &closure::parse(&self.paths)?).await?;
        let mut out = io::stdout().lock();
        for path_info in sorted(found) {
            writeln!(out, "{}", path_info.store_path.absolute())?;
        }
        Ok(())
    }
}

/// Print what nix-store --load-db reads to take store paths for valid.
#[derive(Debug, Args)]
#[command(after_help = "Example:
  lazystore registration --closure /nix/store/3c3vsw8xbk8ls38vmw8qq1fd61ckdrbq-src | nix-store --load-db

Nix takes a store path only if all that it refers to is valid, too. Archive hashes that nobody has told are computed, which
reads the contents. Exit code 3 if a store path is absent.")]
pub(super) struct Registration {
    /// Store paths
    #[arg(value_name = "STORE-PATH", required = true)]
    paths: Vec<OsString>,

    /// Also what they refer to, however far
    #[arg(long)]
    closure: bool,
}

impl Registration {
    pub(super) async fn run(&self, options: &GlobalOptions) -> anyhow::Result<()> {
        let stores = options.open()?;
        let roots = closure::parse(&self.paths)?;
        let found = match self.closure {
            true => closure::path_infos(&stores, &roots).await?,
            false => closure::find(&stores, &roots).await?,
        };
        let listed = stream::iter(sorted(found)).map(|info| listed(&stores, info));
        let mut listed = listed.buffered(AT_ONCE);
        let mut out = io::stdout().lock();
        while let Some(path) = listed.try_next().await? {
            out.write_all(to_registration(&path).as_bytes())?;
        }
        Ok(())
    }
}

fn sorted(mut path_infos: Vec<PathInfo>) -> Vec<PathInfo> {
    path_infos.sort_by(|one, other| one.store_path.cmp(&other.store_path));
    path_infos.dedup_by(|one, other| one.store_path == other.store_path);
    path_infos
}

/// What Nix keeps of a store path; what is not known of it is looked for.
async fn listed(stores: &Stores, path_info: PathInfo) -> anyhow::Result<ListedPath> {
    let PathInfo { store_path, node, details } = path_info;
    let digests = match details {
        Details::NarInfo(info) => return Ok(ListedPath { store_path, info }),
        Details::References(digests) => digests,
    };
    let nar = stores.nars.calculate_nar(&node).await?;
    let mut references = Vec::with_capacity(digests.len());
    for digest in digests {
        let found = stores.path_infos.get(&digest).await?;
        let absent = || Absent(format!("the store path {digest}-…, to which {store_path} refers,"));
        references.push(found.ok_or_else(absent)?.store_path);
    }
    let info = NarInfo { nar, references, signatures: Vec::new(), deriver: None, ca: None };
    Ok(ListedPath { store_path, info })
}
