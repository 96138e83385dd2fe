//! What a cache promises besides: its bound, what goes and what stays, and that damage reaches nobody.

use std::{
    fs,
    os::unix::fs::{FileExt as _, MetadataExt as _},
    path::{Path, PathBuf},
    sync::Arc,
};

use bytes::Bytes;
use lazystore::{
    castore::Digest,
    service::{
        Stores,
        blob::read_all,
        local::{LocalStore, PACKED_LEN_MAX},
    },
};
use tempfile::TempDir;

use crate::{
    stacks::{cached, local, memory, open_cache},
    support::{SOON, noise, wait_until},
};

const MIB: u64 = 1 << 20;

/// A cache in `folder` before a store in memory.
fn before_memory(folder: &TempDir, size_max: u64) -> (Arc<LocalStore>, Stores, Stores) {
    let (cache, far) = (open_cache(folder, size_max), memory());
    let stores = cached(local(cache.clone()), far.clone());
    (cache, stores, far)
}

/// All files below a directory, with the bytes of disk they take.
fn files(dir: &Path) -> Vec<(PathBuf, u64)> {
    let mut found = Vec::new();
    let Ok(entries) = fs::read_dir(dir) else { return found };
    for entry in entries.flatten() {
        let path = entry.path();
        // What goes meanwhile does not count.
        match entry.metadata() {
            Ok(metadata) if metadata.is_dir() => found.extend(files(&path)),
            Ok(metadata) => found.push((path, metadata.blocks() * 512)),
            Err(_) => {}
        }
    }
    found
}

fn taken(folder: &TempDir) -> u64 {
    files(&folder.path().join("cache")).iter().map(|(_, bytes)| bytes).sum()
}

/// Lengths around where something changes: packed and not, from small to large.
fn len(seed: u64) -> usize {
    match seed % 8 {
        0 => 1_500_000,
        1 => PACKED_LEN_MAX + 1,
        2 => 300_000,
        3 => PACKED_LEN_MAX,
        other => other as usize * 5_000,
    }
}

fn contents(seed: u64) -> Bytes {
    noise(seed, len(seed)).into()
}

async fn put_far(far: &Stores, seeds: std::ops::Range<u64>) {
    for seed in seeds {
        let mut writer = far.blobs.writer().await.expect("it works");
        writer.write(contents(seed)).await.expect("it works");
        writer.finish().await.expect("it works");
    }
}

