//! What several sources promise together, when some of them are down, lie, or break off.

use std::{ops::Range, sync::Arc};

use async_trait::async_trait;
use bytes::Bytes;
use futures::{StreamExt as _, TryStreamExt as _, stream};

use super::{
    Error, Result,
    blob::{
        BlobService, BlobStream, BlobWriter, LocalBlob, Put,
        layer::{RoutedBlobs, VerifiedBlobs},
        read_all,
    },
    directory::{
        DirectoryService,
        backend::MemoryDirectories,
        layer::{CachedDirectories, RoutedDirectories},
    },
    pathinfo::{
        PathInfoService,
        layer::{CachedPathInfos, RoutedPathInfos, SignedPathInfos},
    },
    shelf::{Shelf, closure, path_info},
};
use crate::{
    castore::{ChunkList, Digest, Directory, Node, SizeRule, SymlinkTarget},
    nix::SecretKey,
};

fn link() -> Node {
    Node::Symlink { target: SymlinkTarget::try_from(&b"target"[..]).expect("legal") }
}

fn blobs(read: &[&Arc<Shelf>], write: Option<&Arc<Shelf>>) -> RoutedBlobs {
    let verified = |shelf: &Arc<Shelf>| -> Arc<dyn BlobService> {
        Arc::new(VerifiedBlobs::new("shelf", shelf.stores().blobs))
    };
    let read = read.iter().map(|shelf| verified(shelf)).collect();
    RoutedBlobs::new("the store", read, write.map(verified))
}

fn path_infos(read: &[&Arc<Shelf>], write: Option<&Arc<Shelf>>) -> RoutedPathInfos {
    let read = read.iter().map(|shelf| shelf.stores().path_infos).collect();
    RoutedPathInfos::new("the store", read, write.map(|shelf| shelf.stores().path_infos))
}

#[tokio::test]
async fn absent_is_said_only_if_all_say_so() {
    let (one, two) = (Shelf::new(), Shelf::new());
    let (blobs, infos) = (blobs(&[&one, &two], None), path_infos(&[&one, &two], None));
    let digest = two.stores().blobs.put(Bytes::from_static(b"here")).await.expect("works").digest;
    let absent = Digest::of(b"absent");
    for broken in [false, true] {
        one.break_(broken);
        assert!(blobs.has(&digest).await.expect("the second has it"), "{broken}");
        let read = read_all(&blobs, &digest, 10).await.expect("the second has it");
        assert_eq!(read.as_deref(), Some(&b"here"[..]));
        let (has, got) = (blobs.has(&absent).await, infos.get(&[7; 20].into()).await);
        match broken {
            false => assert!(!has.expect("all say so") && got.expect("all say so").is_none()),
            true => {
                assert!(matches!(has, Err(Error::Unavailable { .. })), "{has:?}");
                assert!(matches!(got, Err(Error::Unavailable { .. })), "{got:?}");
            }
        }
    }
    one.break_(false);
    two.break_(true);
    assert!(matches!(blobs.has(&digest).await, Err(Error::Unavailable { .. })));
    assert!(matches!(blobs.read(&digest, 0..4).await, Err(Error::Unavailable { .. })));
    assert!(matches!(blobs.chunks(&digest).await, Err(Error::Unavailable { .. })));
}

#[tokio::test]
async fn who_lies_leaves_it_to_the_next() {
    let (one, two) = (Shelf::new(), Shelf::new());
    let digest = two.stores().blobs.put(Bytes::from_static(b"true")).await.expect("works").digest;
    one.blobs.lock().insert(digest, Bytes::from_static(b"lies"));
    let read = read_all(&blobs(&[&one, &two], None), &digest, 10).await.expect("another has it");
    assert_eq!(read.as_deref(), Some(&b"true"[..]));
    let alone = read_all(&blobs(&[&one], None), &digest, 10).await;
    assert!(matches!(alone, Err(Error::Corrupt { .. })), "{alone:?}");
}

#[tokio::test]
async fn what_is_written_goes_to_the_target_and_nowhere_else() {
    let (one, two, target) = (Shelf::new(), Shelf::new(), Shelf::new());
    let routed = blobs(&[&one, &two], Some(&target));
    let put = routed.put(Bytes::from_static(b"x")).await.expect("works");
    let mut writer = routed.writer().await.expect("works");
    writer.write(Bytes::from_static(b"y")).await.expect("works");
    writer.finish().await.expect("works");
    assert_eq!((one.blobs.lock().len(), two.blobs.lock().len()), (0, 0));
    assert!(target.blobs.lock().len() == 2 && put.is_new);
    let nowhere = blobs(&[&one], None).put(Bytes::from_static(b"x")).await;
    let said = nowhere.expect_err("there is no target").to_string();
    assert!(said.contains("the store cannot take anything"), "{said}");
    let nowhere = path_infos(&[&one], None).put(path_info(1, "x", link())).await;
    assert!(matches!(nowhere, Err(Error::Unsupported { .. })));
}

#[tokio::test]
async fn a_list_has_each_path_once_and_ends_with_what_went_wrong() {
    let (one, two) = (Shelf::new(), Shelf::new());
    for (shelf, seeds) in [(&one, 0..3), (&two, 2..5)] {
        for seed in seeds {
            shelf.stores().path_infos.put(path_info(seed, "x", link())).await.expect("works");
        }
    }
    let infos = path_infos(&[&one, &two], None);
    let all: Vec<_> = infos.list().try_collect().await.expect("works");
    assert_eq!(all.len(), 5);
    one.break_(true);
    let listed: Vec<_> = infos.list().collect().await;
    assert_eq!(listed.iter().filter(|listed| listed.is_ok()).count(), 3);
    assert!(matches!(listed.last(), Some(Err(Error::Unavailable { .. }))));
}

