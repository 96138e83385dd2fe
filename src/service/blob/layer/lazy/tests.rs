//! What is fetched, when, and for whom: over a far store that counts, stalls, breaks and lies.

use std::{
    collections::HashMap,
    sync::atomic::{AtomicU64, AtomicUsize, Ordering::SeqCst},
    time::Duration,
};

use futures::{TryStreamExt as _, future::join_all};
use parking_lot::Mutex;
use tempfile::TempDir;

use super::*;
use crate::{
    castore::Chunk,
    service::{
        Error,
        blob::{
            BLOB_PIECE_LEN_MAX, ProvenPiece,
            backend::{LocalBlobs, MemoryBlobs},
            layer::VerifiedBlobs,
        },
    },
};

const KIB: u64 = 1 << 10;
const MIB: u64 = 1 << 20;

/// How a [`Far`] misbehaves.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Mood {
    Well,
    /// Answers, but nothing comes.
    Stalled,
    /// Each call fails.
    Broken,
    /// The second piece of each answer is an error.
    Breaking,
    /// The second piece of each range is wrong.
    Lying,
}

/// The far end.
#[derive(Debug)]
struct Far {
    memory: MemoryBlobs,
    proves: bool,
    lists: Mutex<HashMap<Digest, ChunkList>>,
    mood: Mutex<Mood>,
    requests: AtomicU64,
    bytes: Arc<AtomicU64>,
    /// How many streams are read at the moment.
    open: Arc<AtomicUsize>,
}

/// Counts a stream for as long as it is there.
struct Open(Arc<AtomicUsize>);

impl Drop for Open {
    fn drop(&mut self) {
        self.0.fetch_sub(1, SeqCst);
    }
}

impl Far {
    fn new(proves: bool) -> Arc<Self> {
        Arc::new(Far {
            memory: MemoryBlobs::new(),
            proves,
            lists: Mutex::default(),
            mood: Mutex::new(Mood::Well),
            requests: AtomicU64::new(0),
            bytes: Arc::default(),
            open: Arc::default(),
        })
    }

    async fn put(&self, contents: &Bytes) -> Digest {
        self.memory.put(contents.clone()).await.expect("works").digest
    }

    /// Stores a blob with a list of chunks, and its chunks.
    async fn put_chunked(&self, contents: &Bytes, len: usize) -> (Digest, Vec<Chunk>) {
        let mut chunks = Vec::new();
        for chunk in contents.chunks(len) {
            let digest = self.put(&Bytes::copy_from_slice(chunk)).await;
            chunks.push(Chunk { digest, size: chunk.len() as u64 });
        }
        let digest = self.put(contents).await;
        self.list(digest, chunks.clone());
        (digest, chunks)
    }

    fn list(&self, digest: Digest, chunks: Vec<Chunk>) {
        self.lists.lock().insert(digest, ChunkList::new(chunks).expect("legal"));
    }

    fn be(&self, mood: Mood) {
        *self.mood.lock() = mood;
    }

    fn request(&self) -> Result<Mood> {
        self.requests.fetch_add(1, SeqCst);
        let mood = *self.mood.lock();
        match mood {
            Mood::Broken => Err(Error::unavailable("far", "broken")),
            _ => Ok(mood),
        }
    }

    fn spent(&self) -> (u64, u64) {
        (self.requests.swap(0, SeqCst), self.bytes.swap(0, SeqCst))
    }

    fn open(&self) -> usize {
        self.open.load(SeqCst)
    }

    /// As it is told to be, with everything counted.
    fn treat<T: Send + 'static>(
        &self,
        mood: Mood,
        pieces: impl futures::Stream<Item = Result<T>> + Send + 'static,
        mut lie: impl FnMut(T) -> T + Send + 'static,
        len: impl Fn(&T) -> usize + Send + 'static,
    ) -> std::pin::Pin<Box<dyn futures::Stream<Item = Result<T>> + Send>> {
        self.open.fetch_add(1, SeqCst);
        let (open, bytes) = (Open(self.open.clone()), self.bytes.clone());
        let mut number = 0;
        let treated = pieces.then(move |piece| {
            let _ = &open;
            number += 1;
            let piece = match (mood, number) {
                (Mood::Breaking, 2) => Err(Error::unavailable("far", "it broke")),
                (Mood::Lying, 2) => piece.map(&mut lie),
                _ => piece,
            };
            bytes.fetch_add(piece.as_ref().map_or(0, &len) as u64, SeqCst);
            async move {
                if mood == Mood::Stalled {
                    std::future::pending::<()>().await;
                }
                // So that others get to run.
                tokio::task::yield_now().await;
                piece
            }
        });
        treated.boxed()
    }
}

