//! Directories and nodes.

use bytes::Bytes;
use prost::Message as _;

use crate::{
    castore::{
        Digest, DigestError, Directory, DirectoryError, Node, SymlinkTarget, SymlinkTargetError,
    },
    proto::castore as proto,
};

/// Why a message is no node.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NodeMessageError {
    /// None of the three kinds.
    #[error("the node is neither directory nor file nor symlink")]
    Missing,
    /// The digest has the wrong length.
    #[error("wrong digest in a node: {0}")]
    Digest(#[from] DigestError),
    /// The target is illegal.
    #[error("illegal symlink in a node: {0}")]
    Target(#[from] SymlinkTargetError),
}

impl TryFrom<proto::Directory> for Directory {
    type Error = DirectoryError;

    /// Encoding a message spells its values canonically and leaves their order as it is. So the reader of canonical
    /// bytes is also the judge of messages, and there is only one set of rules.
    fn try_from(message: proto::Directory) -> Result<Self, DirectoryError> {
        Directory::decode(message.encode_to_vec().into())
    }
}

impl From<&Directory> for proto::Directory {
    /// Copies no names or targets: they stay slices of the directory.
    fn from(directory: &Directory) -> Self {
        proto::Directory::decode(directory.encoded().clone())
            .expect("a directory keeps the bytes of a well-formed message")
    }
}

impl TryFrom<proto::Node> for Node {
    type Error = NodeMessageError;

    /// Ignores the name: what it must be depends on where the node stands.
    fn try_from(message: proto::Node) -> Result<Self, NodeMessageError> {
        match message.node.ok_or(NodeMessageError::Missing)? {
            proto::node::Node::Directory(directory) => Ok(Node::Directory {
                digest: Digest::try_from(&directory.digest[..])?,
                size: directory.size,
            }),
            proto::node::Node::File(file) => Ok(Node::File {
                digest: Digest::try_from(&file.digest[..])?,
                size: file.size,
                executable: file.executable,
            }),
            proto::node::Node::Symlink(symlink) => {
                Ok(Node::Symlink { target: SymlinkTarget::try_from(symlink.target)? })
            }
        }
    }
}

impl From<&Node> for proto::Node {
    /// With an empty name.
    fn from(node: &Node) -> Self {
        named_node(Bytes::new(), node)
    }
}

/// The message for `node`, which stands alone under `name`.
pub fn named_node(name: Bytes, node: &Node) -> proto::Node {
    let node = match node {
        Node::Directory { digest, size } => proto::node::Node::Directory(proto::DirectoryNode {
            name,
            digest: Bytes::copy_from_slice(digest.as_bytes()),
            size: *size,
        }),
        Node::File { digest, size, executable } => proto::node::Node::File(proto::FileNode {
            name,
            digest: Bytes::copy_from_slice(digest.as_bytes()),
            size: *size,
            executable: *executable,
        }),
        Node::Symlink { target } => {
            proto::node::Node::Symlink(proto::SymlinkNode { name, target: target.bytes().clone() })
        }
    };
    proto::Node { node: Some(node) }
}

/// The name that a message gives its node.
pub(super) fn node_name(message: &proto::Node) -> Option<&[u8]> {
    match message.node.as_ref()? {
        proto::node::Node::Directory(directory) => Some(&directory.name),
        proto::node::Node::File(file) => Some(&file.name),
        proto::node::Node::Symlink(symlink) => Some(&symlink.name),
    }
}

#[cfg(test)]
#[path = "castore_tests.rs"]
pub(super) mod tests;
