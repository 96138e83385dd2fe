//! What the layers promise, over a store that can lie and break.

use std::{ops::Range, sync::Arc};

use bytes::Bytes;
use futures::StreamExt as _;

use super::{
    Error, Result,
    blob::{
        BlobService, SMALL_BLOB_LEN_MAX,
        layer::{BlobCounters, LazyBlobs, LazyOptions, MeasuredBlobs, VerifiedBlobs},
        read_all,
    },
    counters::{Backend, Counts},
    directory::{
        DirectoryService,
        layer::{CachedDirectories, LruDirectories, VerifiedDirectories},
    },
    pathinfo::{
        PathInfoService,
        layer::{CachedPathInfos, LruPathInfos, VerifiedPathInfos},
    },
    shelf::{Shelf, closure, path_info},
};
use crate::{
    castore::{Digest, Directory, Node, SizeRule, SymlinkTarget},
    observe::spent::Phase,
};

fn link() -> Node {
    Node::Symlink { target: SymlinkTarget::try_from(&b"target"[..]).expect("legal") }
}

fn lazy(near: &Arc<Shelf>, far: &Arc<Shelf>) -> LazyBlobs {
    let (near, far) = (near.stores().blobs, far.stores().blobs);
    LazyBlobs::new(Some(near), None, far, LazyOptions::default())
}

/// What came before the end or the error, and the error.
async fn drain(
    blobs: &dyn BlobService,
    digest: &Digest,
    range: Range<u64>,
) -> (Vec<u8>, Option<Error>) {
    let mut stream = blobs.read(digest, range).await.expect("works").expect("is there");
    let mut all = Vec::new();
    while let Some(piece) = stream.next().await {
        match piece {
            Ok(piece) => all.extend_from_slice(&piece),
            Err(error) => {
                assert!(stream.next().await.is_none(), "an error ends the stream");
                return (all, Some(error));
            }
        }
    }
    (all, None)
}

async fn collect(directories: &dyn DirectoryService, root: &Digest) -> Result<Vec<Arc<Directory>>> {
    let mut stream = directories.get_closure(root).await?.expect("is there");
    let mut all = Vec::new();
    while let Some(directory) = stream.next().await {
        all.push(directory?);
    }
    Ok(all)
}

#[tokio::test]
async fn verify_serves_right_contents_in_any_range() {
    let shelf = Shelf::new();
    let blobs = VerifiedBlobs::new("far", shelf.stores().blobs);
    for len in [1, 1000, SMALL_BLOB_LEN_MAX, SMALL_BLOB_LEN_MAX + 1, 3_000_000] {
        let contents: Bytes = (0..len).map(|i| (i / 251) as u8).collect::<Vec<_>>().into();
        let digest = blobs.put(contents.clone()).await.expect("works").digest;
        let len = len as u64;
        for range in [0..u64::MAX, 0..1, len / 2..len / 2 + 150_000, len - 1..len, len..len + 9] {
            let end = range.end.min(len) as usize;
            let expected = &contents[range.start as usize..end.max(range.start as usize)];
            let (got, error) = drain(&blobs, &digest, range.clone()).await;
            assert!(error.is_none() && got == expected, "{range:?} of {len}");
        }
    }
}

#[tokio::test]
async fn verify_releases_nothing_of_a_small_wrong_blob_and_not_all_of_a_large_one() {
    let shelf = Shelf::new();
    let blobs = VerifiedBlobs::new("far", shelf.stores().blobs);
    let asked = Digest::of(b"asked");
    for len in [0, 1, SMALL_BLOB_LEN_MAX] {
        shelf.blobs.lock().insert(asked, vec![1; len].into());
        let (got, error) = drain(&blobs, &asked, 0..u64::MAX).await;
        assert!(got.is_empty() && matches!(error, Some(Error::Corrupt { .. })), "{len}");
    }
    shelf.blobs.lock().insert(asked, vec![1; 3_000_000].into());
    for range in [0..u64::MAX, 0..10, 1_500_000..2_900_001] {
        let len = range.end.min(3_000_000) - range.start;
        let (got, error) = drain(&blobs, &asked, range).await;
        assert!((got.len() as u64) < len && matches!(error, Some(Error::Corrupt { .. })));
    }
}

