//! A range in pieces, each with the nodes that the pieces before it did not need.

use std::ops::Range;

use super::{
    Checked, GROUP_LEN, NODE_LEN, RangeWalk, Tree, TreeMismatch, TreeNode, Visit, check_group,
};
use crate::castore::Digest;

/// The most groups that one piece of a range may have: 256 KiB.
pub const PIECE_GROUPS_MAX: u64 = 16;

/// Why a piece of a range cannot be believed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PieceError {
    /// It is not what the digest says.
    #[error(transparent)]
    Mismatch(#[from] TreeMismatch),
    /// It is no number of whole groups that may come next.
    #[error(
        "a piece of {len} bytes at byte {offset} of {size} ends within a group, or is too long"
    )]
    Length {
        /// Where it begins in the blob, in bytes.
        offset: u64,
        /// How long it is, in bytes.
        len: usize,
        /// How long the blob is said to be, in bytes.
        size: u64,
    },
    /// The nodes are not as many as the piece needs.
    #[error(
        "the piece at byte {offset} came with {len} bytes of nodes, which is not what it takes"
    )]
    Nodes {
        /// Where it begins in the blob, in bytes.
        offset: u64,
        /// How many bytes of nodes there were.
        len: usize,
    },
}

/// Checks the pieces of a range, in order.
#[derive(Debug, Clone)]
pub struct PieceCheck {
    tree: Tree,
    walk: RangeWalk,
    /// Whether the data is known to be right.
    is_checked: bool,
}

impl PieceCheck {
    /// Of those `groups` of a blob that is said to have `tree`.
    pub fn new(digest: &Digest, tree: Tree, groups: Range<u64>) -> Self {
        PieceCheck { tree, walk: RangeWalk::new(digest, tree, groups), is_checked: false }
    }

    /// For pieces that have been checked before: it tells which groups and nodes they are, and does not hash the data
    /// again.
    pub fn of_checked(digest: &Digest, tree: Tree, groups: Range<u64>) -> Self {
        PieceCheck { is_checked: true, ..Self::new(digest, tree, groups) }
    }

    /// The groups that have not come yet.
    pub fn left(&self) -> Range<u64> {
        self.walk.left()
    }

    /// Checks the next piece and returns which groups it is. Each of its nodes is given to `node` with its place in the
    /// outboard. After an error no more can be checked.
    pub fn take(
        &mut self,
        nodes: &[u8],
        data: &[u8],
        node: impl FnMut(u64, &TreeNode),
    ) -> Result<Range<u64>, PieceError> {
        let count = (data.len() as u64).div_ceil(GROUP_LEN).max(1);
        let groups = self.walk.next_groups(count.min(PIECE_GROUPS_MAX));
        let bytes = self.tree.bytes_of(&groups);
        let (offset, size) = (bytes.start, self.tree.size());
        if groups.is_empty() || bytes.end - bytes.start != data.len() as u64 {
            return Err(PieceError::Length { offset, len: data.len(), size });
        }
        let len = nodes.len();
        let is_checked = self.is_checked;
        let mut taking = Taking { nodes, data, taken: node, missing: false, is_checked };
        match self.walk.advance(groups.end, &mut taking) {
            Ok(()) if taking.missing || !taking.nodes.is_empty() => {
                Err(PieceError::Nodes { offset, len })
            }
            Ok(()) => Ok(groups),
            Err(mismatch) => Err(mismatch.into()),
        }
    }
}

struct Taking<'a, F> {
    nodes: &'a [u8],
    data: &'a [u8],
    taken: F,
    missing: bool,
    is_checked: bool,
}

impl<F: FnMut(u64, &TreeNode)> Visit for Taking<'_, F> {
    type Error = TreeMismatch;

    fn node(&mut self, _index: u64) -> Result<Option<TreeNode>, TreeMismatch> {
        let node = self.nodes.split_first_chunk::<NODE_LEN>();
        self.missing |= node.is_none();
        let Some((node, rest)) = node else { return Ok(None) };
        self.nodes = rest;
        Ok(Some(*node))
    }

    fn checked_node(&mut self, index: u64, node: &TreeNode) -> Result<(), TreeMismatch> {
        (self.taken)(index, node);
        Ok(())
    }

    fn group(&mut self, group: Checked) -> Result<(), TreeMismatch> {
        let len = self.data.len().min(GROUP_LEN as usize);
        let (bytes, rest) = self.data.split_at(len);
        self.data = rest;
        if self.is_checked {
            return Ok(());
        }
        check_group(group, bytes)
    }
}

/// Why a proof cannot be given.
#[derive(Debug, thiserror::Error)]
pub enum ProofError<E> {
    /// A node that is stored is wrong.
    #[error(transparent)]
    Mismatch(#[from] TreeMismatch),
    /// A node is not there.
    #[error("node {0} of the tree is not here")]
    Missing(u64),
    /// The nodes cannot be read.
    #[error("cannot read the tree: {0}")]
    Read(E),
}

/// Appends to `nodes` what proves the groups of `walk` up to `end`, as `read` has it: each node once a walk. What is
/// not as the digest says is not handed out.
pub fn prove<E>(
    walk: &mut RangeWalk,
    end: u64,
    nodes: &mut Vec<u8>,
    read: impl FnMut(u64) -> Result<Option<TreeNode>, E>,
) -> Result<(), ProofError<E>> {
    walk.advance(end, &mut Proving { nodes, read })
}

struct Proving<'a, F> {
    nodes: &'a mut Vec<u8>,
    read: F,
}

impl<E, F: FnMut(u64) -> Result<Option<TreeNode>, E>> Visit for Proving<'_, F> {
    type Error = ProofError<E>;

    fn node(&mut self, index: u64) -> Result<Option<TreeNode>, ProofError<E>> {
        let node = (self.read)(index).map_err(ProofError::Read)?;
        node.map(Some).ok_or(ProofError::Missing(index))
    }

    fn checked_node(&mut self, _index: u64, node: &TreeNode) -> Result<(), ProofError<E>> {
        self.nodes.extend_from_slice(node);
        Ok(())
    }

    fn group(&mut self, _group: Checked) -> Result<(), ProofError<E>> {
        Ok(())
    }
}
