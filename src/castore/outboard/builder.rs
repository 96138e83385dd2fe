//! Computing the tree of a blob that passes by.

use blake3::{
    Hasher,
    hazmat::{HasherExt as _, Mode, merge_subtrees_non_root, merge_subtrees_root},
};

use super::{GROUP_LEN, NODE_LEN, OUTBOARD_HEADER_LEN, SubtreeHash, Tree, TreeNode, left_groups};
use crate::castore::Digest;

/// The tree of a blob, whole. Takes 0.39% of the blob's length in memory.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Outboard {
    tree: Tree,
    bytes: Vec<u8>,
}

impl Outboard {
    /// The shape.
    pub fn tree(&self) -> Tree {
        self.tree
    }

    /// A node; `None` if the tree has fewer.
    pub fn node(&self, index: u64) -> Option<TreeNode> {
        let start = usize::try_from(Tree::node_offset(index)).ok()?;
        self.bytes.get(start..start + NODE_LEN)?.try_into().ok()
    }

    /// As it is stored and sent.
    pub fn as_bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// As it is stored and sent.
    pub fn into_bytes(self) -> Vec<u8> {
        self.bytes
    }
}

/// Hashes a blob that comes in pieces, and remembers the hash of each group: 2 MiB for a blob of 1 GiB.
#[derive(Debug, Clone)]
pub struct OutboardBuilder {
    groups: Vec<SubtreeHash>,
    /// Of the group that has begun.
    hasher: Hasher,
    /// How much of it there is, in bytes.
    begun: u64,
}

impl Default for OutboardBuilder {
    fn default() -> Self {
        OutboardBuilder { groups: Vec::new(), hasher: Hasher::new(), begun: 0 }
    }
}

impl OutboardBuilder {
    /// Of an empty blob.
    pub fn new() -> Self {
        Self::default()
    }

    /// Appends.
    pub fn update(&mut self, mut piece: &[u8]) {
        while !piece.is_empty() {
            // Whether a full group is the whole blob is known only once more comes.
            if self.begun == GROUP_LEN {
                self.groups.push(self.hasher.finalize_non_root());
                self.hasher = Hasher::new();
                self.hasher.set_input_offset(self.groups.len() as u64 * GROUP_LEN);
                self.begun = 0;
            }
            let room = usize::try_from(GROUP_LEN - self.begun).unwrap_or(usize::MAX);
            let (now, later) = piece.split_at(piece.len().min(room));
            self.hasher.update(now);
            self.begun += now.len() as u64;
            piece = later;
        }
    }

    /// How many bytes there were so far.
    pub fn len(&self) -> u64 {
        self.groups.len() as u64 * GROUP_LEN + self.begun
    }

    /// Whether there were none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The digest of what there was, without its tree.
    pub fn digest(&self) -> Digest {
        self.clone().finish().0
    }

    /// Ends the blob: its digest and its tree.
    pub fn finish(mut self) -> (Digest, Outboard) {
        let tree = Tree::new(self.len());
        let mut bytes = Vec::with_capacity(OUTBOARD_HEADER_LEN + self.groups.len() * NODE_LEN);
        bytes.extend_from_slice(&tree.size().to_le_bytes());
        if self.groups.is_empty() {
            return (Digest::from(self.hasher.finalize()), Outboard { tree, bytes });
        }
        self.groups.push(self.hasher.finalize_non_root());
        let [left, right] = fill(&self.groups, &mut bytes);
        let root = merge_subtrees_root(&left, &right, Mode::Hash);
        (Digest::from(root), Outboard { tree, bytes })
    }
}

/// Appends the nodes of the subtree over `groups`, at least two. Returns the hashes in its top node.
fn fill(groups: &[SubtreeHash], bytes: &mut Vec<u8>) -> [SubtreeHash; 2] {
    let place = bytes.len();
    bytes.extend_from_slice(&[0; NODE_LEN]);
    let (left, right) = groups.split_at(left_groups(groups.len() as u64) as usize);
    let hashes = [left, right].map(|side| match side {
        [group] => *group,
        more => {
            let [left, right] = fill(more, bytes);
            merge_subtrees_non_root(&left, &right, Mode::Hash)
        }
    });
    bytes[place..place + NODE_LEN].copy_from_slice(hashes.as_flattened());
    hashes
}
