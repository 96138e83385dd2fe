//! Ranges of a long blob, and their proofs, that change on their way.

use std::{
    ops::Range,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering::SeqCst},
    },
    time::Instant,
};

use async_trait::async_trait;
use bytes::Bytes;
use futures::{StreamExt as _, TryStreamExt as _, future::try_join_all, stream};
use lazystore::{
    castore::{ChunkList, Digest},
    service::{
        Error, Result,
        blob::{
            BlobService, BlobStream, BlobWriter, LocalBlob, Proven, ProvenPiece, Put,
            backend::LocalBlobs,
            layer::{LazyBlobs, LazyOptions, VerifiedBlobs},
        },
        local::LocalStore,
    },
};
use tempfile::TempDir;

use crate::support::{SOON, noise};

/// How many bits are flipped, one in an answer; `LAZYSTORE_FLIPS` says otherwise.
const FLIPS: u64 = 10_000;
/// How many readers share them, each with a cache of its own.
const READERS: u64 = 4;
/// The length of the blob in bytes: its last group is not whole.
const LEN: u64 = (4 << 20) + 4_321;
/// The longest range that is read, in bytes: more than one piece of an answer.
const RANGE_LEN_MAX: u64 = 300_000;
/// After so many reads a reader begins with an empty cache.
const CACHE_READS: u64 = 200;

/// The `number`th of many numbers without a pattern.
fn random(number: u64) -> u64 {
    let hash = blake3::hash(&number.to_le_bytes());
    let (first, _) = hash.as_bytes().split_first_chunk().expect("32 bytes");
    u64::from_le_bytes(*first)
}

/// Answers for ranges alone, and flips a bit in seven of eight answers: of the bytes, the nodes, or the length.
#[derive(Debug)]
struct Flipping {
    truth: LocalBlobs,
    answers: AtomicU64,
    flips: AtomicU64,
    is_healed: AtomicBool,
}

impl Flipping {
    /// Flips the `bit`th bit of what is on the line.
    fn flip(size: &mut u64, pieces: &mut [ProvenPiece], bit: u64) {
        if bit < 64 {
            *size ^= 1 << bit;
            return;
        }
        let (mut byte, mask) = ((bit - 64) / 8, 1 << (bit % 8));
        for part in pieces.iter_mut().flat_map(|piece| [&mut piece.nodes, &mut piece.data]) {
            if byte < part.len() as u64 {
                let mut flipped = part.to_vec();
                flipped[byte as usize] ^= mask;
                *part = flipped.into();
                return;
            }
            byte -= part.len() as u64;
        }
        panic!("there is no such bit");
    }
}

#[async_trait]
impl BlobService for Flipping {
    async fn has(&self, digest: &Digest) -> Result<bool> {
        self.truth.has(digest).await
    }

    async fn read(&self, _: &Digest, _: Range<u64>) -> Result<Option<BlobStream>> {
        Err(Error::unavailable("far", "it has ranges only"))
    }

    async fn read_proven(&self, digest: &Digest, range: Range<u64>) -> Result<Option<Proven>> {
        let Some(Proven::Range { mut size, pieces }) =
            self.truth.read_proven(digest, range).await?
        else {
            return Ok(None);
        };
        let answer = self.answers.fetch_add(1, SeqCst);
        if answer.is_multiple_of(8) || self.is_healed.load(SeqCst) {
            return Ok(Some(Proven::Range { size, pieces }));
        }
        self.flips.fetch_add(1, SeqCst);
        let mut pieces: Vec<ProvenPiece> = pieces.try_collect().await?;
        let bytes: usize = pieces.iter().map(|piece| piece.nodes.len() + piece.data.len()).sum();
        // Most bits are those of the contents; one in four flips is among the first, of the length and the proof.
        let bits = if answer % 4 == 1 { 1024 } else { 64 + bytes as u64 * 8 };
        Flipping::flip(&mut size, &mut pieces, random(answer) % bits);
        let pieces = stream::iter(pieces.into_iter().map(Ok)).boxed();
        Ok(Some(Proven::Range { size, pieces }))
    }

    async fn chunks(&self, digest: &Digest) -> Result<Option<ChunkList>> {
        self.truth.chunks(digest).await
    }

    fn open_local(&self, _: &Digest) -> Result<Option<LocalBlob>> {
        Ok(None)
    }

    async fn put(&self, contents: Bytes) -> Result<Put> {
        self.truth.put(contents).await
    }

    async fn writer(&self) -> Result<Box<dyn BlobWriter>> {
        self.truth.writer().await
    }

    async fn sync(&self) -> Result<()> {
        self.truth.sync().await
    }
}

