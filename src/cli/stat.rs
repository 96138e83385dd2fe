//! `lazystore stat`.

use std::{
    ffi::OsString,
    io::{self, Write as _},
};

use clap::Args;

use super::{GlobalOptions, look};
use crate::castore::Node;

/// Tell kind, size and digest of something in the store.
#[derive(Debug, Args)]
#[command(after_help = "Example:
  lazystore stat /nix/store/3c3vsw8xbk8ls38vmw8qq1fd61ckdrbq-src/lib.rs")]
pub(super) struct Stat {
    /// Store paths, or something in them
    #[arg(value_name = "STORE-PATH[/inner]", required = true)]
    paths: Vec<OsString>,
}

impl Stat {
    pub(super) async fn run(&self, options: &GlobalOptions) -> anyhow::Result<()> {
        let stores = options.open()?;
        let mut out = io::stdout().lock();
        for path in &self.paths {
            let found = look::find(&stores, path).await?;
            write!(out, "path:    ")?;
            out.write_all(&found.name)?;
            match &found.node {
                Node::Directory { digest, size } => {
                    write!(out, "\nkind:    directory\nentries: {size}\ndigest:  {digest}\n")?;
                }
                Node::File { digest, size, executable } => {
                    let kind = if *executable { "executable file" } else { "regular file" };
                    write!(out, "\nkind:    {kind}\nsize:    {size}\ndigest:  {digest}\n")?;
                }
                Node::Symlink { target } => {
                    write!(out, "\nkind:    symbolic link\ntarget:  ")?;
                    out.write_all(target.as_bytes())?;
                    writeln!(out)?;
                }
            }
        }
        Ok(())
    }
}