fn flip(bytes: &Bytes) -> Bytes {
    let mut bytes = bytes.to_vec();
    if let Some(first) = bytes.first_mut() {
        *first ^= 1;
    }
    bytes.into()
}

#[async_trait]
impl BlobService for Far {
    async fn has(&self, digest: &Digest) -> Result<bool> {
        self.request()?;
        self.memory.has(digest).await
    }

    async fn read(&self, digest: &Digest, range: Range<u64>) -> Result<Option<BlobStream>> {
        let mood = self.request()?;
        let pieces = self.memory.read(digest, range).await?;
        Ok(pieces.map(|pieces| self.treat(mood, pieces, |piece| flip(&piece), Bytes::len)))
    }

    async fn read_proven(&self, digest: &Digest, range: Range<u64>) -> Result<Option<Proven>> {
        if !self.proves {
            return Ok(Some(Proven::Lacking));
        }
        let mood = self.request()?;
        let Some(Proven::Range { size, pieces }) = self.memory.read_proven(digest, range).await?
        else {
            return Ok(None);
        };
        let lie = |piece: ProvenPiece| ProvenPiece { data: flip(&piece.data), ..piece };
        let len = |piece: &ProvenPiece| piece.data.len() + piece.nodes.len();
        Ok(Some(Proven::Range { size, pieces: self.treat(mood, pieces, lie, len) }))
    }

    async fn chunks(&self, digest: &Digest) -> Result<Option<ChunkList>> {
        self.request()?;
        if !self.memory.has(digest).await? {
            return Ok(None);
        }
        Ok(Some(self.lists.lock().get(digest).cloned().unwrap_or_default()))
    }

    fn open_local(&self, _digest: &Digest) -> Result<Option<LocalBlob>> {
        Ok(None)
    }

    async fn put(&self, contents: Bytes) -> Result<Put> {
        self.memory.put(contents).await
    }

    async fn writer(&self) -> Result<Box<dyn BlobWriter>> {
        self.memory.writer().await
    }

    async fn sync(&self) -> Result<()> {
        Ok(())
    }
}

/// A cache in a folder before a far store.
struct Cache {
    store: Arc<LocalStore>,
    blobs: LazyBlobs,
}

fn cache_of(dir: &TempDir, far: &Arc<Far>, verify: Verify, size_max: u64) -> Cache {
    let store = LocalStore::open_cache(dir.path(), Some(size_max)).expect("opens");
    let near: Arc<dyn BlobService> = Arc::new(LocalBlobs::new(store.clone()));
    let far = Arc::new(VerifiedBlobs::new("far", far.clone()));
    let options = LazyOptions { verify, ..LazyOptions::default() };
    let blobs = LazyBlobs::new(Some(near), Some(store.clone()), far, options);
    Cache { store, blobs }
}

fn cache(dir: &TempDir, far: &Arc<Far>) -> Cache {
    cache_of(dir, far, Verify::Source, 1 << 30)
}

fn noise(seed: u64, len: u64) -> Bytes {
    let mut out = vec![0; len as usize];
    blake3::Hasher::new().update(&seed.to_le_bytes()).finalize_xof().fill(&mut out);
    out.into()
}

impl Cache {
    /// Reads as the mount does.
    async fn try_read(&self, digest: &Digest, size: u64, range: Range<u64>) -> Result<Vec<u8>> {
        let len = (range.end - range.start) as usize;
        if let Some(blob) = self.blobs.open_local_range(digest, size, &range)? {
            let mut bytes = vec![0; len];
            blob.read_exact_at(&mut bytes, range.start).expect("it is here");
            return Ok(bytes);
        }
        let pieces = self.blobs.read_sized(digest, size, range).await?;
        let pieces: Vec<Bytes> = pieces.expect("is there").try_collect().await?;
        assert!(pieces.iter().all(|piece| !piece.is_empty() && piece.len() <= BLOB_PIECE_LEN_MAX));
        Ok(pieces.concat())
    }

