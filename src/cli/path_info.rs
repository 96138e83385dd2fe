//! `lazystore path-info`.

use std::{
    ffi::OsString,
    io::{self, Write as _},
    os::unix::ffi::OsStrExt as _,
};

use anyhow::Context as _;
use clap::Args;
use serde_json::{Map, Value, json};

use super::{Absent, GlobalOptions, look};
use crate::{
    castore::Node,
    nix::{self, NixHash},
};

/// Tell what is known of store paths.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  lazystore path-info /nix/store/3c3vsw8xbk8ls38vmw8qq1fd61ckdrbq-src
  lazystore path-info --json 3c3vsw8xbk8ls38vmw8qq1fd61ckdrbq-src")]
pub(super) struct PathInfo {
    /// Store paths
    #[arg(value_name = "STORE-PATH", required = true)]
    paths: Vec<OsString>,

    /// Print a JSON object that maps each path to what is known of it
    #[arg(long)]
    json: bool,
}

impl PathInfo {
    pub(super) async fn run(&self, options: &GlobalOptions) -> anyhow::Result<()> {
        let stores = options.open()?;
        let mut infos = Vec::new();
        for path in &self.paths {
            let (store_path, inner) = look::split(path.as_bytes())
                .with_context(|| format!("{} is no store path", path.display()))?;
            anyhow::ensure!(inner.is_empty(), "{} is inside of a store path", path.display());
            let info = stores.path_infos.get(&store_path.digest()).await?;
            let info = info.filter(|info| info.store_path == store_path);
            infos.push(info.ok_or_else(|| Absent(path.display().to_string()))?);
        }
        let mut out = io::stdout().lock();
        if self.json {
            let map: Map<_, _> =
                infos.iter().map(|info| (info.store_path.absolute(), to_json(info))).collect();
            serde_json::to_writer_pretty(&mut out, &Value::Object(map))?;
            writeln!(out)?;
        } else {
            for info in &infos {
                write!(out, "{}", to_text(info))?;
            }
        }
        Ok(())
    }
}

/// The keys that Nix uses since 2.19, and the node under `castore`.
fn to_json(info: &nix::PathInfo) -> Value {
    let mut object = info.nar_info().map(nix::path_list::to_json).unwrap_or_default();
    object.insert("castore".to_owned(), node_to_json(&info.node));
    Value::Object(object)
}

fn node_to_json(node: &Node) -> Value {
    match node {
        Node::Directory { digest, size } => {
            json!({ "type": "directory", "digest": digest.to_string(), "entries": size })
        }
        Node::File { digest, size, executable } => json!({
            "type": "regular", "digest": digest.to_string(), "size": size, "executable": executable,
        }),
        Node::Symlink { target } => {
            json!({ "type": "symlink", "target": String::from_utf8_lossy(target.as_bytes()) })
        }
    }
}

fn to_text(info: &nix::PathInfo) -> String {
    let mut text = format!("path:       {}\n", info.store_path.absolute());
    let mut line = |key: &str, value: String| text.push_str(&format!("{key:<11} {value}\n"));
    match &info.node {
        Node::Directory { digest, size } => {
            line("contents:", format!("directory {digest}, {size} entries below"));
        }
        Node::File { digest, size, executable } => {
            let kind = if *executable { "executable file" } else { "regular file" };
            line("contents:", format!("{kind} {digest}, {size} bytes"));
        }
        Node::Symlink { target } => {
            line("contents:", format!("symbolic link to {}", target.as_bytes().escape_ascii()));
        }
    }
    if let Some(nar_info) = info.nar_info() {
        line("NAR hash:", NixHash::Sha256(nar_info.nar.sha256).to_sri());
        line("NAR size:", nar_info.nar.size.to_string());
        for reference in &nar_info.references {
            line("reference:", reference.absolute());
        }
        if let Some(deriver) = &nar_info.deriver {
            line("deriver:", deriver.absolute());
        }
        if let Some(ca) = &nar_info.ca {
            line("CA:", ca.to_string());
        }
        for signature in &nar_info.signatures {
            line("signature:", signature.to_string());
        }
    }
    text
}