#[tokio::test]
async fn verify_refuses_wrong_directories_and_cut_closures() {
    let shelf = Shelf::new();
    let directories = VerifiedDirectories::new("far", shelf.stores().directories);
    let [leaf, middle, root] = closure("x", SizeRule::Documented);
    for directory in [&leaf, &middle, &root] {
        directories.put(directory.clone()).await.expect("works");
    }
    assert_eq!(collect(&directories, &root.digest()).await.expect("whole").len(), 3);
    shelf.directories.lock().remove(&leaf.digest());
    let cut = collect(&directories, &root.digest()).await;
    assert!(matches!(cut, Err(Error::Corrupt { .. })), "{cut:?}");
    shelf.directories.lock().insert(leaf.digest(), middle.clone());
    let wrong = directories.get(&leaf.digest()).await;
    assert!(matches!(wrong, Err(Error::Corrupt { .. })), "{wrong:?}");
}

#[tokio::test]
async fn verify_refuses_the_path_info_of_another_path() {
    let shelf = Shelf::new();
    let path_infos = VerifiedPathInfos::new("far", shelf.clone());
    let (one, two) = (path_info(1, "one", link()), path_info(2, "two", link()));
    path_infos.put(one.clone()).await.expect("works");
    assert_eq!(path_infos.get(&[1; 20].into()).await.expect("works"), Some(one));
    shelf.path_infos.lock().insert([1; 20].into(), two);
    let wrong = path_infos.get(&[1; 20].into()).await;
    assert!(matches!(wrong, Err(Error::Corrupt { .. })), "{wrong:?}");
}

#[tokio::test]
async fn readers_of_the_same_blob_share_one_copy_and_then_need_far_no_more() {
    let (near, far) = (Shelf::new(), Shelf::new());
    let cache = lazy(&near, &far);
    let contents = Bytes::from(vec![3; 500_000]);
    let digest = far.stores().blobs.put(contents.clone()).await.expect("works").digest;
    let reads = futures::future::join_all((0..8).map(|_| read_all(&cache, &digest, 1 << 20)));
    for read in reads.await {
        assert_eq!(read.expect("works"), Some(contents.clone()));
    }
    assert_eq!(far.reads(), 1);
    far.break_(true);
    assert_eq!(drain(&cache, &digest, 7..9).await.0, [3, 3]);
}

#[tokio::test]
async fn a_broken_near_store_fails_no_read_and_no_write() {
    let (near, far) = (Shelf::new(), Shelf::new());
    near.break_(true);
    let blobs = lazy(&near, &far);
    let digest = blobs.put(Bytes::from_static(b"abc")).await.expect("works").digest;
    assert_eq!(drain(&blobs, &digest, 1..9).await.0, b"bc");
    let mut writer = blobs.writer().await.expect("works");
    writer.write(Bytes::from_static(b"abcd")).await.expect("works");
    assert_eq!(writer.finish().await.expect("works"), (Digest::of(b"abcd"), 4));
    blobs.sync().await.expect("works");

    let directories = CachedDirectories::new(near.stores().directories, far.stores().directories);
    let all = closure("x", SizeRule::Documented);
    let mut putter = directories.put_closure().await.expect("works");
    for directory in all.clone() {
        putter.put(directory).await.expect("works");
    }
    assert_eq!(putter.finish().await.expect("works"), all[2].digest());
    assert_eq!(collect(&directories, &all[2].digest()).await.expect("works").len(), 3);

    let path_infos = CachedPathInfos::new(near.clone(), far.clone());
    let put = path_infos.put(path_info(1, "one", link())).await.expect("works");
    assert_eq!(path_infos.get(&[1; 20].into()).await.expect("works"), Some(put));
}