    async fn expect(&self, contents: &Bytes, range: Range<u64>) {
        let digest = Digest::of(contents);
        let got = self.try_read(&digest, contents.len() as u64, range.clone()).await;
        let expected = &contents[range.start as usize..range.end as usize];
        assert!(got.expect("it reads") == expected, "{range:?}");
    }

    /// Reads all of it in steps.
    async fn expect_all(&self, contents: &Bytes, step: u64) {
        let size = contents.len() as u64;
        let mut at = 0;
        while at < size {
            let end = size.min(at + step);
            self.expect(contents, at..end).await;
            at = end;
        }
    }
}

/// Waits until something is so.
async fn soon(what: &str, is_so: impl Fn() -> bool) {
    for _ in 0..1000 {
        if is_so() {
            return;
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    panic!("not so after five seconds: {what}");
}

#[tokio::test]
async fn a_range_costs_little_more_than_itself_and_nothing_the_second_time() {
    let (dir, far) = (tempfile::tempdir().expect("a folder"), Far::new(true));
    let contents = noise(1, 64 * MIB);
    far.put(&contents).await;
    let cache = cache(&dir, &far);
    let mut at = 30 * MIB + 5;
    while at < 31 * MIB + 5 {
        cache.expect(&contents, at..at + 128 * KIB).await;
        at += 128 * KIB;
    }
    soon("what is fetched ahead", || far.open() == 0).await;
    let (requests, bytes) = far.spent();
    assert!(requests <= 9 && bytes <= 2 * MIB, "{bytes} bytes in {requests} requests");
    cache.expect(&contents, 30 * MIB + 5..31 * MIB + 5).await;
    cache.expect(&contents, 30 * MIB + 500..30 * MIB + 501).await;
    // One of another part: a group, and its proof.
    assert_eq!(far.spent(), (0, 0));
    cache.expect(&contents, 5 * MIB + 5..5 * MIB + 6).await;
    let (requests, bytes) = far.spent();
    assert!(requests == 1 && bytes <= 17 * KIB, "{bytes} bytes in {requests} requests");
}

#[tokio::test]
async fn reading_in_order_moves_each_byte_once_and_leaves_a_blob() {
    let (dir, far) = (tempfile::tempdir().expect("a folder"), Far::new(true));
    let contents = noise(2, 40 * MIB + 12_345);
    let digest = far.put(&contents).await;
    let cache = cache(&dir, &far);
    cache.expect_all(&contents, 256 * KIB).await;
    let (requests, bytes) = far.spent();
    assert!(bytes <= contents.len() as u64 * 102 / 100, "{bytes}");
    // Near as the store is, little is fetched ahead at a time.
    assert!(requests <= 100, "{requests}");
    soon("it is adopted", || cache.blobs.open_local(&digest).expect("works").is_some()).await;
    far.be(Mood::Broken);
    cache.expect_all(&contents, 1 << 20).await;
    let whole = cache.blobs.read(&digest, 0..u64::MAX).await.expect("works").expect("is there");
    let whole: Vec<Bytes> = whole.try_collect().await.expect("reads");
    assert!(whole.concat() == contents);
    assert_eq!(far.spent(), (0, 0));
    // Its tree came with it.
    assert!(cache.store.blobs().open_outboard(&digest).expect("works").is_some());
    let partials = std::fs::read_dir(dir.path().join("partials")).expect("lists");
    assert_eq!(partials.count(), 0);
}

#[tokio::test]
async fn those_who_want_the_same_share_one_request() {
    let (dir, far) = (tempfile::tempdir().expect("a folder"), Far::new(true));
    let (long, short) = (noise(3, 3 * MIB), noise(4, 100 * KIB));
    far.put(&long).await;
    far.put(&short).await;
    let cache = cache(&dir, &far);
    join_all((0..8).map(|n| cache.expect(&long, MIB + n..MIB + 100 * KIB))).await;
    assert_eq!(far.spent().0, 1);
    join_all((0..8).map(|n| cache.expect(&short, n..100 * KIB))).await;
    assert_eq!(far.spent(), (1, 100 * KIB), "whole, in one request");
    cache.expect(&short, 5..6).await;
    assert_eq!(far.spent(), (0, 0));
}

#[tokio::test]
async fn a_request_goes_on_for_those_who_wait_and_ends_with_the_last() {
    let (dir, far) = (tempfile::tempdir().expect("a folder"), Far::new(true));
    let contents = noise(5, 3 * MIB);
    let digest = far.put(&contents).await;
    let cache = Arc::new(cache(&dir, &far));
    far.be(Mood::Stalled);
    let wait = |range: Range<u64>| {
        let cache = cache.clone();
        tokio::spawn(async move { cache.try_read(&digest, 3 * MIB, range).await })
    };
    let (one, two) = (wait(0..300 * KIB), wait(100 * KIB..200 * KIB));
    soon("a request", || far.open() == 1).await;
    tokio::time::sleep(Duration::from_millis(50)).await;
    one.abort();
    tokio::time::sleep(Duration::from_millis(50)).await;
    assert_eq!((far.open(), far.spent().0), (1, 1), "the other still waits for it");
    two.abort();
    soon("the end of the request", || far.open() == 0).await;
    // Nothing wrong is left of it.
    far.be(Mood::Well);
    cache.expect(&contents, 0..300 * KIB).await;
}

#[tokio::test]
async fn what_came_is_there_after_a_restart() {
    let (dir, far) = (tempfile::tempdir().expect("a folder"), Far::new(true));
    let contents = noise(6, 5 * MIB);
    let digest = far.put(&contents).await;
    let first = cache(&dir, &far);
    first.expect(&contents, MIB..2 * MIB).await;
    first.expect(&contents, 4 * MIB..4 * MIB + 10).await;
    soon("it is quiet", || far.open() == 0).await;
    drop(first);
    far.spent();
    let second = cache(&dir, &far);
    second.expect(&contents, MIB..2 * MIB).await;
    assert_eq!(far.spent(), (0, 0));
    second.expect_all(&contents, 512 * KIB).await;
    let (_, bytes) = far.spent();
    assert!(bytes < 4 * MIB + 20 * KIB, "{bytes}");
    soon("it is adopted", || second.blobs.open_local(&digest).expect("works").is_some()).await;
}

#[tokio::test]
async fn errors_and_lies_are_told_and_not_remembered() {
    let (dir, far) = (tempfile::tempdir().expect("a folder"), Far::new(true));
    let (long, short) = (noise(7, 5 * MIB), noise(8, 200 * KIB));
    far.put(&long).await;
    far.put(&short).await;
    let cache = cache(&dir, &far);
    for mood in [Mood::Broken, Mood::Breaking, Mood::Lying, Mood::Breaking, Mood::Lying] {
        far.be(mood);
        for contents in [&long, &short] {
            let digest = Digest::of(contents);
            let all = 0..contents.len() as u64;
            let error = match cache.try_read(&digest, all.end, all.clone()).await {
                // What comes in a single piece comes whole in these moods.
                Ok(read) if mood != Mood::Broken && read == contents[..] && all.end < MIB => {
                    continue;
                }
                Ok(_) => panic!("{mood:?}: {} bytes were read", all.end),
                Err(error) => error,
            };
            match mood {
                Mood::Lying => assert!(matches!(error, Error::Corrupt { .. }), "{error}"),
                _ => assert!(matches!(error, Error::Unavailable { .. }), "{error}"),
            }
        }
    }
    far.be(Mood::Well);
    cache.expect_all(&long, 300 * KIB).await;
    cache.expect_all(&short, 300 * KIB).await;
}

#[tokio::test]
async fn absent_is_absent_and_another_size_is_a_lie() {
    let (dir, far) = (tempfile::tempdir().expect("a folder"), Far::new(true));
    let contents = noise(9, MIB);
    let cache = cache(&dir, &far);
    let digest = Digest::of(&contents);
    assert!(cache.blobs.read_sized(&digest, MIB, 0..10).await.expect("works").is_none());
    assert!(cache.blobs.read(&digest, 0..10).await.expect("works").is_none());
    assert!(cache.blobs.read_proven(&digest, 0..10).await.expect("works").is_none());
    far.put(&contents).await;
    let error = cache.try_read(&digest, MIB - 1, 0..10).await.expect_err("it has another size");
    assert!(matches!(error, Error::Corrupt { .. }), "{error}");
    cache.expect(&contents, 0..10).await;
}

#[tokio::test]
async fn a_cache_without_room_is_read_past() {
    let (dir, far) = (tempfile::tempdir().expect("a folder"), Far::new(true));
    let (one, two) = (noise(10, 6 * MIB), noise(11, 30 * MIB));
    far.put(&one).await;
    far.put(&two).await;
    let cache = cache_of(&dir, &far, Verify::Source, 8 << 20);
    for contents in [&one, &two, &one] {
        cache.expect(contents, MIB..MIB + 10).await;
        cache.expect_all(contents, 700 * KIB).await;
    }
    let used = cache.store.bound().expect("a cache").used().expect("works");
    assert!(used <= 9 << 20, "{used}");
}

#[tokio::test]
async fn without_a_cache_ranges_are_fetched_each_time() {
    let far = Far::new(true);
    let contents = noise(12, 3 * MIB);
    let digest = far.put(&contents).await;
    let verified = Arc::new(VerifiedBlobs::new("far", far.clone()));
    let blobs = LazyBlobs::new(None, None, verified, LazyOptions::default());
    for _ in 0..2 {
        let read = blobs.read_sized(&digest, 3 * MIB, MIB + 7..MIB + 9).await.expect("works");
        let read: Vec<Bytes> = read.expect("is there").try_collect().await.expect("reads");
        assert_eq!(read.concat(), contents[MIB as usize + 7..MIB as usize + 9]);
        let (requests, bytes) = far.spent();
        assert!(requests == 1 && bytes < 20 * KIB, "{bytes} bytes in {requests} requests");
    }
}

#[tokio::test]
async fn believed_chunks_come_one_by_one_and_the_whole_is_checked_at_the_end() {
    let (dir, far) = (tempfile::tempdir().expect("a folder"), Far::new(false));
    let contents = noise(13, 4 * MIB + 77);
    let (digest, _) = far.put_chunked(&contents, 200_000).await;
    let first = cache(&dir, &far);
    first.expect(&contents, MIB..MIB + 10).await;
    assert_eq!(far.spent(), (2, 200_000), "the list and a chunk");
    first.expect(&contents, MIB + 20..MIB + 30).await;
    assert_eq!(far.spent(), (0, 0));
    drop(first);
    let second = cache(&dir, &far);
    // The part that is wanted before the list is known is fetched again.
    second.expect(&contents, 2 * MIB..2 * MIB + 10).await;
    second.expect(&contents, MIB..MIB + 10).await;
    assert_eq!(far.spent(), (2, 200_000));
    second.expect_all(&contents, 300 * KIB).await;
    let (_, bytes) = far.spent();
    assert!(bytes <= contents.len() as u64, "{bytes}");
    soon("it is adopted", || second.blobs.open_local(&digest).expect("works").is_some()).await;
    assert!(second.store.blobs().open_outboard(&digest).expect("works").is_some());
}

#[tokio::test]
async fn of_a_store_that_is_not_believed_nothing_is_read_before_all_is_checked() {
    let (dir, far) = (tempfile::tempdir().expect("a folder"), Far::new(false));
    let contents = noise(14, 4 * MIB);
    let (digest, mut chunks) = far.put_chunked(&contents, 300_000).await;
    chunks.swap(0, 1);
    far.list(digest, chunks);
    let strict = cache_of(&dir, &far, Verify::Strict, 1 << 30);
    strict.expect(&contents, 5..10).await;
    let (requests, bytes) = far.spent();
    assert_eq!((requests, bytes), (1, 4 * MIB), "the whole, without the list");
    far.be(Mood::Broken);
    strict.expect(&contents, MIB..2 * MIB).await;
}

#[tokio::test]
async fn a_wrong_list_of_chunks_is_found_out_and_its_source_believed_no_more() {
    let (dir, far) = (tempfile::tempdir().expect("a folder"), Far::new(false));
    let (one, two) = (noise(15, 2 * MIB), noise(16, 2 * MIB));
    let (digest, mut chunks) = far.put_chunked(&one, 300_000).await;
    far.put_chunked(&two, 300_000).await;
    chunks.swap(0, 1);
    far.list(digest, chunks);
    let cache = cache(&dir, &far);
    // Nobody gets all of it without an error.
    let mut error = None;
    for part in 0..8 {
        let range = part * 256 * KIB..(part + 1) * 256 * KIB;
        if let Err(wrong) = cache.try_read(&digest, 2 * MIB, range).await {
            error = Some(wrong);
            break;
        }
    }
    let error = error.expect("it is found out");
    assert!(matches!(error, Error::Corrupt { .. }), "{error}");
    assert!(cache.blobs.open_local(&digest).expect("works").is_none());
    far.spent();
    cache.expect_all(&one, 256 * KIB).await;
    assert_eq!(far.spent(), (1, 2 * MIB), "whole");
    cache.expect(&two, 0..10).await;
    assert_eq!(far.spent(), (1, 2 * MIB), "whole, too");
}

#[tokio::test]
async fn a_chunk_that_is_missing_is_an_error_for_who_wants_it_and_for_nobody_else() {
    let (dir, far) = (tempfile::tempdir().expect("a folder"), Far::new(false));
    let contents = noise(18, 4 * MIB);
    let (digest, mut chunks) = far.put_chunked(&contents, 400_000).await;
    let there = chunks[5];
    chunks[5].digest = Digest::of(b"nobody has this");
    far.list(digest, chunks.clone());
    let cache = cache(&dir, &far);
    cache.expect(&contents, 0..10).await;
    let wanted = 2_000_000..2_000_010;
    let error = cache.try_read(&digest, 4 * MIB, wanted.clone()).await.expect_err("it is missing");
    assert!(!matches!(error, Error::Unavailable { .. }), "{error}");
    cache.expect(&contents, 3_000_000..3_000_010).await;
    // Nothing wrong is remembered by those who come once it is there.
    chunks[5] = there;
    far.list(digest, chunks);
    drop(cache);
    self::cache(&dir, &far).expect(&contents, wanted).await;
}

#[tokio::test]
async fn a_chain_of_caches_moves_only_what_is_read() {
    let far = Far::new(true);
    let dirs = [(); 2].map(|()| tempfile::tempdir().expect("a folder"));
    let contents = noise(17, 30 * MIB);
    far.put(&contents).await;
    let middle = cache(&dirs[0], &far);
    let end = {
        let store = LocalStore::open_cache(dirs[1].path(), None).expect("opens");
        let near: Arc<dyn BlobService> = Arc::new(LocalBlobs::new(store.clone()));
        let far = Arc::new(VerifiedBlobs::new("middle", Arc::new(middle.blobs.clone())));
        let blobs = LazyBlobs::new(Some(near), Some(store.clone()), far, LazyOptions::default());
        Cache { store, blobs }
    };
    end.expect(&contents, 10 * MIB..10 * MIB + 300 * KIB).await;
    soon("it is quiet", || far.open() == 0).await;
    let (_, bytes) = far.spent();
    assert!(bytes < 400 * KIB, "{bytes}");
    end.expect_all(&contents, MIB).await;
    soon("it is quiet", || far.open() == 0).await;
    let (_, bytes) = far.spent();
    assert!(bytes < contents.len() as u64 * 102 / 100, "{bytes}");
    // Now the middle one has all of it.
    far.be(Mood::Broken);
    middle.expect_all(&contents, MIB).await;
}

#[tokio::test]
async fn any_order_of_reads_by_many_readers_gives_the_right_bytes() {
    let (dir, far) = (tempfile::tempdir().expect("a folder"), Far::new(true));
    let contents = noise(18, 6 * MIB + 1);
    let digest = far.put(&contents).await;
    let cache = Arc::new(cache(&dir, &far));
    let readers = (0..6u64).map(|reader| {
        let (cache, contents) = (cache.clone(), contents.clone());
        tokio::spawn(async move {
            let mut random = blake3::Hasher::new().update(&[reader as u8]).finalize_xof();
            for _ in 0..60 {
                let mut bytes = [0; 16];
                random.fill(&mut bytes);
                let (start, len) = bytes.split_at(8);
                let number = |bytes: &[u8]| bytes.iter().fold(0u64, |n, b| n << 7 ^ u64::from(*b));
                let start = number(start) % contents.len() as u64;
                let end = (start + 1 + number(len) % (600 * KIB)).min(contents.len() as u64);
                // Some give up.
                let read = cache.expect(&contents, start..end);
                let _ = tokio::time::timeout(Duration::from_millis(reader * 20 + 1), read).await;
            }
        })
    });
    for reader in join_all(readers).await {
        reader.expect("no panic");
    }
    cache.expect_all(&contents, 300 * KIB).await;
    soon("it is adopted", || cache.blobs.open_local(&digest).expect("works").is_some()).await;
    let (_, bytes) = far.spent();
    assert!(bytes < contents.len() as u64 * 2, "what is given up is fetched again: {bytes}");
}
