//! Stores that fail as they are told to: the layer between a store that is right and the layers that must not believe
//! it.

use std::{
    ops::{Range, RangeInclusive},
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering::SeqCst},
    },
    time::Duration,
};

use async_trait::async_trait;
use bytes::Bytes;
use futures::{StreamExt as _, TryStreamExt as _, stream};
use lazystore::{
    castore::{ChunkList, Digest, Directory},
    nix::{PathInfo, StorePath, StorePathDigest},
    service::{
        Error, Result, Stores,
        blob::{BlobService, BlobStream, BlobWriter, LocalBlob, Put},
        directory::{DirectoryPutter, DirectoryService, DirectoryStream},
        pathinfo::{PathInfoService, PathInfoStream},
    },
};

/// What becomes of a call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// It takes longer.
    Delayed(Duration),
    /// It fails.
    Failed,
    /// It is not answered until the store has healed.
    Stalled,
    /// Its answer is something else.
    Wrong,
    /// Its answer lacks the end.
    Truncated,
    /// The parts of its answer come in another order.
    Reordered,
}

/// Which calls are struck, and how.
#[derive(Debug, Default)]
pub struct Faults {
    calls: AtomicUsize,
    plan: Mutex<Option<(RangeInclusive<usize>, Fault)>>,
    healed: tokio::sync::Notify,
}

impl Faults {
    /// Wraps the services of `stores` for reading.
    pub fn around(self: &Arc<Self>, stores: &Stores) -> Stores {
        Stores {
            blobs: Arc::new(FaultyBlobs(stores.blobs.clone(), self.clone())),
            directories: Arc::new(FaultyDirectories(stores.directories.clone(), self.clone())),
            path_infos: Arc::new(FaultyPathInfos(stores.path_infos.clone(), self.clone())),
            nars: stores.nars.clone(),
        }
    }

    /// From now on calls are counted from 1, and those in `calls` are struck.
    pub fn strike(&self, calls: RangeInclusive<usize>, fault: Fault) {
        self.calls.store(0, SeqCst);
        *self.plan.lock().expect("no panic") = Some((calls, fault));
    }

    /// No call is struck any more, and what was stalled goes on.
    pub fn heal(&self) {
        *self.plan.lock().expect("no panic") = None;
        self.healed.notify_waiters();
    }

    /// How many calls there were.
    pub fn calls(&self) -> usize {
        self.calls.load(SeqCst)
    }

    /// What is to become of the answer of the next call, once what is to become of the call has.
    async fn next(&self) -> Result<Option<Fault>> {
        let healed = self.healed.notified();
        let call = self.calls.fetch_add(1, SeqCst) + 1;
        let fault = match &*self.plan.lock().expect("no panic") {
            Some((calls, fault)) if calls.contains(&call) => *fault,
            _ => return Ok(None),
        };
        match fault {
            Fault::Delayed(time) => tokio::time::sleep(time).await,
            Fault::Stalled => healed.await,
            Fault::Failed => return Err(Error::unavailable("far", "it fails")),
            Fault::Wrong | Fault::Truncated | Fault::Reordered => return Ok(Some(fault)),
        }
        Ok(None)
    }
}

#[derive(Debug)]
struct FaultyBlobs(Arc<dyn BlobService>, Arc<Faults>);

#[async_trait]
impl BlobService for FaultyBlobs {
    async fn has(&self, digest: &Digest) -> Result<bool> {
        self.1.next().await?;
        self.0.has(digest).await
    }

