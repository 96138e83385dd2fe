//! Extended attributes: the digest of an inode, under the names of both dialects.

use super::{Error, Inode, Result};
use crate::castore::Digest;

const TVIX_DIRECTORY: &str = "user.tvix.castore.directory.digest";
const TVIX_BLOB: &str = "user.tvix.castore.blob.digest";
const SNIX_DIRECTORY: &str = "user.snix.castore.directory.digest";
const SNIX_BLOB: &str = "user.snix.castore.blob.digest";

/// The names and the digest of an inode that has one.
struct Digested {
    tvix: &'static str,
    snix: &'static str,
    digest: Digest,
}

fn digested(inode: &Inode) -> Option<Digested> {
    match inode {
        Inode::Directory { digest, .. } => {
            Some(Digested { tvix: TVIX_DIRECTORY, snix: SNIX_DIRECTORY, digest: *digest })
        }
        Inode::File { digest, .. } => {
            Some(Digested { tvix: TVIX_BLOB, snix: SNIX_BLOB, digest: *digest })
        }
        Inode::Root | Inode::Symlink { .. } => None,
    }
}

/// The value of the attribute `name`: `b3:` and base64 in the older dialect, `blake3-` and base64 in the newer one.
///
/// Programs that find out that one kind of attribute does not exist here, `ls -l` above all, do not ask again for every
/// file, which would be a message each.
pub(super) fn get(inode: &Inode, name: &[u8]) -> Result<String> {
    if !name.starts_with(b"user.") {
        return Err(Error::NoAttributesOfKind);
    }
    let Digested { tvix, snix, digest } = digested(inode).ok_or(Error::NoAttribute)?;
    if name == tvix.as_bytes() {
        Ok(digest.to_b3())
    } else if name == snix.as_bytes() {
        Ok(digest.to_string())
    } else {
        Err(Error::NoAttribute)
    }
}

/// The names of all attributes, each ended by a NUL, as `listxattr(2)` wants them.
pub(super) fn list(inode: &Inode) -> Vec<u8> {
    let mut names = Vec::new();
    if let Some(Digested { tvix, snix, .. }) = digested(inode) {
        for name in [tvix, snix] {
            names.extend_from_slice(name.as_bytes());
            names.push(0);
        }
    }
    names
}
