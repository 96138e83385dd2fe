//! What is absent is not asked for again at once.

use std::{
    num::NonZeroUsize,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::SeqCst},
    },
    time::Duration,
};

use async_trait::async_trait;
use lru::LruCache;
use parking_lot::Mutex;
use tokio::time::Instant;

use crate::{
    nix::{PathInfo, StorePathDigest},
    observe::tally::Cache,
    service::{
        Result,
        pathinfo::{PathInfoService, PathInfoStream},
    },
};

/// How many absent path infos are remembered: under 2 MB of them.
const ABSENT_ENTRIES_MAX: usize = 16_384;

/// Remembers for a short time that a path info is absent.
///
/// You want it before a store that is far away: shells, linkers and editors look for the same names again and again
/// that are not there. What is put through it is there at once; what others put far is seen once the time is over.
///
/// It never remembers an error, nor what was found.
#[derive(Debug)]
pub struct AbsentPathInfos {
    inner: Arc<dyn PathInfoService>,
    ttl: Duration,
    /// Until when.
    absent: Mutex<LruCache<StorePathDigest, Instant>>,
    /// How often something was put: an answer that it is absent may be older.
    puts: AtomicU64,
}

impl AbsentPathInfos {
    /// Remembers for `ttl` what `inner` does not find.
    pub fn new(inner: Arc<dyn PathInfoService>, ttl: Duration) -> Self {
        let bound = NonZeroUsize::new(ABSENT_ENTRIES_MAX).expect("the bound is not 0");
        let absent = Mutex::new(LruCache::new(bound));
        AbsentPathInfos { inner, ttl, absent, puts: AtomicU64::new(0) }
    }

    fn is_absent(&self, digest: &StorePathDigest) -> bool {
        let mut absent = self.absent.lock();
        match absent.peek(digest) {
            Some(until) if Instant::now() < *until => true,
            Some(_) => {
                absent.pop(digest);
                false
            }
            None => false,
        }
    }
}

#[async_trait]
impl PathInfoService for AbsentPathInfos {
    async fn get(&self, digest: &StorePathDigest) -> Result<Option<PathInfo>> {
        if self.is_absent(digest) {
            Cache::Absent.hit();
            return Ok(None);
        }
        let puts = self.puts.load(SeqCst);
        let found = self.inner.get(digest).await?;
        if found.is_none() {
            Cache::Absent.missed();
        }
        if found.is_none() && !self.ttl.is_zero() {
            let mut absent = self.absent.lock();
            if self.puts.load(SeqCst) == puts {
                absent.put(*digest, Instant::now() + self.ttl);
            }
        }
        Ok(found)
    }

    async fn put(&self, path_info: PathInfo) -> Result<PathInfo> {
        let digest = path_info.store_path.digest();
        let stored = self.inner.put(path_info).await;
        // Even if it failed: it may be there all the same.
        let mut absent = self.absent.lock();
        self.puts.fetch_add(1, SeqCst);
        absent.pop(&digest);
        stored
    }

    fn list(&self) -> PathInfoStream {
        self.inner.list()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        castore::{Digest, Node},
        service::shelf::{Shelf, path_info},
    };

    fn file() -> Node {
        Node::File { digest: Digest::EMPTY, size: 0, executable: false }
    }

    #[tokio::test(start_paused = true)]
    async fn absence_is_remembered_for_a_while_and_no_longer_once_it_is_put() {
        let shelf = Shelf::new();
        let ttl = Duration::from_secs(5);
        let layer = AbsentPathInfos::new(shelf.stores().path_infos, ttl);
        let info = path_info(1, "one", file());
        let digest = info.store_path.digest();
        for _ in 0..3 {
            assert_eq!(layer.get(&digest).await.expect("works"), None);
        }
        assert_eq!(shelf.reads(), 1);

        // Somebody else puts it.
        shelf.path_infos.lock().insert(digest, info.clone());
        tokio::time::sleep(ttl - Duration::from_millis(1)).await;
        assert_eq!(layer.get(&digest).await.expect("works"), None);
        tokio::time::sleep(Duration::from_millis(1)).await;
        assert_eq!(layer.get(&digest).await.expect("works"), Some(info));

        let other = path_info(2, "two", file());
        let digest = other.store_path.digest();
        assert_eq!(layer.get(&digest).await.expect("works"), None);
        layer.put(other.clone()).await.expect("works");
        assert_eq!(layer.get(&digest).await.expect("works"), Some(other));
    }

    #[tokio::test]
    async fn errors_are_not_remembered() {
        let shelf = Shelf::new();
        let layer = AbsentPathInfos::new(shelf.stores().path_infos, Duration::from_secs(5));
        let info = path_info(1, "one", file());
        shelf.path_infos.lock().insert(info.store_path.digest(), info.clone());
        shelf.break_(true);
        layer.get(&info.store_path.digest()).await.expect_err("broken");
        shelf.break_(false);
        let found = layer.get(&info.store_path.digest()).await.expect("works");
        assert_eq!(found, Some(info));
    }
}
