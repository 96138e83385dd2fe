//! Archives that are stored, and those that are refused, in stores that are in memory.

use std::{
    io,
    sync::atomic::{AtomicUsize, Ordering},
};

use proptest::prelude::*;
use tokio::runtime::Runtime;

use super::*;
use crate::{
    castore::{DIRECTORY_LEN_MAX, Digest},
    nix::nar::{NarProblem, NarWriter},
    render::write_nar,
    service::shelf::Shelf,
};

/// A tree to be written as an archive.
#[derive(Debug, Clone)]
enum Tree {
    File { executable: bool, contents: Vec<u8> },
    Symlink(Vec<u8>),
    Directory(std::collections::BTreeMap<Vec<u8>, Tree>),
}

fn file(contents: impl Into<Vec<u8>>) -> Tree {
    Tree::File { executable: false, contents: contents.into() }
}

fn directory<const N: usize>(entries: [(&str, Tree); N]) -> Tree {
    Tree::Directory(entries.map(|(name, tree)| (name.into(), tree)).into())
}

fn write(tree: &Tree, nar: &mut NarWriter<Vec<u8>>) {
    match tree {
        Tree::File { executable, contents } => {
            nar.begin_file(*executable, contents.len() as u64).expect("in order");
            nar.contents(contents).expect("as announced");
            nar.end_file().expect("complete");
        }
        Tree::Symlink(target) => nar.symlink(target).expect("in order"),
        Tree::Directory(entries) => {
            nar.begin_directory().expect("in order");
            for (name, tree) in entries {
                nar.entry(name).expect("sorted");
                write(tree, nar);
            }
            nar.end_directory().expect("in order");
        }
    }
}

fn archive(tree: &Tree) -> Vec<u8> {
    let mut nar = NarWriter::new(Vec::new()).expect("memory");
    write(tree, &mut nar);
    nar.finish().expect("complete")
}

struct Fixture {
    shelf: Arc<Shelf>,
    runtime: Runtime,
}

impl Fixture {
    fn new() -> Self {
        Fixture { shelf: Shelf::new(), runtime: Runtime::new().expect("a runtime") }
    }

    fn ingest(
        &self,
        input: impl Read,
        expected: Option<NarHash>,
    ) -> Result<IngestedNar, IngestNarError> {
        let stores = self.shelf.stores();
        let runtime = self.runtime.handle();
        ingest_nar(input, expected, &stores.blobs, &*stores.directories, runtime)
    }

    /// The archive of what was stored.
    fn render(&self, node: &Node) -> Vec<u8> {
        let stores = self.shelf.stores();
        let nar = write_nar(&stores.blobs, &stores.directories, node, Vec::new());
        self.runtime.block_on(nar).expect("all of it is there")
    }

    fn has_directories(&self) -> bool {
        !self.shelf.directories.lock().is_empty()
    }
}

