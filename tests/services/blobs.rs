//! How every blob service behaves.

use bytes::Bytes;
use futures::TryStreamExt as _;
use lazystore::{
    castore::{
        Digest,
        outboard::{PieceCheck, Tree},
    },
    service::blob::{BLOB_PIECE_LEN_MAX, BlobService, Proven, Put, SMALL_BLOB_LEN_MAX, read_all},
};

use crate::{on_every_stack, support::noise};

async fn read(blobs: &dyn BlobService, digest: &Digest, range: std::ops::Range<u64>) -> Vec<u8> {
    let stream = blobs.read(digest, range).await.expect("it works").expect("it is there");
    let pieces: Vec<Bytes> = stream.try_collect().await.expect("it reads");
    assert!(pieces.iter().all(|piece| piece.len() <= BLOB_PIECE_LEN_MAX && !piece.is_empty()));
    pieces.concat()
}

#[test]
fn the_empty_blob_is_always_there() {
    on_every_stack(|built| async move {
        let blobs = &*built.stores.blobs;
        assert!(blobs.has(&Digest::EMPTY).await.expect("it works"));
        assert_eq!(read(blobs, &Digest::EMPTY, 0..100).await, b"");
        assert!(blobs.chunks(&Digest::EMPTY).await.expect("it works").is_some());
        assert_eq!(blobs.put(Bytes::new()).await.expect("it works").digest, Digest::EMPTY);
        let writer = blobs.writer().await.expect("it works");
        assert_eq!(writer.finish().await.expect("it works"), (Digest::EMPTY, 0));
    });
}

#[test]
fn what_is_absent_is_none_and_no_error() {
    on_every_stack(|built| async move {
        let blobs = &*built.stores.blobs;
        let absent = Digest::of(b"absent");
        assert!(!blobs.has(&absent).await.expect("it works"));
        assert!(blobs.read(&absent, 0..10).await.expect("it works").is_none());
        assert!(blobs.chunks(&absent).await.expect("it works").is_none());
        assert!(blobs.open_local(&absent).expect("it works").is_none());
        assert!(read_all(blobs, &absent, 10).await.expect("it works").is_none());
    });
}

#[test]
fn what_was_put_is_read_back_in_any_range() {
    on_every_stack(|built| async move {
        let blobs = &*built.stores.blobs;
        // On both sides of the length from which the local store gives a blob a file of its own.
        for (seed, len) in [(1, 300_000), (2, 65_537), (3, 65_536), (4, 5_000)] {
            let contents = noise(seed, len);
            let digest = blobs.put(contents.clone().into()).await.expect("it works").digest;
            assert_eq!(digest, Digest::of(&contents));
            assert!(blobs.has(&digest).await.expect("it works"));
            assert!(blobs.chunks(&digest).await.expect("it works").is_some());
            let len = contents.len() as u64;
            let ranges = [
                0..len,
                0..1,
                1..2,
                4095..4097,
                len - 1..len,
                len - 1..len + 1000,
                0..u64::MAX,
                5..5,
            ];
            for range in ranges {
                let end = range.end.min(len) as usize;
                let expected = &contents[range.start as usize..end];
                assert_eq!(read(blobs, &digest, range.clone()).await, expected, "{range:?}");
            }
            for range in [len..len + 1, len + 5..len + 9, u64::MAX - 1..u64::MAX] {
                assert_eq!(read(blobs, &digest, range.clone()).await, b"", "{range:?}");
            }
            let whole = read_all(blobs, &digest, contents.len()).await.expect("it works");
            assert_eq!(whole.as_deref(), Some(&contents[..]));
            assert!(read_all(blobs, &digest, contents.len() - 1).await.is_err());
        }
    });
}

#[test]
fn ranges_come_with_their_proof_where_there_is_one() {
    on_every_stack(|built| async move {
        let blobs = &*built.stores.blobs;
        // On both sides of the lengths from which a blob has a file and its tree is kept.
        for (seed, len) in [(1, 5_000_003), (2, 300_000), (3, 16_384), (4, 5)] {
            let contents = noise(seed, len);
            let digest = Digest::of(&contents);
            let absent = blobs.read_proven(&digest, 0..1).await.expect("it works");
            assert!(matches!(absent, None | Some(Proven::Lacking)), "{absent:?}");
            let mut writer = blobs.writer().await.expect("it works");
            writer.write(contents.clone().into()).await.expect("it works");
            writer.finish().await.expect("it works");
            let size = len as u64;
            for range in [0..1, size / 2..size / 2 + 70_000, size - 1..size, size + 5..size + 6] {
                let proven = blobs.read_proven(&digest, range.clone()).await.expect("it works");
                let Proven::Range { size: said, pieces } = proven.expect("it is there") else {
                    assert!(built.stack.proves_nothing(), "{:?} proves nothing", built.stack);
                    continue;
                };
                assert_eq!(said, size);
                let tree = Tree::new(size);
                let mut check = PieceCheck::new(&digest, tree, tree.groups_of(&range));
                let bytes = tree.bytes_of(&check.left());
                let mut got = Vec::new();
                for piece in pieces.try_collect::<Vec<_>>().await.expect("it reads") {
                    check.take(&piece.nodes, &piece.data, |_, _| {}).expect("it is right");
                    got.extend_from_slice(&piece.data);
                }
                assert_eq!(got, contents[bytes.start as usize..bytes.end as usize], "{range:?}");
            }
        }
        let proven = blobs.read_proven(&Digest::EMPTY, 0..10).await.expect("it works");
        let is_proven = matches!(proven, Some(Proven::Range { size: 0, .. }));
        assert!(is_proven || built.stack.proves_nothing(), "{proven:?}");
    });
}

