use futures::StreamExt as _;

use super::*;
use crate::{
    castore::Chunk,
    service::{
        Error,
        blob::read_all,
        bucket::{Counted, Kind, compress},
    },
};

fn noise(seed: u64, len: usize) -> Bytes {
    let mut bytes = vec![0; len];
    blake3::Hasher::new().update(&seed.to_le_bytes()).finalize_xof().fill(&mut bytes);
    bytes.into()
}

async fn write(blobs: &BucketBlobs, contents: &Bytes) -> Digest {
    let mut writer = blobs.writer().await.expect("it works");
    let mut rest = contents.clone();
    while !rest.is_empty() {
        writer.write(rest.split_to(rest.len().min(1 << 20))).await.expect("it works");
    }
    writer.finish().await.expect("it works").0
}

/// What comes of a range, and the error that it ends with.
async fn read(
    blobs: &BucketBlobs,
    digest: &Digest,
    size: u64,
    range: Range<u64>,
) -> (Vec<u8>, Option<Error>) {
    let mut pieces = match blobs.read_sized(digest, size, range).await {
        Ok(pieces) => pieces.expect("it is there"),
        Err(error) => return (Vec::new(), Some(error)),
    };
    let mut all = Vec::new();
    while let Some(piece) = pieces.next().await {
        match piece {
            Ok(piece) => all.extend_from_slice(&piece),
            Err(error) => return (all, Some(error)),
        }
    }
    (all, None)
}

#[tokio::test]
async fn a_short_blob_is_one_object_and_one_request_either_way() {
    let (store, bucket) = Counted::bucket();
    let contents = noise(1, 100_000);
    let digest = BucketBlobs::new(bucket).put(contents.clone()).await.expect("it works").digest;
    // The question comes before anything is known.
    let asked = store.asked();
    assert_eq!((asked.heads, asked.puts), (1, 1));
    let blobs = BucketBlobs::new(store.again());
    for _ in 0..2 {
        let found = read_all(&blobs, &digest, 1 << 20).await.expect("it works");
        assert_eq!(found, Some(contents.clone()));
    }
    assert_eq!(store.asked().requests(), 1, "the second time it is in memory");
}

#[tokio::test]
async fn what_is_put_again_costs_nothing_or_a_question() {
    let (store, bucket) = Counted::bucket();
    let blobs = BucketBlobs::new(bucket);
    let contents = noise(2, 3_000_000);
    let digest = write(&blobs, &contents).await;
    let first = store.asked();
    assert!(first.put_bytes > 3_000_000);
    write(&blobs, &contents).await;
    assert_eq!(store.asked().requests(), 1, "the list is tried");
    write(&BucketBlobs::new(store.again()), &contents).await;
    let again = store.asked();
    assert!(again.put_bytes < 1000 && again.requests() <= first.puts, "{again:?}");
    assert_eq!(digest, Digest::of(&contents));
}

#[tokio::test]
async fn a_store_that_only_replaces_is_asked_first() {
    let (store, bucket) = Counted::without_create();
    let blobs = BucketBlobs::new(bucket);
    for (number, is_new) in [(3, true), (4, true), (3, false)] {
        let put = blobs.put(noise(number, 700_000)).await.expect("it works");
        assert_eq!(put.is_new, is_new);
    }
    store.asked();
    let put = BucketBlobs::new(store.again()).put(noise(4, 100_000)).await.expect("it works");
    assert!(put.is_new);
    let asked = store.asked();
    assert_eq!((asked.heads, asked.puts), (1, 1));
}

#[tokio::test]
async fn a_range_of_what_was_proven_reads_the_chunks_that_it_touches() {
    let (store, bucket) = Counted::bucket();
    let contents = noise(5, 64 << 20);
    let size = contents.len() as u64;
    let digest = write(&BucketBlobs::new(bucket), &contents).await;
    let blobs = BucketBlobs::new(store.again());
    store.asked();
    let chunks = blobs.chunks_sized(&digest, size).await.expect("it works").expect("there");
    assert_eq!(store.asked().gets, 1);
    let (all, error) = read(&blobs, &digest, size, 0..size).await;
    assert!(error.is_none() && all == contents);
    assert_eq!(store.asked().gets, chunks.chunks().len() as u64);
    // What was read last is in memory; this was read first.
    let (some, error) = read(&blobs, &digest, size, 1000..2000).await;
    assert!(error.is_none() && some == contents[1000..2000]);
    assert_eq!(store.asked().gets, 1);
    let chunk = blobs.has(&chunks.chunks()[7].digest).await.expect("it works");
    assert!(chunk, "a chunk is a blob");
}

