//! Trees against BLAKE3 itself, proofs against damage of every kind.

use std::{convert::Infallible, ops::Range};

use proptest::{prelude::*, sample::Index};

use super::*;
use crate::castore::Digest;

fn noise(len: usize) -> Vec<u8> {
    let mut bytes = vec![0; len];
    blake3::Hasher::new().update(&len.to_le_bytes()).finalize_xof().fill(&mut bytes);
    bytes
}

fn outboard(contents: &[u8]) -> (Digest, Outboard) {
    let mut builder = OutboardBuilder::new();
    builder.update(contents);
    builder.finish()
}

/// A piece: nodes and data.
type Piece = (Vec<u8>, Vec<u8>);

/// The pieces of a range, of at most `groups_max` groups each.
fn pieces(
    contents: &[u8],
    digest: &Digest,
    outboard: &Outboard,
    groups: Range<u64>,
    groups_max: u64,
) -> Vec<Piece> {
    let tree = outboard.tree();
    let mut walk = RangeWalk::new(digest, tree, groups);
    let mut pieces = Vec::new();
    while !walk.left().is_empty() {
        let next = walk.next_groups(groups_max);
        let mut nodes = Vec::new();
        prove(&mut walk, next.end, &mut nodes, |index| Ok::<_, Infallible>(outboard.node(index)))
            .expect("the outboard is right");
        let bytes = tree.bytes_of(&next);
        pieces.push((nodes, contents[bytes.start as usize..bytes.end as usize].to_vec()));
    }
    pieces
}

/// The data of all pieces that were believed, and why the next was not.
fn check(
    digest: &Digest,
    tree: Tree,
    groups: Range<u64>,
    pieces: &[Piece],
) -> (Vec<u8>, Option<PieceError>) {
    let mut check = PieceCheck::new(digest, tree, groups);
    let mut data = Vec::new();
    for (nodes, piece) in pieces {
        match check.take(nodes, piece, |_, _| {}) {
            Ok(_) => data.extend_from_slice(piece),
            Err(error) => return (data, Some(error)),
        }
    }
    (data, None)
}

const G: usize = GROUP_LEN as usize;

#[test]
fn the_digest_is_that_of_blake3_at_every_border() {
    for groups in [0, 1, 2, 3, 4, 5, 7, 8, 9, 16, 17, 33] {
        for extra in [0, 1, 1023, 1024, 1025, G - 1] {
            let contents = noise(groups * G + extra);
            let (digest, outboard) = outboard(&contents);
            assert_eq!(digest, Digest::of(&contents), "{groups} groups and {extra}");
            assert_eq!(outboard.as_bytes().len() as u64, outboard.tree().outboard_len());
            assert_eq!(outboard.as_bytes()[..8], (contents.len() as u64).to_le_bytes());
            assert_eq!(outboard.node(outboard.tree().nodes()), None);
        }
    }
}

#[test]
fn one_group_of_a_gibibyte_is_proven_by_a_kibibyte() {
    let mut builder = OutboardBuilder::new();
    for _ in 0..1024 {
        builder.update(&[0; 1 << 20]);
    }
    let (digest, outboard) = builder.finish();
    let tree = outboard.tree();
    assert_eq!((tree.size(), tree.groups()), (1 << 30, 1 << 16));
    let groups = tree.groups_of(&(500_000_000..500_000_001));
    let mut walk = RangeWalk::new(&digest, tree, groups.clone());
    let mut nodes = Vec::new();
    prove(&mut walk, groups.end, &mut nodes, |index| Ok::<_, Infallible>(outboard.node(index)))
        .expect("the outboard is right");
    assert_eq!(nodes.len(), 1024);
    assert_eq!(check(&digest, tree, groups, &[(nodes, vec![0; G])]).1, None);
}