async fn assert_reads(stores: &Stores, seed: u64) {
    let expected = contents(seed);
    let digest = Digest::of(&expected);
    let found = read_all(&*stores.blobs, &digest, 2 << 20).await.expect("it reads");
    assert!(found.as_ref() == Some(&expected), "blob {seed}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_cache_stays_within_its_bound_while_more_is_read_than_it_holds() {
    let folder = tempfile::tempdir().expect("a folder");
    let size_max = 24 * MIB;
    let (cache, stores, far) = before_memory(&folder, size_max);
    put_far(&far, 0..600).await;
    let readers = (0..4u64).map(|reader| {
        let stores = stores.clone();
        tokio::spawn(async move {
            for step in 0..300 {
                assert_reads(&stores, (step * 7 + reader * 150) % 600).await;
            }
        })
    });
    let readers = tokio::spawn(futures::future::join_all(readers.collect::<Vec<_>>()));
    let mut most = 0;
    while !readers.is_finished() {
        most = most.max(taken(&folder));
        tokio::time::sleep(std::time::Duration::from_millis(2)).await;
    }
    for reader in readers.await.expect("no panic") {
        reader.expect("no panic");
    }
    // A piece of 1 MiB a reader at most, and the database's shared memory.
    assert!(most <= size_max + 4 * MIB, "{most}");
    assert!(most > size_max / 2, "it was used: {most}");
    let counted = cache.bound().expect("a cache").used().expect("it works");
    let (taken, counted) = (taken(&folder) as i64, counted as i64);
    assert!((taken - counted).abs() < MIB as i64, "{taken} are taken, {counted} counted");
}

/// Whether the blob is in the cache.
async fn is_near(cache: &Arc<LocalStore>, seed: u64) -> bool {
    cache.open_blob(&Digest::of(&contents(seed))).expect("it works").is_some()
}

#[tokio::test]
async fn what_is_used_stays_also_over_a_restart_and_what_was_used_longest_ago_goes() {
    let folder = tempfile::tempdir().expect("a folder");
    let far = memory();
    // Long blobs, so that each goes by itself.
    let seeds: Vec<u64> = (0..40).map(|n| n * 8 + 2).collect();
    for seed in &seeds {
        put_far(&far, *seed..*seed + 1).await;
    }
    let favourite = seeds[0];
    for round in seeds[1..].chunks(5) {
        // A new process each time.
        let cache = open_cache(&folder, 16 * MIB);
        let stores = cached(local(cache.clone()), far.clone());
        for seed in round {
            assert_reads(&stores, *seed).await;
            assert_reads(&stores, favourite).await;
            tokio::time::sleep(std::time::Duration::from_millis(2)).await;
        }
    }
    let cache = open_cache(&folder, 16 * MIB);
    cache.evict_to(3 * MIB).expect("it works");
    assert!(is_near(&cache, favourite).await, "it was used all the time");
    assert!(is_near(&cache, seeds[39]).await, "it was used last");
    for seed in &seeds[1..20] {
        assert!(!is_near(&cache, *seed).await, "{seed} was used long ago");
    }
}

#[tokio::test]
async fn what_is_open_is_not_evicted_by_anybody() {
    let folder = tempfile::tempdir().expect("a folder");
    let (cache, stores, far) = before_memory(&folder, 64 * MIB);
    put_far(&far, 0..40).await;
    for seed in 0..40 {
        assert_reads(&stores, seed).await;
    }
    stores.blobs.sync().await.expect("it works");
    let open: Vec<_> = [2, 4, 8]
        .map(|seed| cache.open_blob(&Digest::of(&contents(seed))).expect("it works").expect("near"))
        .into();
    let other = open_cache(&folder, 64 * MIB);
    // The other process finds open what this one keeps open for itself, but only for a moment.
    wait_until("the eviction", || {
        other.evict_to(0).expect("it works");
        taken(&folder) < 6 * MIB
    });
    assert!(!is_near(&other, 0).await && !is_near(&other, 10).await);
    for (seed, blob) in [2, 4, 8].into_iter().zip(open) {
        let mut found = vec![0; len(seed)];
        blob.read_exact_at(&mut found, 0).expect("it reads");
        assert!(found == contents(seed), "{seed}");
    }
    assert!(is_near(&other, 2).await && is_near(&other, 8).await, "they were open");
}

#[tokio::test]
async fn a_cache_that_is_full_of_what_is_open_takes_no_more_and_reading_goes_on() {
    let folder = tempfile::tempdir().expect("a folder");
    let (cache, stores, far) = before_memory(&folder, 16 * MIB);
    put_far(&far, 0..200).await;
    let mut open = Vec::new();
    for seed in (0..200).step_by(8) {
        assert_reads(&stores, seed).await;
        open.extend(cache.open_blob(&Digest::of(&contents(seed))).expect("it works"));
    }
    assert!((8..12).contains(&open.len()), "{}", open.len());
    for seed in 0..200 {
        assert_reads(&stores, seed).await;
    }
    assert!(taken(&folder) <= 17 * MIB);
    // Once it is closed it goes, and there is room again.
    drop(open);
    assert_reads(&stores, 192).await;
    assert!(is_near(&cache, 192).await);
}

#[tokio::test]
async fn a_blob_of_more_than_half_of_the_cache_is_not_kept() {
    let folder = tempfile::tempdir().expect("a folder");
    let (cache, stores, far) = before_memory(&folder, 16 * MIB);
    put_far(&far, 2..3).await;
    assert_reads(&stores, 2).await;
    let large = noise(1, 9 << 20);
    let mut writer = far.blobs.writer().await.expect("it works");
    writer.write(large.clone().into()).await.expect("it works");
    let (digest, _) = writer.finish().await.expect("it works");
    let found = read_all(&*stores.blobs, &digest, 10 << 20).await.expect("it reads");
    assert!(found.as_deref() == Some(&large[..]));
    assert!(cache.open_blob(&digest).expect("it works").is_none());
    assert!(is_near(&cache, 2).await, "it drove out nothing");
}

#[tokio::test]
async fn processes_share_a_cache_and_its_bound() {
    let folder = tempfile::tempdir().expect("a folder");
    let (one, stores_of_one, far) = before_memory(&folder, 24 * MIB);
    let two = open_cache(&folder, 24 * MIB);
    let stores_of_two = cached(local(two.clone()), far.clone());
    put_far(&far, 0..300).await;
    let mut most = 0;
    for seed in 0..300 {
        assert_reads(&stores_of_one, seed).await;
        assert_reads(&stores_of_two, (seed + 13) % 300).await;
        most = most.max(taken(&folder));
    }
    assert!(most <= 25 * MIB, "{most}");
    // What one has brought, the other finds.
    drop((stores_of_one, one));
    let near = futures::future::join_all((250..300).map(|seed| is_near(&two, seed))).await;
    assert!(near.iter().filter(|near| **near).count() > 20);
}

/// Turns over bits at places that `seed` decides.
fn flip(files: &[(PathBuf, u64)], seed: u64, count: usize) {
    let random = noise(seed, count * 16);
    let lens: Vec<u64> =
        files.iter().map(|(path, _)| fs::metadata(path).expect("there").len()).collect();
    let total: u64 = lens.iter().sum();
    for random in random.chunks(16) {
        let mut at = u64::from_le_bytes(random[..8].try_into().expect("8 bytes")) % total;
        let file = lens.iter().position(|len| {
            let here = at < *len;
            at -= if here { 0 } else { *len };
            here
        });
        let file = fs::File::options()
            .read(true)
            .write(true)
            .open(&files[file.expect("below the total")].0)
            .expect("root may write");
        let mut byte = [0];
        file.read_exact_at(&mut byte, at).expect("it reads");
        byte[0] ^= 1 << (random[8] % 8);
        file.write_all_at(&byte, at).expect("it writes");
    }
}

#[tokio::test]
async fn ten_thousand_flipped_bits_reach_no_reader() {
    let folder = tempfile::tempdir().expect("a folder");
    let far = memory();
    put_far(&far, 0..120).await;
    let started = std::time::Instant::now();
    for round in 0..10 {
        let (cache, again) = (open_cache(&folder, 64 * MIB), open_cache(&folder, 64 * MIB));
        let stores = cached(local(cache.clone()), far.clone());
        for seed in 0..120 {
            assert_reads(&stores, seed).await;
        }
        // While it is in use: what is staged, packed, in its place.
        if round % 2 == 0 {
            stores.blobs.sync().await.expect("it works");
        }
        let blobs: Vec<_> = files(&folder.path().join("cache"))
            .into_iter()
            .filter(|(path, _)| {
                let path = path.to_string_lossy();
                ["/blobs/", "/packs/", "/staging/"].iter().any(|part| path.contains(part))
            })
            .collect();
        flip(&blobs, round, 1000);
        let other = cached(local(again), far.clone());
        for seed in 0..120 {
            assert_reads(&stores, seed).await;
            assert_reads(&other, seed).await;
        }
        assert!(is_near(&cache, 0).await, "it was fetched again");
    }
    assert!(started.elapsed() < SOON * 4);
}
