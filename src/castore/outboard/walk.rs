//! Going down the tree to the groups of a range, checking on the way.

use std::ops::Range;

use blake3::{
    Hasher,
    hazmat::{HasherExt as _, Mode, merge_subtrees_non_root, merge_subtrees_root},
};

use super::{GROUP_LEN, SubtreeHash, Tree, TreeNode, left_groups};
use crate::castore::Digest;

/// What is believed of a subtree before it has been looked at.
#[derive(Debug, Clone, Copy)]
struct Subtree {
    first_group: u64,
    groups: u64,
    /// Where its top node is. That of a single group has no meaning.
    node: u64,
    hash: SubtreeHash,
}

/// A node or the bytes of a group are not what the digest of the blob says.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum TreeMismatch {
    /// A node of the tree.
    #[error("node {node} of the tree does not have the hash that it should")]
    Node {
        /// Where it is in the outboard.
        node: u64,
    },
    /// The contents of a group.
    #[error("the 16 KiB from byte {offset} on do not have the hash that they should")]
    Group {
        /// Where the group begins, in bytes.
        offset: u64,
    },
}

/// What a [`Visit`] is to do at a place in the tree.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Checked {
    /// The group.
    pub group: u64,
    /// The hash that it has if it is right.
    pub hash: SubtreeHash,
    /// Whether it is the whole blob.
    pub is_root: bool,
}

/// What is done on a walk. An error ends it.
pub trait Visit {
    /// Why a walk may end early.
    type Error: From<TreeMismatch>;

    /// Hands out the node at `index`, which the walk then checks. `None` leaves its subtree out.
    fn node(&mut self, index: u64) -> Result<Option<TreeNode>, Self::Error>;

    /// Takes a node that was checked.
    fn checked_node(&mut self, _index: u64, _node: &TreeNode) -> Result<(), Self::Error> {
        Ok(())
    }

    /// Takes a group whose hash is known now. Does with its bytes what it likes.
    fn group(&mut self, group: Checked) -> Result<(), Self::Error>;
}

/// A walk over the groups of a range, in order and in as many steps as one likes. What it passes has been checked
/// against the digest; each node is asked for once, when the first group below it is reached.
#[derive(Debug, Clone)]
pub struct RangeWalk {
    tree: Tree,
    /// The groups that are still to come.
    groups: Range<u64>,
    /// Subtrees that were reached but not entered, the next one last.
    ahead: Vec<Subtree>,
}

impl RangeWalk {
    /// Over some groups of the blob.
    pub fn new(digest: &Digest, tree: Tree, groups: Range<u64>) -> Self {
        let top =
            Subtree { first_group: 0, groups: tree.groups(), node: 0, hash: *digest.as_bytes() };
        RangeWalk { tree, groups: groups.start..groups.end.min(tree.groups()), ahead: vec![top] }
    }

    /// The groups that are still to come.
    pub fn left(&self) -> Range<u64> {
        self.groups.clone()
    }

    /// The next groups, at most `groups_max` of them.
    pub fn next_groups(&self, groups_max: u64) -> Range<u64> {
        let end = self.groups.start.saturating_add(groups_max).min(self.groups.end);
        self.groups.start..end
    }

    /// Goes on up to the group `end`. After an error the walk must not be used any more.
    pub fn advance<V: Visit>(&mut self, end: u64, visit: &mut V) -> Result<(), V::Error> {
        let end = end.min(self.groups.end);
        let wanted = self.groups.start..end;
        while let Some(subtree) = self.ahead.pop() {
            if wanted.is_empty() || subtree.first_group >= wanted.end {
                self.ahead.push(subtree);
                break;
            }
            if subtree.first_group + subtree.groups <= wanted.start {
                continue;
            }
            let is_root = subtree.groups == self.tree.groups();
            if subtree.groups == 1 {
                let (group, hash) = (subtree.first_group, subtree.hash);
                visit.group(Checked { group, hash, is_root })?;
                continue;
            }
            let Some(node) = visit.node(subtree.node)? else { continue };
            let (left, right) = split(&node);
            let hash = match is_root {
                true => *merge_subtrees_root(&left, &right, Mode::Hash).as_bytes(),
                false => merge_subtrees_non_root(&left, &right, Mode::Hash),
            };
            if hash != subtree.hash {
                return Err(TreeMismatch::Node { node: subtree.node }.into());
            }
            visit.checked_node(subtree.node, &node)?;
            let on_left = left_groups(subtree.groups);
            self.ahead.push(Subtree {
                first_group: subtree.first_group + on_left,
                groups: subtree.groups - on_left,
                node: subtree.node + on_left,
                hash: right,
            });
            let first_group = subtree.first_group;
            let node = subtree.node + 1;
            self.ahead.push(Subtree { first_group, groups: on_left, node, hash: left });
        }
        self.groups.start = end.max(self.groups.start);
        Ok(())
    }
}

fn split(node: &TreeNode) -> (SubtreeHash, SubtreeHash) {
    let (mut left, mut right) = ([0; 32], [0; 32]);
    left.copy_from_slice(&node[..32]);
    right.copy_from_slice(&node[32..]);
    (left, right)
}

/// Whether `bytes` are those of the group. They are as many as the group should have.
pub fn check_group(group: Checked, bytes: &[u8]) -> Result<(), TreeMismatch> {
    let offset = group.group * GROUP_LEN;
    let hash = match group.is_root {
        true => *blake3::hash(bytes).as_bytes(),
        // Nothing has no hash but as a whole blob.
        false if bytes.is_empty() => return Err(TreeMismatch::Group { offset }),
        false => {
            let mut hasher = Hasher::new();
            hasher.set_input_offset(offset);
            hasher.update(bytes).finalize_non_root()
        }
    };
    match hash == group.hash {
        true => Ok(()),
        false => Err(TreeMismatch::Group { offset }),
    }
}