#[test]
fn groups_cover_their_range_and_the_end_takes_the_last() {
    let tree = Tree::new(100_000); // 7 groups
    assert_eq!(tree.groups_of(&(0..1)), 0..1);
    assert_eq!(tree.groups_of(&(16_384..32_768)), 1..2);
    assert_eq!(tree.groups_of(&(16_383..32_769)), 0..3);
    assert_eq!(tree.groups_of(&(99_999..100_000)), 6..7);
    assert_eq!(tree.groups_of(&(200_000..200_001)), 6..7);
    assert_eq!(tree.groups_of(&(5..5)), 0..1);
    assert_eq!(tree.groups_of(&(u64::MAX - 1..u64::MAX)), 6..7);
    assert_eq!(tree.groups_of(&(0..u64::MAX)), 0..7);
    assert_eq!(Tree::new(0).groups_of(&(0..9)), 0..1);
    assert_eq!(Tree::new(u64::MAX).groups_of(&(0..u64::MAX)).end, u64::MAX / GROUP_LEN + 1);
    assert_eq!(tree.bytes_of(&(6..7)), 98_304..100_000);
}

#[test]
fn no_other_length_can_be_claimed_of_a_range_with_the_end() {
    for size in [1, G, G + 1, 3 * G, 8 * G, 8 * G + 5, 13 * G + 100] {
        let contents = noise(size);
        let (digest, outboard) = outboard(&contents);
        for claimed in [0, 1, size - 1, size + 1, size + G, 2 * size, size / 2, 64 * G] {
            if claimed == size {
                continue;
            }
            let tree = Tree::new(claimed as u64);
            // Whatever there is of the real blob, padded or cut as the claim needs it.
            let mut said = contents.clone();
            said.resize(claimed, 0);
            let groups = tree.groups_of(&(claimed as u64..u64::MAX));
            let bytes = tree.bytes_of(&groups);
            let data = said[bytes.start as usize..bytes.end as usize].to_vec();
            // Any nodes of the real tree in a row that may fool it, and none.
            for from in 0..=outboard.tree().nodes() {
                for to in from..=outboard.tree().nodes() {
                    let nodes = &outboard.as_bytes()[8..][from as usize * 64..to as usize * 64];
                    let pieces = [(nodes.to_vec(), data.clone())];
                    let (_, error) = check(&digest, tree, groups.clone(), &pieces);
                    assert!(error.is_some(), "{claimed} for {size}");
                }
            }
        }
    }
}

#[test]
fn what_is_not_known_is_left_out_of_a_walk() {
    struct Sparse<'a>(&'a Outboard, u64, Vec<u64>);
    impl Visit for Sparse<'_> {
        type Error = TreeMismatch;
        fn node(&mut self, index: u64) -> Result<Option<TreeNode>, TreeMismatch> {
            Ok(self.0.node(index).filter(|_| index != self.1))
        }
        fn group(&mut self, group: Checked) -> Result<(), TreeMismatch> {
            self.2.push(group.group);
            Ok(())
        }
    }
    let (digest, outboard) = outboard(&noise(7 * G));
    // Nodes: 0 over 0..7, 1 over 0..4, 2 over 0..2, 3 over 2..4, 4 over 4..7, 5 over 4..6.
    for (unknown, expected) in
        [(0, vec![]), (1, vec![4, 5, 6]), (3, vec![0, 1, 4, 5, 6]), (5, vec![0, 1, 2, 3, 6])]
    {
        let mut walk = RangeWalk::new(&digest, outboard.tree(), 0..7);
        let mut sparse = Sparse(&outboard, unknown, Vec::new());
        walk.advance(7, &mut sparse).expect("the rest is right");
        assert_eq!(sparse.2, expected);
    }
}

