//! The BLAKE3 tree of a blob, kept beside it, so that any part of the blob can be checked without the rest.
//!
//! A blob is cut into *groups* of 16 KiB, of which the last may be shorter. They are the leaves of the tree that BLAKE3
//! computes: the left subtree of a node has the largest power of two of groups that leaves something for the right one.
//! A *node* is the hashes of its two subtrees, left and right: 64 bytes.
//!
//! An **outboard** is the length of the blob (8 bytes, little-endian), then all nodes, each before its left subtree and
//! that before its right one. So a subtree of `n` groups has `n - 1` nodes in a row, and the right child of the node at
//! `i` lies at `i` plus the number of groups on its left. It takes 0.39% of the blob.
//!
//! A **proof** of a range is the nodes on the way to its groups, in the same order. Whoever knows the digest checks each
//! node by its parent and each group by its node. For one group in 1 GiB that is 16 nodes, 1 KiB.
//!
//! What is proven of a group is its bytes and its place. How long the blob is, only its last group proves: where a blob
//! has more than a liar says, the right edge of its tree is another one.

mod builder;
mod proof;
mod walk;

use std::ops::Range;

pub use builder::{Outboard, OutboardBuilder};
pub use proof::{PIECE_GROUPS_MAX, PieceCheck, PieceError, ProofError, prove};
pub use walk::{Checked, RangeWalk, TreeMismatch, Visit, check_group};

/// The length of a group, in bytes.
pub const GROUP_LEN: u64 = 16 << 10;

/// The length of a node, in bytes.
pub const NODE_LEN: usize = 64;

/// How many bytes of an outboard come before its first node.
pub const OUTBOARD_HEADER_LEN: usize = 8;

/// The hashes of two subtrees, left and right.
pub type TreeNode = [u8; NODE_LEN];

/// The hash of a subtree.
pub type SubtreeHash = [u8; 32];

/// The shape of the tree of a blob, which its length decides.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Tree {
    size: u64,
}

impl Tree {
    /// The tree of a blob of `size` bytes.
    pub fn new(size: u64) -> Self {
        Tree { size }
    }

    /// The length of the blob in bytes.
    pub fn size(self) -> u64 {
        self.size
    }

    /// How many groups there are; the empty blob has one, which is empty.
    pub fn groups(self) -> u64 {
        self.size.div_ceil(GROUP_LEN).max(1)
    }

    /// How many nodes there are.
    pub fn nodes(self) -> u64 {
        self.groups() - 1
    }

    /// The length of the outboard in bytes.
    pub fn outboard_len(self) -> u64 {
        OUTBOARD_HEADER_LEN as u64 + self.nodes() * NODE_LEN as u64
    }

    /// Where in the outboard a node lies, in bytes.
    pub fn node_offset(node: u64) -> u64 {
        OUTBOARD_HEADER_LEN as u64 + node * NODE_LEN as u64
    }

    /// The bytes of some groups.
    pub fn bytes_of(self, groups: &Range<u64>) -> Range<u64> {
        let at = |group: u64| group.saturating_mul(GROUP_LEN).min(self.size);
        at(groups.start)..at(groups.end)
    }

    /// The groups that must be checked before the bytes of `range` can be believed, never none. A range that reaches or
    /// passes the end says where the end is, which only the last group proves.
    pub fn groups_of(self, range: &Range<u64>) -> Range<u64> {
        let last = self.groups() - 1;
        let start = (range.start / GROUP_LEN).min(last);
        let end = match range.end >= self.size {
            true => self.groups(),
            false => range.end.div_ceil(GROUP_LEN),
        };
        start..end.max(start + 1)
    }
}

/// How many of `groups`, which are at least two, lie on the left.
fn left_groups(groups: u64) -> u64 {
    1 << (groups - 1).ilog2()
}

#[cfg(test)]
mod tests;
