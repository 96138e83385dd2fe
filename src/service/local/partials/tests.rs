//! Partials over restarts, side by side, and with damage everywhere.

use std::{fs, ops::Range, os::unix::fs::FileExt as _, path::PathBuf};

use tempfile::TempDir;

use super::*;
use crate::{
    castore::outboard::{
        GROUP_LEN, Outboard, OutboardBuilder, PIECE_GROUPS_MAX, PieceCheck, RangeWalk,
    },
    service::blob::{BlobService as _, backend::LocalBlobs},
};

/// A blob and its tree.
struct Sample {
    contents: Vec<u8>,
    digest: Digest,
    outboard: Outboard,
}

fn sample(len: usize) -> Sample {
    let mut contents = vec![0; len];
    blake3::Hasher::new().finalize_xof().fill(&mut contents);
    let mut builder = OutboardBuilder::new();
    builder.update(&contents);
    let (digest, outboard) = builder.finish();
    Sample { contents, digest, outboard }
}

impl Sample {
    fn size(&self) -> u64 {
        self.contents.len() as u64
    }

    /// Brings the groups that `range` touches, as they would come from a server.
    fn bring(&self, partial: &Partial, range: Range<u64>) {
        let tree = Tree::new(self.size());
        let groups = tree.groups_of(&range);
        let mut walk = RangeWalk::new(&self.digest, tree, groups.clone());
        let mut check = PieceCheck::new(&self.digest, tree, groups);
        while !walk.left().is_empty() {
            let next = walk.next_groups(PIECE_GROUPS_MAX);
            let bytes = tree.bytes_of(&next);
            let data = &self.contents[bytes.start as usize..bytes.end as usize];
            let mut proof = Vec::new();
            let node = |index| Ok::<_, io::Error>(self.outboard.node(index));
            crate::castore::outboard::prove(&mut walk, next.end, &mut proof, node).expect("right");
            let mut nodes = Vec::new();
            check.take(&proof, data, |index, node| nodes.push((index, *node))).expect("right");
            partial.write(bytes.start, data, &nodes).expect("there is room");
        }
    }

    /// Everything that the partial says it has is right. Returns how much that is.
    fn assert_right(&self, partial: &Partial) -> u64 {
        let mut here = 0;
        for range in partial.present(&(0..self.size())) {
            here += range.end - range.start;
            let read = partial.read(&range).expect("it is here");
            assert!(read == self.contents[range.start as usize..range.end as usize], "{range:?}");
        }
        here
    }
}

fn open(dir: &TempDir) -> Arc<LocalStore> {
    LocalStore::open_cache(&dir.path().join("cache"), None).expect("it opens")
}

fn one(range: Range<u64>) -> Vec<Range<u64>> {
    Vec::from([range])
}

fn files(dir: &TempDir) -> Vec<PathBuf> {
    let folder = fs::read_dir(dir.path().join("cache/partials")).expect("it lists");
    let mut files: Vec<_> = folder.map(|entry| entry.expect("it lists").path()).collect();
    files.sort();
    files
}

#[test]
fn what_came_is_there_after_a_restart_and_takes_no_more_disk_than_that() {
    let dir = tempfile::tempdir().expect("a folder");
    let sample = sample(10_000_000);
    let partial = open(&dir).open_partial(&sample.digest, sample.size()).expect("it opens");
    sample.bring(&partial, 5_000_000..5_300_000);
    sample.bring(&partial, 0..1);
    let here = sample.assert_right(&partial);
    assert!((316_000..380_000).contains(&here), "{here}");
    drop(partial);
    let taken = crate::service::local::usage::measure(&dir.path().join("cache/partials"));
    assert!(taken.expect("it works") < 500_000);

    let partial = open(&dir).open_partial(&sample.digest, sample.size()).expect("it opens");
    assert_eq!(sample.assert_right(&partial), 0, "nothing is believed before it is looked at");
    assert_eq!(partial.unchecked(&(0..10)), one(0..10));
    partial.check(&(5_000_000..5_000_001));
    assert_eq!(sample.assert_right(&partial), GROUP_LEN);
    partial.check(&(0..sample.size()));
    assert_eq!(sample.assert_right(&partial), here);
    assert!(partial.unchecked(&(0..sample.size())).is_empty());
    assert_eq!(partial.gaps(&(5_000_000..5_300_000)), []);
    assert_eq!(partial.gaps(&(0..16_390)), one(16_384..16_390));
    // And it proves what it has.
    let tree = partial.tree();
    let groups = tree.groups_of(&(5_100_000..5_200_000));
    let mut walk = RangeWalk::new(&sample.digest, tree, groups.clone());
    let piece = partial.prove(&mut walk, groups.end).expect("it is here");
    let mut check = PieceCheck::new(&sample.digest, tree, groups);
    check.take(&piece.nodes, &piece.data, |_, _| {}).expect("it is right");
}