fn blob() -> impl Strategy<Value = Vec<u8>> {
    prop_oneof![1..40 * G, (1..40usize).prop_map(|groups| groups * G), 1..3 * G].prop_map(noise)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(128))]

    #[test]
    fn pieces_of_any_length_make_the_same_tree(contents in blob(), step in 1..100_000usize) {
        let mut builder = OutboardBuilder::new();
        for piece in contents.chunks(step) {
            builder.update(piece);
        }
        prop_assert_eq!(builder.len(), contents.len() as u64);
        prop_assert_eq!(builder.digest(), Digest::of(&contents));
        prop_assert_eq!(builder.finish(), outboard(&contents));
    }

    #[test]
    fn every_range_is_proven(
        contents in blob(), start in any::<Index>(), len in 0..400_000u64, step in 1..=16u64,
    ) {
        let (digest, outboard) = outboard(&contents);
        let tree = outboard.tree();
        let start = start.index(contents.len() + 10) as u64;
        let groups = tree.groups_of(&(start..start + len));
        let pieces = pieces(&contents, &digest, &outboard, groups.clone(), step);
        let (data, error) = check(&digest, tree, groups.clone(), &pieces);
        prop_assert_eq!(error, None);
        let bytes = tree.bytes_of(&groups);
        prop_assert_eq!(&data[..], &contents[bytes.start as usize..bytes.end as usize]);
        // No node travels twice, and none that is not needed.
        let mut check = PieceCheck::new(&digest, tree, groups.clone());
        let mut seen = std::collections::BTreeSet::new();
        for (nodes, data) in &pieces {
            let took = check.take(nodes, data, |index, node| {
                assert!(seen.insert(index) && outboard.node(index) == Some(*node));
            });
            prop_assert!(took.is_ok());
        }
        prop_assert!(check.left().is_empty());
        let at_most = (groups.end - groups.start) + 2 * u64::from(tree.groups().ilog2() + 1);
        prop_assert!(seen.len() as u64 <= at_most);
    }

    #[test]
    fn no_flipped_bit_is_believed(
        contents in blob(), start in any::<Index>(), len in 1..400_000u64, step in 1..=16u64,
        piece in any::<Index>(), byte in any::<Index>(), bit in 0..8u32,
    ) {
        let (digest, outboard) = outboard(&contents);
        let tree = outboard.tree();
        let start = start.index(contents.len()) as u64;
        let groups = tree.groups_of(&(start..start + len));
        let mut pieces = pieces(&contents, &digest, &outboard, groups.clone(), step);
        let right: Vec<u8> = pieces.iter().flat_map(|(_, data)| data.clone()).collect();
        let number = piece.index(pieces.len());
        let (nodes, data) = &mut pieces[number];
        let at = byte.index(nodes.len() + data.len());
        let target = match at.checked_sub(nodes.len()) {
            None => &mut nodes[at],
            Some(at) => &mut data[at],
        };
        *target ^= 1 << bit;
        let (believed, error) = check(&digest, tree, groups, &pieces);
        prop_assert!(matches!(error, Some(PieceError::Mismatch(_))), "{error:?}");
        prop_assert_eq!(&believed[..], &right[..believed.len()]);
    }

    #[test]
    fn no_piece_may_be_cut_lengthened_swapped_or_left_out(
        contents in blob(), step in 1..=16u64, number in any::<Index>(), how in 0..7u8, by in 1..200usize,
    ) {
        let (digest, outboard) = outboard(&contents);
        let tree = outboard.tree();
        let groups = tree.groups_of(&(0..u64::MAX));
        let mut pieces = pieces(&contents, &digest, &outboard, groups.clone(), step);
        let before = pieces.clone();
        let number = number.index(pieces.len());
        let (nodes, data) = &mut pieces[number];
        match how {
            0 => data.truncate(data.len().saturating_sub(by)),
            1 => data.extend(vec![0; by]),
            2 => nodes.truncate(nodes.len().saturating_sub(by)),
            3 => nodes.extend(vec![0; by]),
            4 => drop(pieces.remove(number)),
            5 => pieces.swap(0, number),
            _ => data.extend(vec![0; 17 * G]),
        }
        let (believed, error) = check(&digest, tree, groups.clone(), &pieces);
        let whole = believed.len() == contents.len();
        prop_assert!(pieces == before || error.is_some() || !whole, "{how}");
        prop_assert_eq!(&believed[..], &contents[..believed.len()]);
    }

    #[test]
    fn nothing_makes_a_check_panic(
        size in prop_oneof![any::<u64>(), 0..2_000_000u64], start in any::<u64>(), len in any::<u64>(),
        nodes in 0..3000usize, data in prop_oneof![0..300_000usize, (0..17usize).prop_map(|g| g * G)],
    ) {
        let tree = Tree::new(size);
        let groups = tree.groups_of(&(start..start.saturating_add(len)));
        let mut check = PieceCheck::new(&Digest::of(b"x"), tree, groups);
        let taken = check.take(&noise(nodes), &noise(data), |_, _| {});
        prop_assert!(taken.is_err());
    }
}
