//! A store for tests that believes whatever it is told: what lies on the shelf under a digest is what it answers.

use std::{
    collections::{HashMap, HashSet, VecDeque},
    ops::Range,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
};

use async_trait::async_trait;
use bytes::{Bytes, BytesMut};
use futures::stream;
use parking_lot::Mutex;

use super::{
    Error, Result, Stores,
    blob::{BlobService, BlobStream, BlobWriter, LocalBlob, Put},
    directory::{DirectoryPutter, DirectoryService, DirectoryStream},
    pathinfo::{NarCalculation, PathInfoService, PathInfoStream},
};
use crate::{
    castore::{ChunkList, Digest, Directory, LeavesFirst, Name, Node, SizeRule},
    nix::{Details, NarHash, NarInfo, PathInfo, StorePath, StorePathDigest},
};

/// Anything may be put under any digest, through the maps.
#[derive(Debug, Default)]
pub(crate) struct Shelf {
    pub(crate) blobs: Mutex<HashMap<Digest, Bytes>>,
    pub(crate) directories: Mutex<HashMap<Digest, Arc<Directory>>>,
    pub(crate) path_infos: Mutex<HashMap<StorePathDigest, PathInfo>>,
    /// How often something was read.
    pub(crate) reads: AtomicUsize,
    pub(crate) syncs: AtomicUsize,
    /// While set, every call fails.
    pub(crate) broken: std::sync::atomic::AtomicBool,
}

impl Shelf {
    pub(crate) fn new() -> Arc<Self> {
        Arc::default()
    }

    pub(crate) fn stores(self: &Arc<Self>) -> Stores {
        Stores {
            blobs: Arc::new(ShelfBlobs(self.clone())),
            directories: Arc::new(ShelfDirectories(self.clone())),
            path_infos: self.clone(),
            nars: self.clone(),
        }
    }

    pub(crate) fn reads(&self) -> usize {
        self.reads.load(Ordering::SeqCst)
    }

    pub(crate) fn break_(&self, broken: bool) {
        self.broken.store(broken, Ordering::SeqCst);
    }

    fn works(&self) -> Result<()> {
        match self.broken.load(Ordering::SeqCst) {
            true => Err(Error::unavailable("the shelf", "broken at /secret/place")),
            false => Ok(()),
        }
    }

    fn reading(&self) -> Result<()> {
        self.reads.fetch_add(1, Ordering::SeqCst);
        self.works()
    }
}

/// Its blobs.
#[derive(Debug)]
pub(crate) struct ShelfBlobs(pub(crate) Arc<Shelf>);

#[async_trait]
impl BlobService for ShelfBlobs {
    async fn has(&self, digest: &Digest) -> Result<bool> {
        self.0.works()?;
        Ok(*digest == Digest::EMPTY || self.0.blobs.lock().contains_key(digest))
    }

    async fn read(&self, digest: &Digest, range: Range<u64>) -> Result<Option<BlobStream>> {
        self.0.reading()?;
        // Whoever comes meanwhile must be seen to share.
        tokio::task::yield_now().await;
        let Some(mut all) = self.0.blobs.lock().get(digest).cloned() else { return Ok(None) };
        all.truncate(range.end.min(all.len() as u64) as usize);
        let mut left = all.split_off(range.start.min(all.len() as u64) as usize);
        let pieces = std::iter::from_fn(move || {
            (!left.is_empty()).then(|| Ok(left.split_to(left.len().min(100_000))))
        });
        Ok(Some(Box::pin(stream::iter(pieces))))
    }

    async fn chunks(&self, digest: &Digest) -> Result<Option<ChunkList>> {
        Ok(self.has(digest).await?.then(ChunkList::default))
    }

    fn open_local(&self, _digest: &Digest) -> Result<Option<LocalBlob>> {
        Ok(None)
    }

    async fn put(&self, contents: Bytes) -> Result<Put> {
        self.0.works()?;
        let digest = Digest::of(&contents);
        let is_new = self.0.blobs.lock().insert(digest, contents).is_none();
        Ok(Put { digest, is_new })
    }

    async fn writer(&self) -> Result<Box<dyn BlobWriter>> {
        self.0.works()?;
        Ok(Box::new(ShelfWriter { shelf: self.0.clone(), contents: BytesMut::new() }))
    }

    async fn sync(&self) -> Result<()> {
        self.0.syncs.fetch_add(1, Ordering::SeqCst);
        self.0.works()
    }
}

struct ShelfWriter {
    shelf: Arc<Shelf>,
    contents: BytesMut,
}

#[async_trait]
impl BlobWriter for ShelfWriter {
    async fn write(&mut self, piece: Bytes) -> Result<()> {
        self.contents.extend_from_slice(&piece);
        self.shelf.works()
    }

    async fn finish(self: Box<Self>) -> Result<(Digest, u64)> {
        let len = self.contents.len() as u64;
        Ok((ShelfBlobs(self.shelf).put(self.contents.freeze()).await?.digest, len))
    }
}