#[test]
fn no_damage_of_the_files_reaches_a_reader() {
    let dir = tempfile::tempdir().expect("a folder");
    let sample = sample(1_500_000);
    let store = open(&dir);
    let partial = store.open_partial(&sample.digest, sample.size()).expect("it opens");
    sample.bring(&partial, 100_000..900_000);
    let all = sample.assert_right(&partial);
    drop(partial);
    let files = files(&dir);
    let whole: Vec<_> = files.iter().map(|file| fs::read(file).expect("it reads")).collect();
    let mut random = blake3::Hasher::new().finalize_xof();
    let mut number = |below: u64| {
        let mut bytes = [0; 8];
        random.fill(&mut bytes);
        u64::from_le_bytes(bytes) % below
    };
    let mut lost = 0;
    for round in 0..400 {
        for (file, bytes) in files.iter().zip(&whole) {
            fs::write(file, bytes).expect("it writes");
        }
        for _ in 0..=number(3) {
            let file = &files[number(2) as usize];
            let file = fs::File::options().write(true).open(file).expect("it opens");
            let len = file.metadata().expect("there").len();
            match number(3) {
                0 => file.set_len(number(len + 1)).expect("it is ours"),
                1 => file.write_all_at(&[0; 5000], number(len.max(1))).expect("it is ours"),
                _ => file.write_all_at(&[number(256) as u8], number(len.max(1))).expect("ours"),
            }
        }
        let partial = store.open_partial(&sample.digest, sample.size()).expect("it opens");
        partial.check(&(0..sample.size()));
        let here = sample.assert_right(&partial);
        assert!(here <= all);
        lost += u64::from(here < all);
        // What was lost can be had again, and then all of it is right.
        if round % 40 == 0 {
            sample.bring(&partial, 0..sample.size());
            assert_eq!(sample.assert_right(&partial), sample.size());
        }
    }
    assert!(lost > 200, "the damage is felt: {lost}");
}

#[test]
fn a_partial_is_used_by_one_at_a_time_and_the_next_has_its_own() {
    let dir = tempfile::tempdir().expect("a folder");
    let sample = sample(200_000);
    let (one, two) = (open(&dir), open(&dir));
    let first = one.open_partial(&sample.digest, sample.size()).expect("it opens");
    let second = two.open_partial(&sample.digest, sample.size()).expect("it opens");
    assert_eq!(files(&dir).len(), 4);
    sample.bring(&second, 0..200_000);
    drop(first);
    drop(second);
    let again = one.open_partial(&sample.digest, sample.size()).expect("it opens");
    again.check(&(0..200_000));
    assert_eq!(sample.assert_right(&again), 0, "it is the first");
    // One that is said to be of another size begins anew.
    drop(again);
    let other = one.open_partial(&sample.digest, 100_000).expect("it opens");
    assert!(other.unchecked(&(0..100_000)).is_empty());
}

#[tokio::test]
async fn a_complete_one_becomes_a_blob_with_its_tree() {
    let dir = tempfile::tempdir().expect("a folder");
    let sample = sample(3_000_000);
    let store = open(&dir);
    let blobs = LocalBlobs::new(store.clone());
    for round in 0..2 {
        let partial = store.open_partial(&sample.digest, sample.size()).expect("it opens");
        sample.bring(&partial, 0..2_000_000);
        assert!(!partial.is_complete());
        sample.bring(&partial, 1_900_000..3_000_000);
        assert!(partial.is_complete());
        partial.adopt(None).expect("it works");
        assert!(blobs.has(&sample.digest).await.expect("it works"));
        assert_eq!(files(&dir), [] as [PathBuf; 0], "{round}");
        assert_eq!(sample.assert_right(&partial), sample.size());
    }
    blobs.sync().await.expect("it works");
    let hex = sample.digest.to_hex();
    let path = dir.path().join(format!("cache/blobs/{}/{hex}", &hex[..2]));
    assert!(fs::read(&path).expect("there") == sample.contents);
    let mode = fs::metadata(&path).expect("there").permissions();
    assert_eq!(std::os::unix::fs::PermissionsExt::mode(&mode) & 0o777, 0o444);
    let outboard = fs::read(path.with_extension("outboard")).expect("there");
    assert!(outboard == sample.outboard.as_bytes());
}

#[test]
fn a_full_cache_takes_no_more_and_what_is_discarded_is_gone() {
    let dir = tempfile::tempdir().expect("a folder");
    let sample = sample(3_000_000);
    let path = dir.path().join("cache");
    let store = LocalStore::open_cache(&path, Some(1 << 20)).expect("it opens");
    let partial = store.open_partial(&sample.digest, sample.size()).expect("it opens");
    let used = || store.bound().expect("a cache").used().expect("it works");
    let before = used();
    let mut at = 0;
    while partial.write(at, &sample.contents[at as usize..][..100_000], &[]).is_ok() {
        at += 100_000;
    }
    assert!((300_000..1 << 20).contains(&at), "{at}");
    assert!(used() <= 1 << 20);
    assert_eq!(partial.gaps(&(0..3_000_000)), one(at..3_000_000), "what was refused is not here");
    partial.discard();
    assert_eq!(files(&dir), [] as [PathBuf; 0]);
    assert_eq!(partial.gaps(&(0..10)), one(0..10));
    assert!(used() <= before + 100_000, "{} {before}", used());
}
