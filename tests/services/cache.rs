//! What a cache promises besides: its bound, what goes and what stays, and that damage reaches nobody.

use std::{
    fs,
    os::unix::fs::{FileExt as _, MetadataExt as _},
    path::{Path, PathBuf},
    sync::Arc,
};

use bytes::Bytes;
use futures::StreamExt as _;
use lazystore::{
    castore::{Digest, Directory, Name, Node, SizeRule},
    service::{
        Stores,
        blob::read_all,
        local::{LocalStore, PACKED_LEN_MAX},
    },
};
use tempfile::TempDir;

use crate::{
    local::{path_info, path_info_digest},
    stacks::{cached, local, memory, open_cache},
    support::{SmallDisk, can_mount, drop_kernel_caches, have_program, noise, wait_until},
};

const MIB: u64 = 1 << 20;

/// A cache in `folder` before a store in memory.
fn before_memory(folder: &TempDir, size_max: u64) -> (Arc<LocalStore>, Stores, Stores) {
    let (cache, far) = (open_cache(folder, size_max), memory());
    let stores = cached(local(cache.clone()), Some(cache.clone()), far.clone());
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
        let stores = cached(local(cache.clone()), Some(cache.clone()), far.clone());
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
    tokio::time::sleep(std::time::Duration::from_secs(1)).await;
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
    let stores_of_two = cached(local(two.clone()), Some(two.clone()), far.clone());
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
    for round in 0..10 {
        let (cache, again) = (open_cache(&folder, 256 * MIB), open_cache(&folder, 256 * MIB));
        let stores = cached(local(cache.clone()), Some(cache.clone()), far.clone());
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
        let other = cached(local(again.clone()), Some(again), far.clone());
        for seed in 0..120 {
            assert_reads(&stores, seed).await;
            assert_reads(&other, seed).await;
        }
        assert!(is_near(&cache, 0).await, "it was fetched again");
    }
}

/// A chain of directories: the innermost first.
fn chain() -> Vec<Arc<Directory>> {
    let mut all: Vec<Arc<Directory>> = Vec::new();
    for level in 0..50 {
        let mut builder = Directory::builder();
        let digest = Digest::of(&noise(level, 10));
        let file = Node::File { digest, size: 10, executable: level % 2 == 0 };
        builder.add(Name::try_from("file").expect("legal"), file);
        if let Some(inner) = all.last() {
            builder.add(Name::try_from("inner").expect("legal"), inner.node(SizeRule::Documented));
        }
        all.push(Arc::new(builder.build().expect("legal")));
    }
    all
}

#[tokio::test]
async fn a_database_with_flipped_bits_misleads_nobody() {
    let folder = tempfile::tempdir().expect("a folder");
    let far = memory();
    put_far(&far, 100..160).await;
    let chain = chain();
    let mut putter = far.directories.put_closure().await.expect("it works");
    for directory in &chain {
        putter.put(directory.clone()).await.expect("it works");
    }
    let root = putter.finish().await.expect("it works");
    let expected = path_info(chain[49].node(SizeRule::Documented));
    far.path_infos.put(expected.clone()).await.expect("it works");
    let mut begun_anew = 0;
    for round in 0..20 {
        {
            let cache = open_cache(&folder, 64 * MIB);
            let stores = cached(local(cache.clone()), Some(cache), far.clone());
            let found = stores.path_infos.get(&path_info_digest()).await.expect("it works");
            assert_eq!(found.as_ref(), Some(&expected));
            let closure = stores.directories.get_closure(&root).await.expect("it works");
            let found: Vec<_> = closure.expect("it is there").collect().await;
            let found: Vec<_> = found.into_iter().map(|found| found.expect("it reads")).collect();
            assert!(found.iter().eq(chain.iter().rev()), "round {round}");
            for seed in 100..160 {
                assert_reads(&stores, seed).await;
            }
        }
        let database: Vec<_> = files(&folder.path().join("cache"))
            .into_iter()
            .filter(|(path, _)| path.to_string_lossy().contains("/meta.sqlite"))
            .collect();
        begun_anew +=
            usize::from(database.iter().any(|(path, _)| path.ends_with("meta.sqlite.damaged")));
        let database: Vec<_> = database
            .into_iter()
            .filter(|(path, _)| !path.ends_with("meta.sqlite.damaged"))
            .collect();
        flip(&database, round, 1 + round as usize * 10);
    }
    assert!(begun_anew > 0, "no damage was noticed by the database itself");
}

/// Makes the file as long as its disk allows.
fn fill(filler: &Path) {
    use std::io::Write as _;
    let mut filler = fs::File::create(filler).expect("new");
    while filler.write_all(&[1; 1 << 16]).is_ok() {}
    while filler.write_all(&[1; 1]).is_ok() {}
}

#[tokio::test]
async fn a_full_disk_makes_a_cache_smaller_and_harms_no_reader() {
    if !can_mount() {
        return;
    }
    let disk = SmallDisk::new(c"size=12m");
    let (cache, stores, far) = before_memory(disk.folder(), 1 << 30);
    put_far(&far, 0..200).await;
    for seed in 0..200 {
        assert_reads(&stores, seed).await;
    }
    let mut near = 0;
    for seed in 0..200 {
        near += usize::from(is_near(&cache, seed).await);
    }
    assert!(near > 10, "it is used all the same: {near}");
    // Somebody else takes all that is left.
    fill(&disk.path().join("filler"));
    for seed in (0..200).rev() {
        assert_reads(&stores, seed).await;
    }
}

#[tokio::test]
async fn a_broken_disk_makes_a_cache_useless_and_harms_no_reader() {
    if !can_mount() || !have_program("mkfs.ext4") || !have_program("mount") {
        return;
    }
    let below = SmallDisk::new(c"size=128m");
    let image = below.path().join("image");
    let disk = SmallDisk::ext4(&image, 96 << 20);
    let (cache, stores, far) = before_memory(disk.folder(), 64 * MIB);
    put_far(&far, 0..100).await;
    for seed in 0..100 {
        assert_reads(&stores, seed).await;
    }
    stores.blobs.sync().await.expect("it works");
    let blob = cache.open_blob(&Digest::of(&contents(0))).expect("it works").expect("near");
    rustix::fs::sync();
    // From here on the disk neither reads nor writes; only its beginning does.
    fs::File::options().write(true).open(&image).expect("ours").set_len(1 << 20).expect("ours");
    fill(&below.path().join("filler"));
    drop_kernel_caches();
    let broken = blob.read_exact_at(&mut vec![0; len(0)], 0);
    assert!(broken.is_err(), "the disk is not broken enough");
    for _ in 0..3 {
        for seed in 0..100 {
            assert_reads(&stores, seed).await;
        }
        // What was written in the meantime is lost, and what was kept in memory gone.
        rustix::fs::sync();
        drop_kernel_caches();
    }
    drop((blob, cache, stores));
    // Nor does it harm one that begins now, if it can begin.
    if let Ok(cache) = LocalStore::open_cache(&disk.path().join("cache"), Some(64 * MIB)) {
        let stores = cached(local(cache.clone()), Some(cache), far);
        for seed in 0..100 {
            assert_reads(&stores, seed).await;
        }
    }
}