#[tokio::test]
async fn nothing_of_a_blob_is_released_before_it_is_proven() {
    let (store, bucket) = Counted::bucket();
    let honest = BucketBlobs::new(bucket.clone());
    let (right, wrong) = (noise(6, 3_000_000), noise(7, 3_000_000));
    let digest = write(&honest, &right).await;
    let other = write(&honest, &wrong).await;
    let true_list = honest.chunks(&digest).await.expect("it works").expect("it is there");
    let list = honest.chunks(&other).await.expect("it works").expect("it is there");
    store.place(&bucket, Kind::Blob, digest.as_bytes(), lists::encode(list.chunks()).into()).await;
    let blobs = BucketBlobs::new(store.again());
    let (some, error) = read(&blobs, &digest, 3_000_000, 5..100).await;
    assert!(some.is_empty() && matches!(error, Some(Error::Corrupt { .. })), "{error:?}");
    let (most, error) = read(&blobs, &digest, 3_000_000, 0..3_000_000).await;
    let error = error.expect("it is wrong").to_string();
    assert!(most.len() < 3_000_000 && error.contains("make up"), "{error}");
    // Once the list is right, so is the blob.
    let list = lists::encode(true_list.chunks());
    store.place(&bucket, Kind::Blob, digest.as_bytes(), list.into()).await;
    let (all, error) = read(&blobs, &digest, 3_000_000, 0..3_000_000).await;
    assert!(error.is_none() && all == right, "{error:?}");
}

#[tokio::test]
async fn damage_is_corrupt_and_never_absent() {
    let (store, bucket) = Counted::bucket();
    let contents = noise(8, 2_000_000);
    let honest = BucketBlobs::new(bucket.clone());
    let digest = write(&honest, &contents).await;
    let list = honest.chunks(&digest).await.expect("it works").expect("it is there");
    let chunk = list.chunks()[2];
    let bomb = zstd::encode_all(std::io::Read::take(std::io::repeat(0), 1 << 30), 3);
    let place = |kind, key: Digest, object: Vec<u8>| {
        let (store, bucket) = (store.clone(), bucket.clone());
        async move { store.place(&bucket, kind, key.as_bytes(), object).await }
    };
    let whole = |list: &[Chunk]| Vec::from(lists::encode(list));
    for (what, kind, key, object) in [
        ("no frame", Kind::Chunk, chunk.digest, b"no frame".to_vec()),
        ("more than", Kind::Chunk, chunk.digest, bomb.expect("a frame")),
        ("has the contents of", Kind::Chunk, chunk.digest, compress(b"other").expect("x").into()),
        ("more than", Kind::Chunk, chunk.digest, vec![0; 1 << 20]),
        ("the list of blob", Kind::Blob, digest, b"no list".to_vec()),
        ("more than", Kind::Blob, digest, whole(&[Chunk { size: 1 << 40, ..chunk }; 2])),
        ("more than 1031", Kind::Blob, digest, whole(&[Chunk { size: 7, ..chunk }; 2])),
        (
            "is missing",
            Kind::Blob,
            digest,
            whole(&[Chunk { digest: Digest::of(b"?"), ..chunk }; 2]),
        ),
        ("which is not there", Kind::Blob, digest, Vec::new()),
    ] {
        place(kind, key, object).await;
        let (_, error) = read(&BucketBlobs::new(store.again()), &digest, 100, 0..2_000_000).await;
        let error = error.expect(what);
        let expected = if what == "no frame" { "chunk blake3-" } else { what };
        let text = error.to_string();
        assert!(matches!(error, Error::Corrupt { .. }) && text.contains(expected), "{text}");
        let good = contents.slice(..);
        place(Kind::Blob, digest, whole(list.chunks())).await;
        let start: u64 = list.chunks()[..2].iter().map(|chunk| chunk.size).sum();
        let good = good.slice(start as usize..(start + chunk.size) as usize);
        place(Kind::Chunk, chunk.digest, compress(&good).expect("x").into()).await;
    }
    let (all, error) = read(&BucketBlobs::new(store.again()), &digest, 100, 0..2_000_000).await;
    assert!(error.is_none() && all == contents, "{error:?}");
}

#[tokio::test]
async fn an_upload_costs_a_request_a_chunk_and_what_is_there_is_not_sent_again() {
    let (store, bucket) = Counted::bucket();
    let files: Vec<Bytes> = (0..1000).map(|n| noise(n, 20_000 + n as usize * 97)).collect();
    let fresh = BucketBlobs::new(bucket);
    for group in files.chunks(64) {
        fresh.put_all(group.to_vec()).await.expect("it works");
    }
    let asked = store.asked();
    assert!(asked.requests() <= 1050, "{asked:?}");
    // Of another tree nine files of ten are the same.
    let changed: Vec<Bytes> = files
        .iter()
        .enumerate()
        .map(
            |(n, file)| if n % 10 == 3 { noise(n as u64 + 5000, file.len()) } else { file.clone() },
        )
        .collect();
    let total: usize = changed.iter().map(Bytes::len).sum();
    let again = BucketBlobs::new(store.again());
    for group in changed.chunks(64) {
        again.put_all(group.to_vec()).await.expect("it works");
    }
    let asked = store.asked();
    assert!(asked.put_bytes as usize <= total * 12 / 100, "{asked:?} of {total}");
}
