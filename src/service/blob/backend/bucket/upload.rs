//! Chunks and lists on their way into the bucket.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use bytes::Bytes;
use futures::{StreamExt as _, TryStreamExt as _, stream};

use super::{
    CUT_LEN_MAX,
    chunker::chunks_of,
    guess::{Guess, Way},
    lists::{self, LIST_LEN_MAX},
};
use crate::{
    castore::{Chunk, Digest},
    service::{
        Error, Result,
        blob::Put,
        bucket::{Bucket, Kind, compress},
        sharded_lru::ShardedLru,
        single_flight::SingleFlight,
    },
};

/// How many chunks of one blob are stored at once.
pub(super) const CHUNKS_AT_ONCE_MAX: usize = 16;

/// Of how many objects it is remembered that they are there, and of how many that they are not.
const REMEMBERED_MAX: usize = 1 << 16;

/// For how long it is remembered that an object is there: somebody may clear up the bucket.
const THERE_FOR: Duration = Duration::from_secs(300);

/// For how long it is remembered that one is absent, so that who asked before need not ask again to put it.
const ABSENT_FOR: Duration = Duration::from_secs(30);

/// A blob that is longer than this is always asked for before it is fetched from elsewhere, in bytes.
const LONG_LEN_MIN: u64 = 8 << 20;

/// Stores chunks and lists that are not there.
#[derive(Debug)]
pub(super) struct Uploads {
    bucket: Bucket,
    guess: Arc<Guess>,
    /// When a chunk was last known to be there.
    there: Arc<ShardedLru<Digest, Instant>>,
    /// When a chunk was last known not to be there.
    absent: Arc<ShardedLru<Digest, Instant>>,
    chunks: SingleFlight<Digest, bool>,
}

impl Uploads {
    pub(super) fn new(bucket: Bucket) -> Self {
        Uploads {
            guess: Arc::new(Guess::new(bucket.is_near())),
            bucket,
            there: Arc::new(ShardedLru::new(REMEMBERED_MAX)),
            absent: Arc::new(ShardedLru::new(REMEMBERED_MAX)),
            chunks: SingleFlight::default(),
        }
    }

    /// Whether a blob is there, as a chunk or as a list.
    pub(super) async fn has_blob(&self, digest: &Digest) -> Result<bool> {
        if *digest == Digest::EMPTY || self.knows(digest) {
            return Ok(true);
        }
        if self.has_kind(Kind::Chunk, digest).await? {
            self.there.insert(*digest, Instant::now(), 1);
            return Ok(true);
        }
        self.absent.insert(*digest, Instant::now(), 1);
        self.has_kind(Kind::Blob, digest).await
    }

    async fn has_kind(&self, kind: Kind, digest: &Digest) -> Result<bool> {
        self.bucket.has(&self.bucket.path(kind, digest.as_bytes())).await
    }

    /// Whether a chunk was there a moment ago.
    fn knows(&self, digest: &Digest) -> bool {
        self.there.get(digest).is_some_and(|at| at.elapsed() < THERE_FOR)
    }

    /// Whether a blob of `size` bytes should be put, as far as it is worth asking.
    pub(super) async fn lacks(&self, digest: &Digest, size: u64) -> Result<bool> {
        if size == 0 || self.knows(digest) {
            return Ok(false);
        }
        // A long one has so many chunks that a question does not count.
        if size > LONG_LEN_MIN {
            return self.has_kind(Kind::Blob, digest).await.map(|there| !there);
        }
        let turn = self.guess.turn(size).await;
        if turn.way() == Way::Send {
            return Ok(true);
        }
        let is_there = match size {
            size if size <= CUT_LEN_MAX as u64 => self.has_kind(Kind::Chunk, digest).await?,
            _ => self.has_kind(Kind::Blob, digest).await?,
        };
        turn.found(is_there);
        match is_there {
            true => self.there.insert(*digest, Instant::now(), 1),
            false => self.absent.insert(*digest, Instant::now(), 1),
        }
        Ok(!is_there)
    }

    /// Stores what is in memory.
    pub(super) async fn put(&self, contents: Bytes) -> Result<Put> {
        let digest = Digest::of(&contents);
        if contents.is_empty() {
            return Ok(Put { digest, is_new: false });
        }
        let cut: Vec<Bytes> = chunks_of(contents).collect();
        if let [one] = &cut[..] {
            let is_new = self.chunk(digest, one.clone()).await?;
            return Ok(Put { digest, is_new });
        }
        let stored = stream::iter(cut).map(|contents| async move {
            let chunk = Chunk { digest: Digest::of(&contents), size: contents.len() as u64 };
            self.chunk(chunk.digest, contents).await?;
            Ok::<_, Error>(chunk)
        });
        let chunks: Vec<_> = stored.buffered(CHUNKS_AT_ONCE_MAX).try_collect().await?;
        let is_new = self.list(&digest, &chunks).await?;
        Ok(Put { digest, is_new })
    }

    /// Stores the list of a blob all of whose chunks are there. Says whether there was none.
    pub(super) async fn list(&self, blob: &Digest, chunks: &[Chunk]) -> Result<bool> {
        let list = lists::encode(chunks);
        if list.len() as u64 > LIST_LEN_MAX {
            let count = chunks.len();
            return Err(Error::invalid(format!(
                "blob {blob} has {count} chunks, too many to list"
            )));
        }
        // As short as a question for it.
        self.bucket.create(&self.bucket.path(Kind::Blob, blob.as_bytes()), list).await
    }

    /// Stores a chunk, once for all who have the same one at the same time. Says whether it was not there.
    pub(super) async fn chunk(&self, digest: Digest, contents: Bytes) -> Result<bool> {
        if self.knows(&digest) {
            return Ok(false);
        }
        let upload = Upload {
            bucket: self.bucket.clone(),
            guess: self.guess.clone(),
            there: self.there.clone(),
            absent: self.absent.clone(),
        };
        self.chunks.run(digest, || upload.store(digest, contents)).await
    }
}

/// What it takes to store one chunk, also when whoever began with it has left.
struct Upload {
    bucket: Bucket,
    guess: Arc<Guess>,
    there: Arc<ShardedLru<Digest, Instant>>,
    absent: Arc<ShardedLru<Digest, Instant>>,
}

impl Upload {
    async fn store(self, digest: Digest, contents: Bytes) -> Result<bool> {
        let is_new = self.send_if_absent(&digest, &contents).await?;
        self.absent.remove(&digest);
        self.there.insert(digest, Instant::now(), 1);
        Ok(is_new)
    }

    async fn send_if_absent(&self, digest: &Digest, contents: &[u8]) -> Result<bool> {
        let path = self.bucket.path(Kind::Chunk, digest.as_bytes());
        let packed = || compress(contents).map_err(|error| self.bucket.corrupt(error));
        if self.absent.get(digest).is_some_and(|at| at.elapsed() < ABSENT_FOR) {
            return self.bucket.create_asked(&path, packed()?).await;
        }
        let turn = self.guess.turn(contents.len() as u64).await;
        match turn.way() {
            Way::Ask => {
                let there = self.bucket.has(&path).await?;
                turn.found(there);
                match there {
                    true => Ok(false),
                    false => self.bucket.create_asked(&path, packed()?).await,
                }
            }
            Way::Send => {
                let is_new = self.bucket.create(&path, packed()?).await?;
                turn.found(!is_new);
                Ok(is_new)
            }
        }
    }
}
