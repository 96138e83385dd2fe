//! Stores that fail as they are told to: the layer between a store that is right and the layers that must not believe
//! it.
#![allow(dead_code)] // Each binary uses its part.

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
        blob::{
            BlobService, BlobStream, BlobWriter, LocalBlob, Proven, ProvenPiece, ProvenStream, Put,
        },
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

/// Makes an answer of what it should be.
fn spoil(mut contents: Vec<u8>, fault: Fault) -> Vec<u8> {
    let middle = contents.len() / 2;
    match fault {
        Fault::Wrong => contents.get_mut(middle).map_or((), |byte| *byte ^= 1),
        Fault::Truncated => drop(contents.pop()),
        Fault::Reordered => contents.rotate_left(middle),
        Fault::Delayed(_) | Fault::Stalled | Fault::Failed => {}
    }
    contents
}

/// The contents of a blob or of a part of it.
async fn spoil_blob(
    contents: Option<BlobStream>,
    fault: Option<Fault>,
) -> Result<Option<BlobStream>> {
    let (contents, fault) = match (contents, fault) {
        (Some(contents), Some(fault)) => (contents, fault),
        (contents, _) => return Ok(contents),
    };
    let contents = contents.try_collect::<Vec<_>>().await?.concat();
    let pieces: Vec<_> =
        spoil(contents, fault).chunks(64 << 10).map(Bytes::copy_from_slice).collect();
    Ok(Some(stream::iter(pieces.into_iter().map(Ok)).boxed()))
}

/// A range that proves itself. Wrong is a piece: its bytes or, now and then, its nodes.
async fn spoil_range(pieces: ProvenStream, fault: Fault) -> Result<ProvenStream> {
    let mut pieces: Vec<ProvenPiece> = pieces.try_collect().await?;
    let middle = pieces.len() / 2;
    match (fault, pieces.len()) {
        (Fault::Truncated, 2..) => drop(pieces.pop()),
        (Fault::Reordered, 2..) => pieces.rotate_left(middle),
        (_, 0) => {}
        _ => {
            let piece = &mut pieces[middle];
            let is_in_nodes = !piece.nodes.is_empty() && piece.data.first().is_some_and(is_odd);
            let part = if is_in_nodes { &mut piece.nodes } else { &mut piece.data };
            *part = spoil(part.to_vec(), fault).into();
        }
    }
    Ok(stream::iter(pieces.into_iter().map(Ok)).boxed())
}

fn is_odd(byte: &u8) -> bool {
    byte % 2 == 1
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
        spoil_blob(self.0.read(digest, range).await?, fault).await
    }

    async fn read_sized(
        &self,
        digest: &Digest,
        size: u64,
        range: Range<u64>,
    ) -> Result<Option<BlobStream>> {
        let fault = self.1.next().await?;
        spoil_blob(self.0.read_sized(digest, size, range).await?, fault).await
    }

    async fn read_proven(&self, digest: &Digest, range: Range<u64>) -> Result<Option<Proven>> {
        let fault = self.1.next().await?;
        let proven = self.0.read_proven(digest, range).await?;
        match (proven, fault) {
            (Some(Proven::Range { size, pieces }), Some(fault)) => {
                Ok(Some(Proven::Range { size, pieces: spoil_range(pieces, fault).await? }))
            }
            (proven, _) => Ok(proven),
        }
    }

    async fn outboard(&self, digest: &Digest, len_max: u64) -> Result<Option<Bytes>> {
        let fault = self.1.next().await?;
        let outboard = self.0.outboard(digest, len_max).await?;
        Ok(match fault {
            Some(fault) => outboard.map(|outboard| spoil(outboard.into(), fault).into()),
            None => outboard,
        })
    }

    async fn chunks(&self, digest: &Digest) -> Result<Option<ChunkList>> {
        let fault = self.1.next().await?;
        let (list, fault) = match (self.0.chunks(digest).await?, fault) {
            (Some(list), Some(fault)) => (list, fault),
            (list, _) => return Ok(list),
        };
        let mut chunks = list.chunks().to_vec();
        match fault {
            Fault::Wrong => {
                for chunk in chunks.iter_mut().take(1) {
                    chunk.digest = Digest::of(b"another");
                }
            }
            Fault::Truncated => drop(chunks.pop()),
            Fault::Reordered => chunks.reverse(),
            Fault::Delayed(_) | Fault::Stalled | Fault::Failed => {}
        }
        let list = ChunkList::new(chunks);
        list.map(Some).map_err(|error| Error::corrupt("far", error.to_string()))
    }

    fn open_local(&self, _digest: &Digest) -> Result<Option<LocalBlob>> {
        Ok(None)
    }

    async fn put(&self, contents: Bytes) -> Result<Put> {
        self.0.put(contents).await
    }

    async fn put_all(&self, contents: Vec<Bytes>) -> Result<Vec<Put>> {
        self.0.put_all(contents).await
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