#[test]
fn only_the_first_put_is_new() {
    on_every_stack(|built| async move {
        let blobs = &*built.stores.blobs;
        for contents in [noise(6, 100), noise(7, 100_000)] {
            for is_new in [true, false, false] {
                let put = blobs.put(contents.clone().into()).await.expect("it works");
                assert_eq!(put, Put { digest: Digest::of(&contents), is_new });
                blobs.sync().await.expect("it works");
            }
        }
        let empty = blobs.put(Bytes::new()).await.expect("it works");
        assert!(!empty.is_new);
    });
}

#[test]
fn a_blob_is_written_in_pieces_of_any_size() {
    on_every_stack(|built| async move {
        let blobs = &*built.stores.blobs;
        let contents = Bytes::from(noise(2, 5_000_003));
        let pieces = [(5_000_003, 1_000_001), (5_000_003, 65_536), (5_000_003, SMALL_BLOB_LEN_MAX)];
        for (len, piece_len) in pieces.into_iter().chain([
            (5_000_003, 5_000_003),
            (65_537, 1_000),
            (65_536, 7_000),
            (3, 1),
        ]) {
            let contents = contents.slice(..len);
            let mut writer = blobs.writer().await.expect("it works");
            let mut rest = contents.clone();
            while !rest.is_empty() {
                let piece = rest.split_to(piece_len.min(rest.len()));
                writer.write(piece).await.expect("it works");
                writer.write(Bytes::new()).await.expect("nothing is nothing");
            }
            let written = writer.finish().await.expect("it works");
            assert_eq!(written, (Digest::of(&contents), contents.len() as u64));
        }
        let digest = Digest::of(&contents);
        assert_eq!(read(blobs, &digest, 0..u64::MAX).await, contents);
        assert_eq!(
            read(blobs, &digest, 3_000_000..3_000_010).await,
            contents[3_000_000..3_000_010]
        );
    });
}

#[test]
fn a_writer_that_is_dropped_leaves_nothing() {
    on_every_stack(|built| async move {
        let blobs = &*built.stores.blobs;
        let contents = Bytes::from(noise(3, 100_000));
        let mut writer = blobs.writer().await.expect("it works");
        writer.write(contents.clone()).await.expect("it works");
        drop(writer);
        // A server learns of it a moment later, and must not take it for the end.
        tokio::time::sleep(std::time::Duration::from_millis(50)).await;
        assert!(!blobs.has(&Digest::of(&contents)).await.expect("it works"));
    });
}

#[test]
fn many_may_put_the_same_at_once() {
    on_every_stack(|built| async move {
        let all = [Bytes::from(noise(4, 200_000)), Bytes::from(noise(5, 1_000))];
        let mut tasks = Vec::new();
        for number in 0..32 {
            let (blobs, contents) = (built.stores.blobs.clone(), all[number / 16].clone());
            tasks.push(tokio::spawn(async move {
                if number % 2 == 0 {
                    return blobs.put(contents).await.expect("it works").digest;
                }
                let mut writer = blobs.writer().await.expect("it works");
                writer.write(contents).await.expect("it works");
                writer.finish().await.expect("it works").0
            }));
        }
        for (number, task) in tasks.into_iter().enumerate() {
            assert_eq!(task.await.expect("no panic"), Digest::of(&all[number / 16]));
        }
        for synced in [false, true] {
            for contents in &all {
                let digest = Digest::of(contents);
                let found = read(&*built.stores.blobs, &digest, 0..u64::MAX).await;
                assert!(found == *contents, "{digest} {synced}");
            }
            built.stores.blobs.sync().await.expect("it works");
        }
    });
}

#[test]
fn a_local_file_has_the_contents() {
    on_every_stack(|built| async move {
        let blobs = &*built.stores.blobs;
        for (seed, len) in [(5, 70_000), (6, 60_000), (7, 50_000)] {
            let contents = noise(seed, len);
            let digest = blobs.put(contents.clone().into()).await.expect("it works").digest;
            for _ in 0..2 {
                if let Some(blob) = blobs.open_local(&digest).expect("it works") {
                    assert_eq!(blob.size, len as u64);
                    let mut read = vec![0; len - 10];
                    blob.read_exact_at(&mut read, 10).expect("it reads");
                    assert_eq!(read, contents[10..]);
                }
                blobs.sync().await.expect("it works");
            }
        }
    });
}
