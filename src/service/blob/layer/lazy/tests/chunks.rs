//! Blobs that come by lists of chunks.

use super::*;

#[tokio::test]
async fn believed_chunks_come_one_by_one_and_the_whole_is_checked_at_the_end() {
    let (dir, far) = (tempfile::tempdir().expect("a folder"), Far::new(false));
    let contents = noise(13, 4 * MIB + 77);
    let (digest, _) = far.put_chunked(&contents, 200_000).await;
    let first = cache(&dir, &far);
    first.expect(&contents, MIB..MIB + 10).await;
    assert_eq!(far.spent(), (2, 200_000), "the list and a chunk");
    first.expect(&contents, MIB + 20..MIB + 30).await;
    assert_eq!(far.spent(), (0, 0));
    drop(first);
    let second = cache(&dir, &far);
    // The part that is wanted before the list is known is fetched again.
    second.expect(&contents, 2 * MIB..2 * MIB + 10).await;
    second.expect(&contents, MIB..MIB + 10).await;
    assert_eq!(far.spent(), (2, 200_000));
    second.expect_all(&contents, 300 * KIB).await;
    let (_, bytes) = far.spent();
    assert!(bytes <= contents.len() as u64, "{bytes}");
    soon("it is adopted", || second.blobs.open_local(&digest).expect("works").is_some()).await;
    assert!(second.store.blobs().open_outboard(&digest).expect("works").is_some());
}

#[tokio::test]
async fn of_a_store_that_is_not_believed_nothing_is_read_before_all_is_checked() {
    let (dir, far) = (tempfile::tempdir().expect("a folder"), Far::new(false));
    let contents = noise(14, 4 * MIB);
    let (digest, mut chunks) = far.put_chunked(&contents, 300_000).await;
    chunks.swap(0, 1);
    far.list(digest, chunks);
    let strict = cache_of(&dir, &far, Verify::Strict, 1 << 30);
    strict.expect(&contents, 5..10).await;
    let (requests, bytes) = far.spent();
    assert_eq!((requests, bytes), (1, 4 * MIB), "the whole, without the list");
    far.be(Mood::Broken);
    strict.expect(&contents, MIB..2 * MIB).await;
}

#[tokio::test]
async fn a_wrong_list_of_chunks_is_found_out_and_its_source_believed_no_more() {
    let (dir, far) = (tempfile::tempdir().expect("a folder"), Far::new(false));
    let (one, two) = (noise(15, 2 * MIB), noise(16, 2 * MIB));
    let (digest, mut chunks) = far.put_chunked(&one, 300_000).await;
    far.put_chunked(&two, 300_000).await;
    chunks.swap(0, 1);
    far.list(digest, chunks);
    let cache = cache(&dir, &far);
    // Nobody gets all of it without an error.
    let mut error = None;
    for part in 0..8 {
        let range = part * 256 * KIB..(part + 1) * 256 * KIB;
        if let Err(wrong) = cache.try_read(&digest, 2 * MIB, range).await {
            error = Some(wrong);
            break;
        }
    }
    let error = error.expect("it is found out");
    assert!(matches!(error, Error::Corrupt { .. }), "{error}");
    assert!(cache.blobs.open_local(&digest).expect("works").is_none());
    far.spent();
    cache.expect_all(&one, 256 * KIB).await;
    assert_eq!(far.spent(), (1, 2 * MIB), "whole");
    cache.expect(&two, 0..10).await;
    assert_eq!(far.spent(), (1, 2 * MIB), "whole, too");
}

#[tokio::test]
async fn a_chunk_that_is_missing_is_an_error_for_who_wants_it_and_for_nobody_else() {
    let (dir, far) = (tempfile::tempdir().expect("a folder"), Far::new(false));
    let contents = noise(18, 4 * MIB);
    let (digest, mut chunks) = far.put_chunked(&contents, 400_000).await;
    let there = chunks[5];
    chunks[5].digest = Digest::of(b"nobody has this");
    far.list(digest, chunks.clone());
    let cache = cache(&dir, &far);
    cache.expect(&contents, 0..10).await;
    let wanted = 2_000_000..2_000_010;
    let error = cache.try_read(&digest, 4 * MIB, wanted.clone()).await.expect_err("it is missing");
    assert!(!matches!(error, Error::Unavailable { .. }), "{error}");
    cache.expect(&contents, 3_000_000..3_000_010).await;
    // Nothing wrong is remembered by those who come once it is there.
    chunks[5] = there;
    far.list(digest, chunks);
    drop(cache);
    self::cache(&dir, &far).expect(&contents, wanted).await;
}
