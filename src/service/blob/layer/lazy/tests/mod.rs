//! What is fetched, when, and for whom.

mod chunks;
mod far;

use std::time::Duration;

use futures::{TryStreamExt as _, future::join_all};

use far::{Cache, Far, Mood, cache, cache_of, noise};

use super::*;
use crate::service::{
    Error,
    blob::{backend::LocalBlobs, layer::VerifiedBlobs},
};

const KIB: u64 = 1 << 10;
const MIB: u64 = 1 << 20;

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
