//! `lazystore ls`.

use std::{
    ffi::OsString,
    io::{self, BufWriter, Write},
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
                    self.write(&mut out, entry.name, entry.node)?;
                }
            }
            node => self.write(&mut out, &found.name, node)?,
        }
        Ok(out.flush()?)
    }

    fn write(&self, out: &mut impl Write, name: &[u8], node: NodeRef<'_>) -> io::Result<()> {
        if self.long {
            let (mode, size) = match node {
                NodeRef::Directory { size, .. } => ("dr-xr-xr-x", size),
                NodeRef::File { size, executable: true, .. } => ("-r-xr-xr-x", size),
                NodeRef::File { size, executable: false, .. } => ("-r--r--r--", size),
                NodeRef::Symlink { target } => ("lrwxrwxrwx", target.len() as u64),
            };
            write!(out, "{mode} {size:>12} ")?;
        }
        out.write_all(name)?;
        if let (true, NodeRef::Symlink { target }) = (self.long, node) {
            out.write_all(b" -> ")?;
            out.write_all(target)?;
        }
        out.write_all(b"\n")
    }
}
