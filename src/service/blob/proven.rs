//! Ranges of a blob that prove themselves.

use std::{convert::Infallible, fmt, ops::Range, pin::Pin, sync::Arc};

use bytes::Bytes;
use futures::{Stream, StreamExt as _, stream};

use crate::{
    castore::{
        Digest,
        outboard::{
            GROUP_LEN, OutboardBuilder, PIECE_GROUPS_MAX, PieceCheck, RangeWalk, Tree, prove,
        },
    },
    observe::spent::{self, Phase},
    service::{Error, Result},
};

/// The longest piece of a proven range, in bytes.
pub const PROVEN_PIECE_LEN_MAX: usize = (PIECE_GROUPS_MAX * GROUP_LEN) as usize;

/// Whole groups of a blob, and the nodes of its tree that they need and the pieces before them did not.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ProvenPiece {
    /// Nodes in pre-order.
    pub nodes: Bytes,
    /// The bytes of at most [`PIECE_GROUPS_MAX`] groups.
    pub data: Bytes,
}

/// The pieces of a range, in order. An error ends the stream.
pub type ProvenStream = Pin<Box<dyn Stream<Item = Result<ProvenPiece>> + Send>>;

/// The answer to the question for a range with its proof.
pub enum Proven {
    /// The blob may be there, but nothing to prove a range with.
    Lacking,
    /// The groups that [`Tree::groups_of`] the range names.
    Range {
        /// How long the blob is said to be, in bytes. Proven with its last group.
        size: u64,
        /// The groups.
        pieces: ProvenStream,
    },
}

impl fmt::Debug for Proven {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Proven::Lacking => f.write_str("Lacking"),
            Proven::Range { size, .. } => f.debug_struct("Range").field("size", size).finish(),
        }
    }
}

/// Proves a range of a blob that `endpoint` has in memory. Hashes all of it, so it should not be long.
pub fn prove_contents(
    endpoint: &str,
    digest: &Digest,
    contents: Bytes,
    range: &Range<u64>,
) -> Proven {
    let endpoint: Arc<str> = endpoint.into();
    let mut builder = OutboardBuilder::new();
    builder.update(&contents);
    let (_, outboard) = builder.finish();
    let tree = outboard.tree();
    let digest = *digest;
    let mut left = Some(RangeWalk::new(&digest, tree, tree.groups_of(range)));
    let pieces = std::iter::from_fn(move || {
        let mut walk = left.take()?;
        let groups = walk.next_groups(PIECE_GROUPS_MAX);
        if groups.is_empty() {
            return None;
        }
        let bytes = tree.bytes_of(&groups);
        // Both are at most the length of the contents.
        let data = contents.slice(bytes.start as usize..bytes.end as usize);
        let mut nodes = Vec::new();
        let node = |index| Ok::<_, Infallible>(outboard.node(index));
        if let Err(error) = prove(&mut walk, groups.end, &mut nodes, node) {
            return Some(Err(Error::corrupt(&endpoint, format!("blob {digest}: {error}"))));
        }
        left = Some(walk);
        Some(Ok(ProvenPiece { nodes: nodes.into(), data }))
    });
    Proven::Range { size: tree.size(), pieces: stream::iter(pieces).boxed() }
}

/// Checks every piece before it passes. What does not belong to the blob, or is missing, is an error of `endpoint`.
pub fn checked(endpoint: &str, digest: &Digest, range: &Range<u64>, proven: Proven) -> Proven {
    let Proven::Range { size, pieces } = proven else { return Proven::Lacking };
    let tree = Tree::new(size);
    let check = PieceCheck::new(digest, tree, tree.groups_of(range));
    let (endpoint, digest): (Box<str>, _) = (endpoint.into(), *digest);
    let wrong = move |why: &dyn fmt::Display| {
        Error::corrupt(&endpoint, format!("a range of blob {digest}: {why}"))
    };
    let state = Some((check, pieces, wrong));
    let pieces = stream::unfold(state, |state| async move {
        let (mut check, mut pieces, wrong) = state?;
        if check.left().is_empty() {
            return None;
        }
        let piece = match pieces.next().await {
            Some(Ok(piece)) => piece,
            Some(Err(error)) => return Some((Err(error), None)),
            None => return Some((Err(wrong(&"it ends too early")), None)),
        };
        let taken = spent::here(Phase::Verify, || check.take(&piece.nodes, &piece.data, |_, _| {}));
        match taken {
            Ok(_) => Some((Ok(piece), Some((check, pieces, wrong)))),
            Err(error) => Some((Err(wrong(&error)), None)),
        }
    });
    Proven::Range { size, pieces: pieces.boxed() }
}
