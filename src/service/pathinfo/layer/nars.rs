//! Archive hashes that were calculated are remembered.

use std::{num::NonZeroUsize, sync::Arc};

use async_trait::async_trait;
use lru::LruCache;
use parking_lot::Mutex;

use crate::{
    castore::Node,
    nix::NarHash,
    service::{Result, pathinfo::NarCalculation, single_flight::SingleFlight},
};

/// How many hashes are remembered: under 20 MB of them.
const NARS_MAX: NonZeroUsize = NonZeroUsize::new(65_536).expect("not zero");

/// Remembers the size and hash of archives by what is in them, and joins those who ask for the same at the same time.
///
/// You want it before whatever calculates: that reads all contents, and clients ask for the same again, when they try
/// again or add one path after the other. Contents are named by their digests, so nothing that is remembered gets old.
///
/// It never remembers an error.
#[derive(Debug)]
pub struct RememberedNars {
    inner: Arc<dyn NarCalculation>,
    flights: SingleFlight<Node, NarHash>,
    nars: Mutex<LruCache<Node, NarHash>>,
}

impl RememberedNars {
    /// Asks `inner` once for each archive.
    pub fn new(inner: Arc<dyn NarCalculation>) -> Self {
        let nars = Mutex::new(LruCache::new(NARS_MAX));
        RememberedNars { inner, flights: SingleFlight::default(), nars }
    }
}

#[async_trait]
impl NarCalculation for RememberedNars {
    async fn calculate_nar(&self, node: &Node) -> Result<NarHash> {
        if let Some(nar) = self.nars.lock().get(node) {
            return Ok(*nar);
        }
        let (inner, wanted) = (self.inner.clone(), node.clone());
        let calculate = || async move { inner.calculate_nar(&wanted).await };
        let nar = self.flights.run(node.clone(), calculate).await?;
        self.nars.lock().put(node.clone(), nar);
        Ok(nar)
    }

    fn reads_contents(&self) -> bool {
        self.inner.reads_contents()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU64, Ordering::SeqCst};

    use futures::future::join_all;

    use super::*;
    use crate::{castore::Digest, service::Error};

    /// Fails the first time, and then takes a moment.
    #[derive(Debug, Default)]
    struct Counting(AtomicU64);

    #[async_trait]
    impl NarCalculation for Counting {
        async fn calculate_nar(&self, _: &Node) -> Result<NarHash> {
            let call = self.0.fetch_add(1, SeqCst);
            tokio::task::yield_now().await;
            match call {
                0 => Err(Error::invalid("not yet")),
                size => Ok(NarHash { size, sha256: [7; 32] }),
            }
        }
    }

    #[tokio::test]
    async fn each_archive_is_calculated_once_for_all() {
        let counting = Arc::new(Counting::default());
        let nars = RememberedNars::new(counting.clone());
        let node = |executable| Node::File { digest: Digest::of(b"x"), size: 1, executable };
        let (one, other) = (node(false), node(true));
        assert!(nars.calculate_nar(&one).await.is_err());
        let all = join_all((0..10).map(|_| nars.calculate_nar(&one))).await;
        assert!(all.into_iter().all(|nar| nar.is_ok_and(|nar| nar.size == 1)));
        assert_eq!(nars.calculate_nar(&one).await.map(|nar| nar.size).ok(), Some(1));
        assert_eq!(nars.calculate_nar(&other).await.map(|nar| nar.size).ok(), Some(2));
        assert_eq!(counting.0.load(SeqCst), 3);
    }
}
