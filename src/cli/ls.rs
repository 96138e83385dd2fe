//! `lazystore ls`.

use std::{
    ffi::OsString,
    io::{self, BufWriter, Write as _},
};

use anyhow::Context as _;
use clap::Args;

use super::{GlobalOptions, look};
use crate::castore::NodeRef;

/// List a directory of a store path without mounting it.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  lazystore ls /nix/store/3c3vsw8xbk8ls38vmw8qq1fd61ckdrbq-src
  lazystore ls --long 3c3vsw8xbk8ls38vmw8qq1fd61ckdrbq-src/lib")]
pub(super) struct Ls {
    /// A store path, or something in it
    #[arg(value_name = "STORE-PATH[/inner]")]
    path: OsString,

    /// Show kinds, sizes and where symlinks point, too
    #[arg(short = 'l', long)]
    long: bool,
}

impl Ls {
    pub(super) async fn run(&self, options: &GlobalOptions) -> anyhow::Result<()> {
        let stores = options.open()?;
        let found = look::find(&stores, &self.path).await?;
        let mut out = BufWriter::new(io::stdout().lock());
        match found.node.as_ref() {
            NodeRef::Directory { digest, .. } => {
                let directory = stores.directories.get(&digest).await?;
                let directory = directory
                    .with_context(|| format!("directory {digest} is missing from the store"))?;
                for entry in directory.entries() {
                    look::write_entry(&mut out, self.long, entry.name, entry.node)?;
                }
            }
            node => look::write_entry(&mut out, self.long, &found.name, node)?,
        }
        Ok(out.flush()?)
    }
}