/// Reads before the far store, with a cache or without.
struct Reader {
    blobs: LazyBlobs,
    contents: Arc<Vec<u8>>,
    digest: Digest,
    _dir: Option<TempDir>,
}

impl Reader {
    fn new(far: &Arc<Flipping>, contents: &Arc<Vec<u8>>, keeps: bool) -> Self {
        let dir = keeps.then(|| tempfile::tempdir().expect("a temporary directory"));
        let store = dir.as_ref().map(|dir| LocalStore::open(dir.path()).expect("it opens"));
        let near = store.clone().map(|store| Arc::new(LocalBlobs::new(store)) as _);
        let far = Arc::new(VerifiedBlobs::new("far", far.clone()));
        let blobs = LazyBlobs::new(near, store, far, LazyOptions::default());
        Reader { blobs, contents: contents.clone(), digest: Digest::of(contents), _dir: dir }
    }

    /// Reads a range, and fails if any byte of it is wrong. Tells whether all of it came; what did not was told to be
    /// corrupt.
    async fn read(&self, range: Range<u64>) -> bool {
        let right = |at: u64, got: &[u8]| {
            let at = at as usize;
            assert!(self.contents.get(at..at + got.len()) == Some(got), "a wrong byte at {at}");
        };
        let local = self.blobs.open_local_range(&self.digest, LEN, &range).expect("it works");
        if let Some(local) = local {
            let mut bytes = vec![0; (range.end - range.start) as usize];
            local.read_exact_at(&mut bytes, range.start).expect("it is here");
            right(range.start, &bytes);
            return true;
        }
        let is_corrupt = |error: Error| assert!(matches!(error, Error::Corrupt { .. }), "{error}");
        let mut at = range.start;
        match self.blobs.read_sized(&self.digest, LEN, range.clone()).await {
            Err(error) => is_corrupt(error),
            Ok(pieces) => {
                let mut pieces = pieces.expect("it is there");
                while let Some(piece) = pieces.next().await {
                    match piece {
                        Ok(piece) => {
                            right(at, &piece);
                            at += piece.len() as u64;
                        }
                        Err(error) => {
                            is_corrupt(error);
                            return false;
                        }
                    }
                }
                assert_eq!(at, range.end, "the end is missing");
            }
        }
        at == range.end
    }
}

#[test]
fn no_bit_of_a_range_or_its_proof_that_changed_on_its_way_reaches_a_reader() {
    let flips = std::env::var("LAZYSTORE_FLIPS").map_or(FLIPS, |n| n.parse().expect("a number"));
    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    let contents = Arc::new(noise(1, LEN as usize));
    let dir = tempfile::tempdir().expect("a temporary directory");
    let truth = LocalBlobs::new(LocalStore::open(dir.path()).expect("it opens"));
    runtime.block_on(async {
        let mut writer = truth.writer().await.expect("it stores");
        writer.write(contents.to_vec().into()).await.expect("it stores");
        writer.finish().await.expect("it stores");
    });
    let far = Arc::new(Flipping {
        truth,
        answers: AtomicU64::new(0),
        flips: AtomicU64::new(0),
        is_healed: AtomicBool::new(false),
    });
    let readers: Vec<_> = (0..READERS)
        .map(|reader| {
            let (far, contents) = (far.clone(), contents.clone());
            runtime.spawn(async move {
                let (mut refused, mut number) = (0, reader << 32);
                let mut last = Reader::new(&far, &contents, true);
                while far.flips.load(SeqCst) < flips {
                    // Every other one does without a cache.
                    last = Reader::new(&far, &contents, (number / CACHE_READS).is_multiple_of(2));
                    for _ in 0..CACHE_READS {
                        number += 1;
                        let start = random(number) % LEN;
                        let len = 1 + random(!number) % RANGE_LEN_MAX;
                        let all = last.read(start..LEN.min(start + len)).await;
                        refused += u64::from(!all);
                    }
                }
                (refused, last)
            })
        })
        .collect();
    let readers = match runtime.block_on(try_join_all(readers)) {
        Ok(readers) => readers,
        Err(error) => {
            // The others need not come to an end.
            runtime.shutdown_background();
            panic!("something wrong was read: {error}");
        }
    };
    let (flipped, refused) = (far.flips.load(SeqCst), readers.iter().map(|(n, _)| n).sum::<u64>());
    eprintln!("{flipped} bits were flipped, {refused} reads refused");
    assert!(flipped >= flips && refused > flips / 2, "{flipped} flipped, {refused} refused");
    far.is_healed.store(true, SeqCst);
    for (_, reader) in readers {
        // Answers that were on their way meanwhile may still come, and are refused.
        let began = Instant::now();
        while !runtime.block_on(reader.read(0..LEN)) {
            assert!(began.elapsed() < SOON, "something wrong was remembered");
        }
    }
}
