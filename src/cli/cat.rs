//! `lazystore cat`.

use std::{
    ffi::OsString,
    io::{self, Write as _},
};

use anyhow::{Context as _, bail};
use clap::Args;
use futures::StreamExt as _;

use super::{GlobalOptions, look};
use crate::castore::Node;

/// Write the contents of files in the store to standard output.
#[derive(Debug, Args)]
#[command(after_help = "Example:
  lazystore cat /nix/store/3c3vsw8xbk8ls38vmw8qq1fd61ckdrbq-src/lib.rs")]
pub(super) struct Cat {
    /// Files in store paths
    #[arg(value_name = "STORE-PATH[/inner]", required = true)]
    paths: Vec<OsString>,
}

impl Cat {
    pub(super) async fn run(&self, options: &GlobalOptions) -> anyhow::Result<()> {
        let stores = options.open()?;
        for path in &self.paths {
            let (digest, size) = match look::find(&stores, path).await?.node {
                Node::File { digest, size, .. } => (digest, size),
                Node::Directory { .. } => bail!("{} is a directory", path.display()),
                Node::Symlink { target } => bail!(
                    "{} is a symbolic link to {}",
                    path.display(),
                    target.as_bytes().escape_ascii()
                ),
            };
            let stream = stores.blobs.read_sized(&digest, size, 0..size).await?;
            let mut stream =
                stream.with_context(|| format!("blob {digest} is missing from the store"))?;
            let mut written = 0;
            while let Some(piece) = stream.next().await {
                let piece = piece?;
                written += piece.len() as u64;
                io::stdout().write_all(&piece)?;
            }
            if written != size {
                bail!("blob {digest} has {written} bytes, its directory says {size}");
            }
        }
        Ok(io::stdout().flush()?)
    }
}
