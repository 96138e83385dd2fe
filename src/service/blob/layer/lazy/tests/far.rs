//! A far store that counts, stalls, breaks and lies, and a cache before it.

use std::{
    collections::HashMap,
    sync::atomic::{AtomicU64, AtomicUsize, Ordering::SeqCst},
};

use futures::TryStreamExt as _;
use parking_lot::Mutex;
use tempfile::TempDir;

use super::super::*;
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

/// How a [`Far`] misbehaves.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Mood {
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
pub(super) struct Far {
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
pub(super) struct Open(Arc<AtomicUsize>);

impl Drop for Open {
    fn drop(&mut self) {
        self.0.fetch_sub(1, SeqCst);
    }
}

impl Far {
    pub(super) fn new(proves: bool) -> Arc<Self> {
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

    pub(super) async fn put(&self, contents: &Bytes) -> Digest {
        self.memory.put(contents.clone()).await.expect("works").digest
    }

    /// Stores a blob with a list of chunks, and its chunks.
    pub(super) async fn put_chunked(&self, contents: &Bytes, len: usize) -> (Digest, Vec<Chunk>) {
        let mut chunks = Vec::new();
        for chunk in contents.chunks(len) {
            let digest = self.put(&Bytes::copy_from_slice(chunk)).await;
            chunks.push(Chunk { digest, size: chunk.len() as u64 });
        }
        let digest = self.put(contents).await;
        self.list(digest, chunks.clone());
        (digest, chunks)
    }

    pub(super) fn list(&self, digest: Digest, chunks: Vec<Chunk>) {
        self.lists.lock().insert(digest, ChunkList::new(chunks).expect("legal"));
    }

    pub(super) fn be(&self, mood: Mood) {
        *self.mood.lock() = mood;
    }

    pub(super) fn request(&self) -> Result<Mood> {
        self.requests.fetch_add(1, SeqCst);
        let mood = *self.mood.lock();
        match mood {
            Mood::Broken => Err(Error::unavailable("far", "broken")),
            _ => Ok(mood),
        }
    }

    pub(super) fn spent(&self) -> (u64, u64) {
        (self.requests.swap(0, SeqCst), self.bytes.swap(0, SeqCst))
    }

    pub(super) fn open(&self) -> usize {
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

pub(super) fn flip(bytes: &Bytes) -> Bytes {
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
pub(super) struct Cache {
    pub(super) store: Arc<LocalStore>,
    pub(super) blobs: LazyBlobs,
}

pub(super) fn cache_of(dir: &TempDir, far: &Arc<Far>, verify: Verify, size_max: u64) -> Cache {
    let store = LocalStore::open_cache(dir.path(), Some(size_max)).expect("opens");
    let near: Arc<dyn BlobService> = Arc::new(LocalBlobs::new(store.clone()));
    let far = Arc::new(VerifiedBlobs::new("far", far.clone()));
    let options = LazyOptions { verify, ..LazyOptions::default() };
    let blobs = LazyBlobs::new(Some(near), Some(store.clone()), far, options);
    Cache { store, blobs }
}

pub(super) fn cache(dir: &TempDir, far: &Arc<Far>) -> Cache {
    cache_of(dir, far, Verify::Source, 1 << 30)
}

pub(super) fn noise(seed: u64, len: u64) -> Bytes {
    let mut out = vec![0; len as usize];
    blake3::Hasher::new().update(&seed.to_le_bytes()).finalize_xof().fill(&mut out);
    out.into()
}

impl Cache {
    /// Reads as the mount does.
    pub(super) async fn try_read(
        &self,
        digest: &Digest,
        size: u64,
        range: Range<u64>,
    ) -> Result<Vec<u8>> {
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

    pub(super) async fn expect(&self, contents: &Bytes, range: Range<u64>) {
        let digest = Digest::of(contents);
        let got = self.try_read(&digest, contents.len() as u64, range.clone()).await;
        let expected = &contents[range.start as usize..range.end as usize];
        assert!(got.expect("it reads") == expected, "{range:?}");
    }

    /// Reads all of it in steps.
    pub(super) async fn expect_all(&self, contents: &Bytes, step: u64) {
        let size = contents.len() as u64;
        let mut at = 0;
        while at < size {
            let end = size.min(at + step);
            self.expect(contents, at..end).await;
            at = end;
        }
    }
}
