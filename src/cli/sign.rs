//! `lazystore sign`.

use std::{ffi::OsString, path::PathBuf};

use anyhow::Context as _;
use clap::Args;
use futures::{StreamExt as _, TryStreamExt as _, stream};

use super::{GlobalOptions, closure, serve::read_key};
use crate::{
    nix::{PathInfo, SecretKey},
    service::Stores,
};

/// How many path infos are put at once.
const AT_ONCE: usize = 16;

/// Add signatures to store paths.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  lazystore sign --key /etc/nix/cache.sec --all
  lazystore sign --key /etc/nix/cache.sec /nix/store/3c3vsw8xbk8ls38vmw8qq1fd61ckdrbq-src

Vouches for what the store says of the paths, without reading their contents: lazystore verify does that. What has the
key's signature already is left as it is; a wrong one in its name is replaced. The file is what nix-store
--generate-binary-cache-key writes.
Exit codes: 0 all have the signature now, 1 failed, 2 wrong usage, 3 a store path is absent, 4 a store is out of reach, 78 configuration.")]
pub(super) struct Sign {
    /// Store paths
    #[arg(value_name = "STORE-PATH", required_unless_present = "all", conflicts_with = "all")]
    paths: Vec<OsString>,

    /// All that are in the store
    #[arg(long)]
    all: bool,

    /// The secret key
    #[arg(long, value_name = "FILE")]
    key: PathBuf,
}

impl Sign {
    pub(super) async fn run(&self, options: &GlobalOptions) -> anyhow::Result<()> {
        let key = read_key(&self.key)?;
        let stores = options.open_target()?;
        let path_infos = match self.all {
            true => stores.path_infos.list(),
            false => {
                let found = closure::find(&stores, &closure::parse(&self.paths)?).await?;
                stream::iter(found.into_iter().map(Ok)).boxed()
            }
        };
        let signed = path_infos.map(|path_info| sign(&stores, &key, path_info));
        signed.buffer_unordered(AT_ONCE).try_collect().await
    }
}

async fn sign(
    stores: &Stores,
    key: &SecretKey,
    path_info: crate::service::Result<PathInfo>,
) -> anyhow::Result<()> {
    let mut path_info = path_info?;
    let path = path_info.store_path.absolute();
    if path_info.nar_info().is_none() {
        anyhow::bail!("{path} cannot be signed: the hash of its archive is not known");
    }
    if !path_info.sign(key) {
        return Ok(());
    }
    let put = stores.path_infos.put(path_info).await;
    put.map(drop).with_context(|| format!("cannot sign {path}"))
}
