//! `lazystore nar`.

use std::{
    ffi::OsString,
    fmt::Write as _,
    io::{self, BufWriter, Write},
};

use clap::{Args, Subcommand, ValueEnum};
use data_encoding::{BASE64, HEXLOWER};
use futures::StreamExt as _;

use super::{GlobalOptions, look};
use crate::{
    castore::{Node, NodeRef},
    nix::{NarHash, base32},
    render::{RenderNar, TreeWalk, render_listing},
    service::Stores,
};

/// Nix archives of store paths, and of what lies in them.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  lazystore nar dump /nix/store/3c3vsw8xbk8ls38vmw8qq1fd61ckdrbq-src | sha256sum
  lazystore nar hash --format base32 3c3vsw8xbk8ls38vmw8qq1fd61ckdrbq-src
  lazystore nar ls 3c3vsw8xbk8ls38vmw8qq1fd61ckdrbq-src")]
pub(super) struct Nar {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    Dump(Dump),
    Hash(Hash),
    Ls(Ls),
}

/// Write an archive to standard output, as nix-store --dump does.
#[derive(Debug, Args)]
struct Dump {
    /// A store path, or something in it
    #[arg(value_name = "STORE-PATH[/inner]")]
    path: OsString,
}

/// Tell the SHA-256 of archives, computed from the contents, as nix hash path does.
#[derive(Debug, Args)]
struct Hash {
    /// Store paths, or what lies in them
    #[arg(value_name = "STORE-PATH[/inner]", required = true)]
    paths: Vec<OsString>,

    /// How to write the hash
    #[arg(long, value_enum, default_value_t = HashFormat::Sri)]
    format: HashFormat,

    /// Tell the length of the archive in bytes, too
    #[arg(long)]
    size: bool,
}

/// How a hash is written.
#[derive(Debug, Clone, Copy, ValueEnum)]
enum HashFormat {
    /// sha256-<base64>
    Sri,
    /// The alphabet of store paths, as in a narinfo but without its sha256:
    Base32,
    /// As sha256sum does
    Base16,
}

/// List all that is in an archive.
#[derive(Debug, Args)]
struct Ls {
    /// A store path, or something in it
    #[arg(value_name = "STORE-PATH[/inner]")]
    path: OsString,

    /// Print the listing of a binary cache (<hash>.ls), which tells where in the archive each file is
    #[arg(long)]
    json: bool,
}

impl Nar {
    pub(super) async fn run(&self, options: &GlobalOptions) -> anyhow::Result<()> {
        let stores = options.open()?;
        match &self.command {
            Command::Dump(command) => command.run(&stores).await,
            Command::Hash(command) => command.run(&stores).await,
            Command::Ls(command) => command.run(&stores).await,
        }
    }
}

impl Dump {
    async fn run(&self, stores: &Stores) -> anyhow::Result<()> {
        let node = look::find(stores, &self.path).await?.node;
        let (blobs, directories) = (stores.blobs.clone(), stores.directories.clone());
        let mut pieces = RenderNar { blobs, directories }.stream(&node, 0..u64::MAX);
        let mut out = io::stdout();
        while let Some(piece) = pieces.next().await {
            out.write_all(&piece?)?;
        }
        Ok(out.flush()?)
    }
}

impl Hash {
    async fn run(&self, stores: &Stores) -> anyhow::Result<()> {
        for path in &self.paths {
            let node = look::find(stores, path).await?.node;
            let nar = stores.nars.calculate_nar(&node).await?;
            writeln!(io::stdout(), "{}", self.line(&nar))?;
        }
        Ok(())
    }

    fn line(&self, nar: &NarHash) -> String {
        let mut line = match self.format {
            HashFormat::Sri => format!("sha256-{}", BASE64.encode(&nar.sha256)),
            HashFormat::Base32 => base32::encode(&nar.sha256),
            HashFormat::Base16 => HEXLOWER.encode(&nar.sha256),
        };
        if self.size {
            write!(line, " {}", nar.size).expect("a string takes everything");
        }
        line
    }
}

impl Ls {
    async fn run(&self, stores: &Stores) -> anyhow::Result<()> {
        let found = look::find(stores, &self.path).await?;
        let mut out = BufWriter::new(io::stdout());
        if self.json {
            let mut pieces = render_listing(stores.directories.clone(), found.node);
            while let Some(piece) = pieces.next().await {
                out.write_all(&piece?)?;
            }
            writeln!(out)?;
        } else {
            list(stores, found.node, &mut out).await?;
        }
        Ok(out.flush()?)
    }
}

/// One line for each node: kind, size, and its path below the root, which is a dot.
async fn list(stores: &Stores, root: Node, out: &mut impl Write) -> anyhow::Result<()> {
    let mut walk = TreeWalk::new(stores.directories.clone(), root);
    let mut path = b".".to_vec();
    // How long the path of each open directory is.
    let mut open = Vec::new();
    while let Some(step) = walk.next().await? {
        let Some((name, node)) = step.node() else {
            open.pop();
            continue;
        };
        path.truncate(open.last().copied().unwrap_or(1));
        if let Some(name) = name {
            path.push(b'/');
            path.extend_from_slice(name);
        }
        look::write_entry(out, true, &path, node)?;
        if matches!(node, NodeRef::Directory { .. }) {
            open.push(path.len());
        }
    }
    Ok(())
}
