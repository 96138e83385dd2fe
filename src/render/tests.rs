//! Archives and listings of trees in memory, and of stores that lack something.

use std::{ops::Range, sync::Arc, time::Duration};

use bytes::Bytes;
use futures::{StreamExt as _, TryStreamExt as _};

use super::*;
use crate::{
    castore::{ChunkList, Directory, Name, Node, SizeRule},
    nix::nar::{ListingWriter, NarEvent, NarLimits, NarReader},
    service::{
        Result as ServiceResult,
        blob::{
            BlobService, BlobStream, BlobWriter, LocalBlob, Put, SMALL_BLOB_LEN_MAX,
            backend::MemoryBlobs,
        },
        directory::backend::MemoryDirectories,
    },
};

struct Tree {
    nars: RenderNar,
    root: Node,
}

fn noise(seed: u64, len: usize) -> Bytes {
    let mut bytes = vec![0; len];
    blake3::Hasher::new().update(&seed.to_le_bytes()).finalize_xof().fill(&mut bytes);
    bytes.into()
}

fn memory() -> RenderNar {
    RenderNar {
        blobs: Arc::new(MemoryBlobs::new()),
        directories: Arc::new(MemoryDirectories::new()),
    }
}

async fn file(nars: &RenderNar, contents: Bytes) -> Node {
    let size = contents.len() as u64;
    let mut writer = nars.blobs.writer().await.expect("memory");
    writer.write(contents).await.expect("memory");
    let (digest, _) = writer.finish().await.expect("memory");
    Node::File { digest, size, executable: size % 2 == 1 }
}

async fn directory(nars: &RenderNar, entries: Vec<(String, Node)>) -> Node {
    let mut builder = Directory::builder();
    for (name, node) in entries {
        builder.add(Name::try_from(Bytes::from(name)).expect("legal"), node);
    }
    let directory = builder.build().expect("legal");
    let node = directory.node(SizeRule::Documented);
    nars.directories.put(directory.into()).await.expect("memory");
    node
}

/// Files around the lengths where something changes, many small ones, a link, and some depth.
async fn sample() -> Tree {
    let nars = memory();
    let mut entries = Vec::new();
    for len in [0, 1, 7, 8, 9, 65_535, 65_536, 65_537, 262_143, 262_144, 262_145, 1_500_001] {
        entries.push((format!("file-{len}"), file(&nars, noise(len, len as usize)).await));
    }
    let mut many = Vec::new();
    for number in 0..3000 {
        many.push((format!("{number}"), file(&nars, noise(number, number as usize % 300)).await));
    }
    let mut deep = directory(&nars, many).await;
    for level in 0..200 {
        deep = directory(&nars, vec![(format!("{level}"), deep)]).await;
    }
    entries.push(("deep".to_owned(), deep));
    let target = Bytes::from_static(b"\xff/x").as_ref().try_into().expect("legal");
    entries.push(("link".to_owned(), Node::Symlink { target }));
    let root = directory(&nars, entries).await;
    Tree { nars, root }
}

async fn whole(nars: &RenderNar, root: &Node) -> Result<Vec<u8>, RenderError> {
    write_nar(&nars.blobs, &nars.directories, root, Vec::new()).await
}

async fn part(tree: &Tree, range: Range<u64>) -> Vec<u8> {
    let stream = tree.nars.stream(&tree.root, range);
    let pieces: Vec<Bytes> = stream.try_collect().await.expect("all is there");
    pieces.concat()
}

#[tokio::test]
async fn every_range_is_that_of_the_whole() {
    let tree = sample().await;
    let nar = whole(&tree.nars, &tree.root).await.expect("all is there");
    let len = nar.len() as u64;
    let mut state = 7u64;
    let mut random = || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        (state >> 20) % (len + 10)
    };
    let mut ranges = vec![(0, len), (0, 1), (len - 1, len), (len, u64::MAX), (5, 5), (9, 3)];
    ranges.extend((0..200).map(|_| (random(), random())));
    for (start, end) in ranges {
        let expected = nar.get(start as usize..end.min(len) as usize).unwrap_or_default();
        assert!(part(&tree, start..end).await == expected, "{start}..{end} of {len}");
    }
}