/// Its directories.
#[derive(Debug)]
pub(crate) struct ShelfDirectories(pub(crate) Arc<Shelf>);

#[async_trait]
impl DirectoryService for ShelfDirectories {
    async fn get(&self, digest: &Digest) -> Result<Option<Arc<Directory>>> {
        self.0.reading()?;
        Ok(self.0.directories.lock().get(digest).cloned())
    }

    fn get_local(&self, _: &Digest) -> Result<Option<Arc<Directory>>> {
        Ok(None)
    }

    /// Leaves out what is missing.
    async fn get_closure(&self, root: &Digest) -> Result<Option<DirectoryStream>> {
        self.0.reading()?;
        let directories = self.0.directories.lock();
        let Some(root) = directories.get(root) else { return Ok(None) };
        let mut closure = Vec::new();
        let mut seen = HashSet::new();
        let mut queue = VecDeque::from([root]);
        while let Some(directory) = queue.pop_front() {
            closure.push(Ok(directory.clone()));
            let children = directory.directories().filter(|(child, _)| seen.insert(*child));
            queue.extend(children.filter_map(|(child, _)| directories.get(&child)));
        }
        Ok(Some(Box::pin(stream::iter(closure))))
    }

    async fn put(&self, directory: Arc<Directory>) -> Result<()> {
        self.0.works()?;
        self.0.directories.lock().insert(directory.digest(), directory);
        Ok(())
    }

    async fn put_closure(&self) -> Result<Box<dyn DirectoryPutter>> {
        self.0.works()?;
        let shelf = self.0.clone();
        Ok(Box::new(ShelfPutter { shelf, order: LeavesFirst::new(), all: Vec::new() }))
    }

    async fn sync(&self) -> Result<()> {
        self.0.syncs.fetch_add(1, Ordering::SeqCst);
        self.0.works()
    }
}

struct ShelfPutter {
    shelf: Arc<Shelf>,
    order: LeavesFirst,
    all: Vec<Arc<Directory>>,
}

#[async_trait]
impl DirectoryPutter for ShelfPutter {
    async fn put(&mut self, directory: Arc<Directory>) -> Result<()> {
        self.order.add(&directory).map_err(Error::invalid)?;
        self.all.push(directory);
        Ok(())
    }

    async fn finish(self: Box<Self>) -> Result<Digest> {
        let root = self.order.finish().map_err(Error::invalid)?;
        for directory in self.all {
            self.shelf.directories.lock().insert(directory.digest(), directory);
        }
        Ok(root)
    }
}

#[async_trait]
impl PathInfoService for Shelf {
    async fn get(&self, digest: &StorePathDigest) -> Result<Option<PathInfo>> {
        self.reading()?;
        Ok(self.path_infos.lock().get(digest).cloned())
    }

    async fn put(&self, path_info: PathInfo) -> Result<PathInfo> {
        self.works()?;
        self.path_infos.lock().insert(path_info.store_path.digest(), path_info.clone());
        Ok(path_info)
    }

    fn list(&self) -> PathInfoStream {
        if let Err(error) = self.works() {
            return Box::pin(stream::iter([Err(error)]));
        }
        let all: Vec<_> = self.path_infos.lock().values().cloned().map(Ok).collect();
        Box::pin(stream::iter(all))
    }
}

#[async_trait]
impl NarCalculation for Shelf {
    async fn calculate_nar(&self, node: &Node) -> Result<NarHash> {
        let Node::Symlink { target } = node else { return Err(Error::invalid("not a symlink")) };
        Ok(NarHash { size: target.as_bytes().len() as u64, sha256: [7; 32] })
    }
}

/// A path info of that name whose contents are `node`.
pub(crate) fn path_info(digest: u8, name: &str, node: Node) -> PathInfo {
    let store_path = StorePath::new([digest; 20].into(), name).expect("legal");
    let nar = NarHash { size: 120, sha256: [1; 32] };
    let (references, signatures) = (vec![store_path.clone()], Vec::new());
    let nar_info = NarInfo { nar, references, signatures, deriver: None, ca: None };
    PathInfo { store_path, node, details: Details::NarInfo(nar_info) }
}

/// A leaf, a middle that names it, and a root that names both: leaves first. `mark` makes them different.
pub(crate) fn closure(mark: &str, rule: SizeRule) -> [Arc<Directory>; 3] {
    let file = Node::File { digest: Digest::of(mark.as_bytes()), size: 3, executable: false };
    let dir = |entries: &[(&str, Node)]| {
        let mut builder = Directory::builder();
        for (name, node) in entries {
            builder.add(Name::try_from(*name).expect("legal"), node.clone());
        }
        Arc::new(builder.build().expect("legal"))
    };
    let leaf = dir(&[("file", file)]);
    let middle = dir(&[("leaf", leaf.node(rule))]);
    let root = dir(&[("a", leaf.node(rule)), ("b", middle.node(rule))]);
    [leaf, middle, root]
}