    async fn read(&self, digest: &Digest, range: Range<u64>) -> Result<Option<BlobStream>> {
        let fault = self.1.next().await?;
        let (Some(contents), Some(fault)) = (self.0.read(digest, range.clone()).await?, fault)
        else {
            return self.0.read(digest, range).await;
        };
        let mut contents = contents.try_collect::<Vec<_>>().await?.concat();
        let len = contents.len();
        match fault {
            Fault::Wrong => contents[len / 2] ^= 1,
            Fault::Truncated => contents.truncate(len - 1),
            Fault::Reordered => contents.rotate_left(len / 2),
            Fault::Delayed(_) | Fault::Stalled | Fault::Failed => {}
        }
        let pieces: Vec<_> = contents.chunks(64 << 10).map(Bytes::copy_from_slice).collect();
        Ok(Some(stream::iter(pieces.into_iter().map(Ok)).boxed()))
    }

    async fn chunks(&self, digest: &Digest) -> Result<Option<ChunkList>> {
        self.1.next().await?;
        self.0.chunks(digest).await
    }

    fn open_local(&self, _digest: &Digest) -> Result<Option<LocalBlob>> {
        Ok(None)
    }

    async fn put(&self, contents: Bytes) -> Result<Put> {
        self.0.put(contents).await
    }

    async fn writer(&self) -> Result<Box<dyn BlobWriter>> {
        self.0.writer().await
    }

    async fn sync(&self) -> Result<()> {
        self.0.sync().await
    }
}

#[derive(Debug)]
struct FaultyDirectories(Arc<dyn DirectoryService>, Arc<Faults>);

fn empty() -> Arc<Directory> {
    Arc::new(Directory::builder().build().expect("legal"))
}

#[async_trait]
impl DirectoryService for FaultyDirectories {
    async fn get(&self, digest: &Digest) -> Result<Option<Arc<Directory>>> {
        Ok(match self.1.next().await? {
            Some(Fault::Wrong) => Some(empty()),
            Some(Fault::Truncated) => None,
            _ => self.0.get(digest).await?,
        })
    }

    fn get_local(&self, _digest: &Digest) -> Result<Option<Arc<Directory>>> {
        Ok(None)
    }

    async fn get_closure(&self, root: &Digest) -> Result<Option<DirectoryStream>> {
        let fault = self.1.next().await?;
        let Some(closure) = self.0.get_closure(root).await? else { return Ok(None) };
        let mut closure: Vec<_> = closure.try_collect().await?;
        match fault {
            Some(Fault::Wrong) => *closure.last_mut().expect("at least the root") = empty(),
            Some(Fault::Truncated) => drop(closure.pop()),
            Some(Fault::Reordered) => closure.reverse(),
            Some(Fault::Delayed(_) | Fault::Stalled | Fault::Failed) | None => {}
        }
        Ok(Some(stream::iter(closure.into_iter().map(Ok)).boxed()))
    }

    async fn put(&self, directory: Arc<Directory>) -> Result<()> {
        self.0.put(directory).await
    }

    async fn put_closure(&self) -> Result<Box<dyn DirectoryPutter>> {
        self.0.put_closure().await
    }

    async fn sync(&self) -> Result<()> {
        self.0.sync().await
    }
}

#[derive(Debug)]
struct FaultyPathInfos(Arc<dyn PathInfoService>, Arc<Faults>);

#[async_trait]
impl PathInfoService for FaultyPathInfos {
    async fn get(&self, digest: &StorePathDigest) -> Result<Option<PathInfo>> {
        let fault = self.1.next().await?;
        let Some(mut path_info) = self.0.get(digest).await? else { return Ok(None) };
        match fault {
            Some(Fault::Wrong) => {
                let other = b"22222222222222222222222222222222-another";
                path_info.store_path = StorePath::from_base_name(other).expect("legal");
            }
            Some(Fault::Truncated) => return Err(Error::corrupt("far", "half of a message")),
            Some(Fault::Delayed(_) | Fault::Stalled | Fault::Failed | Fault::Reordered) | None => {}
        }
        Ok(Some(path_info))
    }

    async fn put(&self, path_info: PathInfo) -> Result<PathInfo> {
        self.0.put(path_info).await
    }

    fn list(&self) -> PathInfoStream {
        self.0.list()
    }
}