/// Breaks off each stream after some bytes.
#[derive(Debug)]
struct Breaking(Arc<dyn BlobService>, usize);

#[async_trait]
impl BlobService for Breaking {
    async fn has(&self, digest: &Digest) -> Result<bool> {
        self.0.has(digest).await
    }

    async fn read(&self, digest: &Digest, range: Range<u64>) -> Result<Option<BlobStream>> {
        let Some(mut pieces) = self.0.read(digest, range).await? else { return Ok(None) };
        let mut first = pieces.try_next().await?.expect("it is not empty");
        first.truncate(self.1);
        let broken = Err(Error::unavailable("breaking", "the line is cut"));
        Ok(Some(stream::iter([Ok(first), broken]).boxed()))
    }

    async fn chunks(&self, digest: &Digest) -> Result<Option<ChunkList>> {
        self.0.chunks(digest).await
    }

    fn open_local(&self, _: &Digest) -> Result<Option<LocalBlob>> {
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

#[tokio::test]
async fn a_stream_that_breaks_is_continued_from_the_next() {
    let shelf = Shelf::new();
    let contents: Bytes = (0..700_000u32).map(|i| (i / 251) as u8).collect::<Vec<_>>().into();
    let below = shelf.stores().blobs;
    let digest = below.put(contents.clone()).await.expect("works").digest;
    let breaking = |len| -> Arc<dyn BlobService> { Arc::new(Breaking(below.clone(), len)) };
    let routed =
        RoutedBlobs::new("the store", vec![breaking(7), breaking(1000), below.clone()], None);
    for range in [0..u64::MAX, 5..100, 999..300_000] {
        let stream = routed.read(&digest, range.clone()).await.expect("works").expect("there");
        let read: Vec<Bytes> = stream.try_collect().await.expect("the last one is whole");
        let end = range.end.min(contents.len() as u64) as usize;
        assert!(read.concat() == contents[range.start as usize..end], "{range:?}");
    }
    let broken = RoutedBlobs::new("the store", vec![breaking(7), breaking(1000)], None);
    let stream = broken.read(&digest, 0..u64::MAX).await.expect("works").expect("there");
    let read: Result<Vec<Bytes>> = stream.try_collect().await;
    assert!(matches!(read, Err(Error::Unavailable { .. })));
}

#[tokio::test]
async fn closures_come_from_whoever_has_them() {
    let (one, two) = (Shelf::new(), Shelf::new());
    let all = closure("x", SizeRule::Documented);
    for directory in &all {
        two.directories.lock().insert(directory.digest(), directory.clone());
    }
    let read = vec![one.stores().directories, two.stores().directories];
    let routed = RoutedDirectories::new("the store", read, None);
    let root = all.last().expect("there is one").digest();
    for broken in [false, true] {
        one.break_(broken);
        let stream = routed.get_closure(&root).await.expect("works").expect("there");
        let read: Vec<_> = stream.try_collect().await.expect("whole");
        assert_eq!(read.len(), all.len());
        assert!(routed.get(&root).await.expect("works").is_some());
        let absent = routed.get_closure(&Digest::of(b"absent")).await;
        assert_eq!(absent.is_err(), broken);
    }
}

#[tokio::test]
async fn a_cache_is_written_and_listed_through() {
    let (near, far) = (Shelf::new(), Shelf::new());
    let (near_stores, far_stores) = (near.stores(), far.stores());
    let near_directories: Arc<dyn DirectoryService> = Arc::new(MemoryDirectories::new());
    let directories = CachedDirectories::new(near_directories.clone(), far_stores.directories);
    let is_near =
        |one: &Arc<Directory>| near_directories.get_local(&one.digest()).expect("works").is_some();
    let all = closure("x", SizeRule::Documented);
    // One by one, leaves first: each is near once those are that it names.
    for directory in &all {
        directories.put(directory.clone()).await.expect("works");
    }
    assert!(all.iter().all(is_near) && far.directories.lock().len() == 3);
    let [_, _, other] = closure("y", SizeRule::Documented);
    directories.put(other.clone()).await.expect("works");
    assert!(!is_near(&other), "its children are not near");

    let infos = CachedPathInfos::new(near_stores.path_infos, far_stores.path_infos.clone());
    infos.put(path_info(1, "x", link())).await.expect("works");
    far_stores.path_infos.put(path_info(2, "x", link())).await.expect("works");
    near.break_(true);
    infos.put(path_info(3, "x", link())).await.expect("the near one does not matter");
    let listed: Vec<_> = infos.list().try_collect().await.expect("works");
    assert_eq!(listed.len(), 3, "all that are far, whatever is near");
    far.break_(true);
    let listed: Result<Vec<_>> = infos.list().try_collect().await;
    assert!(matches!(listed, Err(Error::Unavailable { .. })), "no part is taken for all");
    assert!(infos.put(path_info(4, "x", link())).await.is_err());
}

#[tokio::test]
async fn what_is_put_is_signed() {
    let shelf = Shelf::new();
    let key = SecretKey::from_seed("key-1", &[7; 32]).expect("a key");
    let public = [key.public()];
    let signing = SignedPathInfos::new(shelf.stores().path_infos, vec![key]);
    let unsigned = path_info(1, "x", link());
    assert!(unsigned.valid_signatures(&public).is_empty());
    for _ in 0..2 {
        let stored = signing.put(unsigned.clone()).await.expect("works");
        assert_eq!(stored.valid_signatures(&public).len(), 1);
        let again = signing.put(stored.clone()).await.expect("works");
        assert_eq!(again, stored, "a signature is added once");
    }
}
