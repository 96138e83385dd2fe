//! Looking into a store without mounting it: what `ls`, `cat` and `stat` share.

use std::{
    ffi::OsStr,
    io::{self, Write},
    os::unix::ffi::OsStrExt as _,
};

use anyhow::Context as _;

use super::Absent;
use crate::{
    castore::{Node, NodeRef},
    nix::{STORE_DIR, StorePath, StorePathError},
    service::Stores,
    vfs,
};

/// Something in a store.
pub(super) struct Found {
    /// As the user named it, without slashes at the end.
    pub(super) name: Vec<u8>,
    /// What it is.
    pub(super) node: Node,
}

/// Takes `/nix/store/<name>[/inner]`, or the same without the store directory, apart.
pub(super) fn split(path: &[u8]) -> Result<(StorePath, &[u8]), StorePathError> {
    let relative = path.strip_prefix(STORE_DIR.as_bytes()).unwrap_or(path);
    let relative = relative.strip_prefix(b"/").unwrap_or(relative);
    let end = relative.iter().position(|byte| *byte == b'/').unwrap_or(relative.len());
    let (name, inner) = relative.split_at(end);
    Ok((StorePath::from_base_name(name)?, inner))
}

/// Finds what a path in the form of [`split`] names.
pub(super) async fn find(stores: &Stores, path: &OsStr) -> anyhow::Result<Found> {
    let bytes = path.as_bytes();
    let absent = || Absent(path.display().to_string());
    let (store_path, inner) =
        split(bytes).with_context(|| format!("{} is not in a store path", path.display()))?;
    let root = vfs::store_path_node(stores, &store_path).await?.ok_or_else(absent)?;
    let node = vfs::descend(&*stores.directories, root, inner).await?.ok_or_else(absent)?;
    let end = bytes.iter().rposition(|byte| *byte != b'/').map_or(0, |last| last + 1);
    Ok(Found { name: bytes[..end].to_vec(), node })
}

/// One line of a listing. If it is `long`, with kind, size, and where symlinks point.
pub(super) fn write_entry(
    out: &mut impl Write,
    long: bool,
    name: &[u8],
    node: NodeRef<'_>,
) -> io::Result<()> {
    if long {
        let (mode, size) = match node {
            NodeRef::Directory { size, .. } => ("dr-xr-xr-x", size),
            NodeRef::File { size, executable: true, .. } => ("-r-xr-xr-x", size),
            NodeRef::File { size, executable: false, .. } => ("-r--r--r--", size),
            NodeRef::Symlink { target } => ("lrwxrwxrwx", target.len() as u64),
        };
        write!(out, "{mode} {size:>12} ")?;
    }
    out.write_all(name)?;
    if let (true, NodeRef::Symlink { target }) = (long, node) {
        out.write_all(b" -> ")?;
        out.write_all(target)?;
    }
    out.write_all(b"\n")
}