fn trees() -> impl Strategy<Value = Tree> {
    let leaf = prop_oneof![
        (any::<bool>(), prop::collection::vec(any::<u8>(), 0..40))
            .prop_map(|(executable, contents)| Tree::File { executable, contents }),
        prop::collection::vec(1..=255u8, 1..20).prop_map(Tree::Symlink),
    ];
    let name = prop::collection::vec(any::<u8>(), 1..6)
        .prop_filter("legal", |name| crate::castore::check_name(name).is_ok());
    leaf.prop_recursive(5, 60, 8, move |inner| {
        prop::collection::btree_map(name.clone(), inner, 0..8).prop_map(Tree::Directory)
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn every_tree_comes_back_as_the_same_archive(tree in trees()) {
        let (fixture, bytes) = (Fixture::new(), archive(&tree));
        let ingested = fixture.ingest(&bytes[..], None).expect("legal");
        prop_assert_eq!(ingested.nar.size, bytes.len() as u64);
        prop_assert!(fixture.render(&ingested.node) == bytes);
        // It is known by now, and nothing of it is new.
        let again = fixture.ingest(&bytes[..], Some(ingested.nar)).expect("the same");
        prop_assert_eq!((&again.node, again.nar), (&ingested.node, ingested.nar));
        prop_assert_eq!(again.counts.files, ingested.counts.files);
    }
}

/// Files around the sizes where something changes, and more of them than go into one batch.
fn large_tree() -> Tree {
    let noise = |seed: u64, len: usize| {
        let mut bytes = vec![0; len];
        blake3::Hasher::new().update(&seed.to_le_bytes()).finalize_xof().fill(&mut bytes);
        file(bytes)
    };
    let mut entries = std::collections::BTreeMap::new();
    let sizes = [SMALL_LEN_MAX, PIECE_LEN * 2, BATCH_BYTES_MAX, BATCH_BYTES_MAX * 5];
    for size in sizes.iter().flat_map(|size| [size - 1, *size, size + 1]) {
        entries.insert(size.to_string().into_bytes(), noise(size as u64, size));
    }
    for number in 0..3 * BATCH_STEPS_MAX {
        let inner =
            directory([("a", noise(number as u64, 100)), ("b", Tree::Symlink(b"a".into()))]);
        entries.insert(format!("small-{number:05}").into_bytes(), inner);
    }
    Tree::Directory(entries)
}

#[test]
fn large_files_and_many_small_ones_are_stored() {
    let (fixture, bytes) = (Fixture::new(), archive(&large_tree()));
    let ingested = fixture.ingest(&bytes[..], None).expect("legal");
    assert!(fixture.render(&ingested.node) == bytes);
    assert_eq!(ingested.counts.files, 12 + 3 * BATCH_STEPS_MAX as u64);
}

#[test]
fn an_archive_that_is_cut_off_anywhere_leaves_no_directory() {
    let tree = directory([
        ("a", file("contents")),
        ("b", directory([("c", Tree::Symlink(b"d".into())), ("e", file(""))])),
    ]);
    let bytes = archive(&tree);
    let fixture = Fixture::new();
    for len in 0..bytes.len() {
        let error = fixture.ingest(&bytes[..len], None).expect_err("cut off");
        let IngestNarError::Archive(error) = error else { panic!("{error}") };
        assert!(matches!(error.problem, NarProblem::CutOff), "{len}: {error}");
        assert!(!fixture.has_directories(), "{len}");
    }
    fixture.ingest(&bytes[..], None).expect("whole");
    assert!(fixture.has_directories());
}

#[test]
fn a_large_file_that_is_cut_off_is_not_stored() {
    let bytes = archive(&file(vec![7; 5 * PIECE_LEN]));
    let fixture = Fixture::new();
    for len in [200, PIECE_LEN, 3 * PIECE_LEN + 5, bytes.len() - 1] {
        fixture.ingest(&bytes[..len], None).expect_err("cut off");
        assert_eq!(fixture.shelf.blobs.lock().len(), 0, "{len}");
    }
}

#[test]
fn another_archive_than_expected_leaves_no_directory() {
    let bytes = archive(&directory([("a", file("contents"))]));
    let nar = Fixture::new().ingest(&bytes[..], None).expect("legal").nar;
    let fixture = Fixture::new();
    let mut sha256 = nar.sha256;
    sha256[31] ^= 1;
    let wrong = NarHash { sha256, ..nar };
    let error = fixture.ingest(&bytes[..], Some(wrong)).expect_err("another hash");
    assert!(matches!(error, IngestNarError::Differs { found, .. } if found == nar), "{error}");
    let longer = NarHash { size: nar.size + 8, ..nar };
    let error = fixture.ingest(&bytes[..], Some(longer)).expect_err("another size");
    assert!(matches!(error, IngestNarError::Differs { .. }), "{error}");
    // A shorter one is not even read to its end.
    let shorter = NarHash { size: nar.size - 8, ..nar };
    let error = fixture.ingest(&bytes[..], Some(shorter)).expect_err("another size");
    assert!(matches!(error, IngestNarError::Archive(_)), "{error}");
    assert!(!fixture.has_directories());
    fixture.ingest(&bytes[..], Some(nar)).expect("as announced");
}

/// Yields a beginning, then entries of one directory without end, and counts what was read of it.
struct EndlessDirectory {
    ready: io::Cursor<Vec<u8>>,
    entries: u64,
    read: Arc<AtomicUsize>,
}

impl EndlessDirectory {
    /// One more entry, as a writer writes it.
    fn refill(&mut self) {
        let mut nar = NarWriter::new(Vec::new()).expect("memory");
        nar.begin_directory().expect("in order");
        let begin = match self.entries {
            0 => 0,
            _ => 80,
        };
        nar.entry(format!("{:020}", self.entries).as_bytes()).expect("legal");
        nar.symlink(&[b't'; 4000]).expect("in order");
        nar.end_directory().expect("in order");
        let mut bytes = nar.finish().expect("complete");
        // Magic, the opening, the type and its name take 80 bytes; the closing takes 16.
        bytes.truncate(bytes.len() - 16);
        self.ready = io::Cursor::new(bytes.split_off(begin));
        self.entries += 1;
    }
}

impl Read for EndlessDirectory {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let mut len = self.ready.read(buffer)?;
        if len == 0 {
            self.refill();
            len = self.ready.read(buffer)?;
        }
        self.read.fetch_add(len, Ordering::Relaxed);
        Ok(len)
    }
}

#[test]
fn a_directory_without_end_is_refused_before_it_fills_the_memory() {
    let read = Arc::new(AtomicUsize::new(0));
    let endless = EndlessDirectory { ready: io::Cursor::default(), entries: 0, read: read.clone() };
    let error = Fixture::new().ingest(endless, None).expect_err("too long");
    assert!(matches!(error, IngestNarError::Directory { .. }), "{error}");
    let read = read.load(Ordering::Relaxed);
    assert!(read < DIRECTORY_LEN_MAX * 5 / 4, "{read}");
}

#[test]
fn what_the_store_does_not_take_ends_it() {
    for tree in [large_tree(), file(vec![1; 20 * PIECE_LEN]), file("short")] {
        let (fixture, bytes) = (Fixture::new(), archive(&tree));
        fixture.shelf.break_(true);
        let error = fixture.ingest(&bytes[..], None).expect_err("broken");
        assert!(matches!(error, IngestNarError::Store(_)), "{error}");
        fixture.shelf.break_(false);
        assert!(!fixture.has_directories());
        let node = fixture.ingest(&bytes[..], None).expect("healed").node;
        assert!(fixture.render(&node) == bytes);
    }
}

#[test]
fn a_digest_is_that_of_the_contents() {
    let fixture = Fixture::new();
    let node = fixture.ingest(&archive(&file("abc"))[..], None).expect("legal").node;
    let expected = Node::File { digest: Digest::of(b"abc"), size: 3, executable: false };
    assert_eq!(node, expected);
}
