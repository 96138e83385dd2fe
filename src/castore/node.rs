//! What a name may stand for.

use std::fmt;

use bytes::Bytes;

use super::Digest;

/// The longest symlink target, in bytes.
pub const SYMLINK_TARGET_LEN_MAX: usize = 4095;

/// A directory, a regular file or a symbolic link, by reference to its contents.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Node {
    /// A directory.
    Directory {
        /// The digest of its canonical message.
        digest: Digest,
        /// What its parent says of its size; see [`super::SizeRule`].
        size: u64,
    },
    /// A regular file.
    File {
        /// The digest of its contents.
        digest: Digest,
        /// The length of its contents, in bytes.
        size: u64,
        /// Whether it may be executed.
        executable: bool,
    },
    /// A symbolic link.
    Symlink {
        /// Where it points.
        target: SymlinkTarget,
    },
}

/// A [`Node`] that borrows its symlink target.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NodeRef<'a> {
    /// See [`Node::Directory`].
    Directory {
        /// The digest of its canonical message.
        digest: Digest,
        /// What its parent says of its size.
        size: u64,
    },
    /// See [`Node::File`].
    File {
        /// The digest of its contents.
        digest: Digest,
        /// The length of its contents, in bytes.
        size: u64,
        /// Whether it may be executed.
        executable: bool,
    },
    /// See [`Node::Symlink`].
    Symlink {
        /// Where it points: 1 to 4095 bytes, no NUL.
        target: &'a [u8],
    },
}

impl Node {
    /// The same node, borrowed.
    pub fn as_ref(&self) -> NodeRef<'_> {
        match self {
            Node::Directory { digest, size } => NodeRef::Directory { digest: *digest, size: *size },
            Node::File { digest, size, executable } => {
                NodeRef::File { digest: *digest, size: *size, executable: *executable }
            }
            Node::Symlink { target } => NodeRef::Symlink { target: target.as_bytes() },
        }
    }
}

impl NodeRef<'_> {
    /// The same node, owned.
    pub fn to_node(self) -> Node {
        match self {
            NodeRef::Directory { digest, size } => Node::Directory { digest, size },
            NodeRef::File { digest, size, executable } => Node::File { digest, size, executable },
            NodeRef::Symlink { target } => {
                Node::Symlink { target: SymlinkTarget(Bytes::copy_from_slice(target)) }
            }
        }
    }
}

/// A legal symlink target: 1 to 4095 bytes, no NUL.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct SymlinkTarget(Bytes);

/// Why bytes are no legal symlink target.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SymlinkTargetError {
    /// No bytes at all.
    #[error("a symlink target must not be empty")]
    Empty,
    /// More than [`SYMLINK_TARGET_LEN_MAX`] bytes.
    #[error("a symlink target has at most {SYMLINK_TARGET_LEN_MAX} bytes, not {0}")]
    TooLong(usize),
    /// A NUL.
    #[error("the symlink target \"{0}\" contains a NUL")]
    Nul(String),
}

/// Checks that `target` is legal, without making one.
pub fn check_target(target: &[u8]) -> Result<(), SymlinkTargetError> {
    match target.len() {
        0 => Err(SymlinkTargetError::Empty),
        len if len > SYMLINK_TARGET_LEN_MAX => Err(SymlinkTargetError::TooLong(len)),
        _ if target.contains(&0) => Err(SymlinkTargetError::Nul(target.escape_ascii().to_string())),
        _ => Ok(()),
    }
}

impl SymlinkTarget {
    /// The bytes of the target.
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }

    /// The bytes of the target, shared.
    pub fn bytes(&self) -> &Bytes {
        &self.0
    }
}

impl TryFrom<Bytes> for SymlinkTarget {
    type Error = SymlinkTargetError;

    fn try_from(bytes: Bytes) -> Result<Self, SymlinkTargetError> {
        check_target(&bytes)?;
        Ok(SymlinkTarget(bytes))
    }
}

impl TryFrom<&[u8]> for SymlinkTarget {
    type Error = SymlinkTargetError;

    fn try_from(bytes: &[u8]) -> Result<Self, SymlinkTargetError> {
        check_target(bytes)?;
        Ok(SymlinkTarget(Bytes::copy_from_slice(bytes)))
    }
}

impl fmt::Debug for SymlinkTarget {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "\"{}\"", self.0.escape_ascii())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_illegal_target_has_its_error() {
        assert_eq!(check_target(b""), Err(SymlinkTargetError::Empty));
        assert_eq!(check_target(&[b'x'; 4096]), Err(SymlinkTargetError::TooLong(4096)));
        assert_eq!(check_target(b"a\0b"), Err(SymlinkTargetError::Nul("a\\x00b".to_owned())));
        assert_eq!(check_target(&[b'x'; 4095]), Ok(()));
        assert_eq!(check_target(b"../\xff/."), Ok(()));
    }
}