/// Compares with what a reader finds in the archive: an independent way to the same.
#[tokio::test]
async fn the_listing_tells_where_the_files_are() {
    let tree = sample().await;
    let nar = whole(&tree.nars, &tree.root).await.expect("all is there");
    let mut listing = ListingWriter::new(Vec::new()).expect("memory");
    let limits = NarLimits { nesting_max: 1000, ..NarLimits::default() };
    let mut reader = NarReader::with_limits(&nar[..], limits);
    while let Some(event) = reader.next_event().expect("legal") {
        match event {
            NarEvent::Directory => listing.begin_directory().expect("in order"),
            NarEvent::EndDirectory => listing.end_directory().expect("in order"),
            NarEvent::Entry(name) => listing.entry(name.as_bytes()).expect("in order"),
            NarEvent::Symlink(target) => listing.symlink(target.as_bytes()).expect("in order"),
            NarEvent::File { executable, len } => {
                let offset = listing.file(executable, len).expect("in order") as usize;
                let mut contents = Vec::new();
                while let Some(piece) = reader.contents().expect("legal") {
                    contents.extend_from_slice(piece);
                }
                assert!(nar[offset..offset + len as usize] == contents);
            }
        }
    }
    let pieces = render_listing(tree.nars.directories.clone(), tree.root.clone());
    let pieces: Vec<Bytes> = pieces.try_collect().await.expect("all is there");
    assert!(pieces.len() > 2, "{} pieces", pieces.len());
    assert!(pieces.concat() == listing.finish().expect("complete"));
}

#[tokio::test]
async fn what_is_missing_or_of_another_length_ends_the_archive() {
    let nars = memory();
    for (len, said, is_missing) in [
        (10, 11, false),
        (11, 10, false),
        (70_000, 70_001, false),
        (70_001, 70_000, false),
        (70_000, 9, false),
        (9, 70_000, false),
        (10, 10, true),
        (70_000, 70_000, true),
    ] {
        let digest = match is_missing {
            true => Digest::of(b"never stored"),
            false => nars.blobs.put(noise(1, len)).await.expect("memory").digest,
        };
        let before = file(&nars, noise(2, 300_000)).await;
        let wrong = Node::File { digest, size: said, executable: false };
        let entries = vec![("a".to_owned(), before), ("b".to_owned(), wrong)];
        let root = directory(&nars, entries).await;
        let error = whole(&nars, &root).await.expect_err("wrong");
        assert_eq!(matches!(error, RenderError::Missing(_)), is_missing, "{len} {said}: {error}");
        // What came before has come.
        let mut stream = nars.stream(&root, 0..u64::MAX);
        let mut came = 0;
        while let Some(Ok(piece)) = stream.next().await {
            came += piece.len();
        }
        assert!((300_000..301_000).contains(&came) || came > 369_000, "{len} {said}: {came}");
        assert!(stream.next().await.is_none(), "after an error nothing comes");
    }
    let root = Node::Directory { digest: Digest::of(b"never stored"), size: 1 };
    assert!(matches!(whole(&nars, &root).await, Err(RenderError::Missing(_))));
}

/// Never answers, and tells how many ask.
#[derive(Debug, Default)]
struct Silent(Arc<()>);

#[async_trait::async_trait]
impl BlobService for Silent {
    async fn has(&self, _: &Digest) -> ServiceResult<bool> {
        std::future::pending().await
    }
    async fn read(&self, _: &Digest, _: Range<u64>) -> ServiceResult<Option<BlobStream>> {
        let _asking = self.0.clone();
        std::future::pending().await
    }
    async fn chunks(&self, _: &Digest) -> ServiceResult<Option<ChunkList>> {
        std::future::pending().await
    }
    fn open_local(&self, _: &Digest) -> ServiceResult<Option<LocalBlob>> {
        Ok(None)
    }
    async fn put(&self, _: Bytes) -> ServiceResult<Put> {
        std::future::pending().await
    }
    async fn writer(&self) -> ServiceResult<Box<dyn BlobWriter>> {
        std::future::pending().await
    }
    async fn sync(&self) -> ServiceResult<()> {
        Ok(())
    }
}

#[tokio::test]
async fn a_bounded_number_is_read_ahead_and_none_for_whoever_has_gone() {
    let silent = Arc::new(Silent::default());
    let directories = MemoryDirectories::new();
    let mut nars = memory();
    nars.directories = Arc::new(directories);
    let size = SMALL_BLOB_LEN_MAX as u64;
    let large = |number: u64| {
        (
            number.to_string(),
            Node::File { digest: Digest::of(&[number as u8]), size, executable: false },
        )
    };
    let root = directory(&nars, (0..100).map(large).collect()).await;
    nars.blobs = silent.clone();
    let mut stream = nars.stream(&root, 1000..u64::MAX);
    assert_eq!(Arc::strong_count(&silent.0), 1, "nothing is read before it is wanted");
    let waited = tokio::time::timeout(Duration::from_millis(200), stream.next()).await;
    assert!(waited.is_err());
    let readers = Arc::strong_count(&silent.0) - 1;
    assert!((1..=4).contains(&readers), "{readers} blobs are read at once");
    drop(stream);
    while Arc::strong_count(&silent.0) > 1 {
        tokio::task::yield_now().await;
    }
}