#[tokio::test]
async fn absent_and_broken_are_never_remembered() {
    let (near, far) = (Shelf::new(), Shelf::new());
    let blobs = lazy(&near, &far);
    let cached = CachedPathInfos::new(near.clone(), far.clone());
    let path_infos = LruPathInfos::new(Arc::new(cached), 100);
    let cached = CachedDirectories::new(near.stores().directories, far.stores().directories);
    let directories = LruDirectories::new(Arc::new(cached), 1 << 20);
    let [leaf, ..] = closure("x", SizeRule::Documented);
    let (digest, info) = (Digest::of(b"late"), path_info(1, "one", link()));
    for broken in [false, true] {
        far.break_(broken);
        assert_eq!(read_all(&blobs, &digest, 9).await.is_err(), broken);
        assert_eq!(directories.get(&leaf.digest()).await.is_err(), broken);
        assert_eq!(path_infos.get(&[1; 20].into()).await.is_err(), broken);
    }
    far.break_(false);
    far.stores().blobs.put(Bytes::from_static(b"late")).await.expect("works");
    far.stores().directories.put(leaf.clone()).await.expect("works");
    far.put(info.clone()).await.expect("works");
    assert!(read_all(&blobs, &digest, 9).await.expect("works").is_some());
    assert_eq!(directories.get(&leaf.digest()).await.expect("works"), Some(leaf));
    assert_eq!(path_infos.get(&[1; 20].into()).await.expect("works"), Some(info));
}

#[tokio::test]
async fn a_closure_that_passes_is_near_and_in_memory_afterwards() {
    let (near, far) = (Shelf::new(), Shelf::new());
    let cached = CachedDirectories::new(near.stores().directories, far.stores().directories);
    let directories = LruDirectories::new(Arc::new(cached), 1 << 20);
    let all = closure("x", SizeRule::Doubled);
    for directory in all.clone() {
        far.stores().directories.put(directory).await.expect("works");
    }
    let root = all[2].digest();
    assert_eq!(collect(&directories, &root).await.expect("works").len(), 3);
    assert_eq!(near.directories.lock().len(), 3);
    near.break_(true);
    far.break_(true);
    for directory in &all {
        let got = directories.get(&directory.digest()).await.expect("is in memory");
        assert_eq!(got.as_ref(), Some(directory));
    }
}

#[tokio::test]
async fn a_closure_that_is_cut_short_is_not_kept_near() {
    let (near, far) = (Shelf::new(), Shelf::new());
    let verified = VerifiedDirectories::new("far", far.stores().directories);
    let cache = CachedDirectories::new(near.stores().directories, Arc::new(verified));
    let [_, middle, root] = closure("x", SizeRule::Documented);
    for directory in [&middle, &root] {
        far.stores().directories.put(directory.clone()).await.expect("works");
    }
    assert!(collect(&cache, &root.digest()).await.is_err());
    assert!(near.directories.lock().is_empty());
}

#[tokio::test]
async fn metrics_count_calls_absences_errors_and_bytes() {
    let shelf = Shelf::new();
    let counters = Arc::new(BlobCounters::default());
    let blobs = MeasuredBlobs::new(
        shelf.stores().blobs,
        counters.clone(),
        Backend::new("test", Phase::Disk),
    );
    let digest = blobs.put(Bytes::from_static(b"abc")).await.expect("works").digest;
    assert_eq!(read_all(&blobs, &digest, 9).await.expect("works").expect("is there"), "abc");
    assert!(read_all(&blobs, &Digest::of(b"other"), 9).await.expect("works").is_none());
    shelf.break_(true);
    assert!(read_all(&blobs, &digest, 9).await.is_err());
    let counts = |name| {
        let operations = counters.operations();
        operations.iter().find(|operation| operation.name() == name).expect("exists").counts()
    };
    assert_eq!(counts("put"), Counts { calls: 1, bytes: 3, ..Counts::default() });
    assert_eq!(counts("read"), Counts { calls: 3, absent: 1, errors: 1, bytes: 3 });
}
