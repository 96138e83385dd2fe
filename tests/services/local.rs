//! What a store directory promises besides: several processes, crashes, damage.

use std::{
    fs,
    io::Write as _,
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
    sync::LazyLock,
};

use bytes::Bytes;
use futures::StreamExt as _;
use lazystore::{
    castore::{
        Digest, Directory, Name, Node,
        outboard::{PieceCheck, Tree},
    },
    nix::{Details, PathInfo, StorePath},
    service::{
        Error, Stores,
        blob::{Proven, read_all},
        local::LocalStore,
    },
};
use tempfile::TempDir;

use crate::{
    stacks::{local, open},
    support::{SmallDisk, noise},
};

/// The contents of a blob that is not packed.
static LONG: LazyLock<Vec<u8>> = LazyLock::new(|| noise(99, 100_000));

pub fn path_info(node: Node) -> PathInfo {
    let store_path = StorePath::from_base_name(b"00000000000000000000000000000000-x");
    PathInfo { store_path: store_path.expect("legal"), node, details: Details::References(vec![]) }
}

pub fn path_info_digest() -> lazystore::nix::StorePathDigest {
    path_info(Node::File { digest: Digest::EMPTY, size: 0, executable: false }).store_path.digest()
}

async fn put_file(stores: &Stores, contents: &[u8]) -> Node {
    let digest = stores.blobs.put(Bytes::copy_from_slice(contents)).await.expect("it works").digest;
    Node::File { digest, size: contents.len() as u64, executable: false }
}

/// Expects that each blob reads back whole.
async fn assert_hold(stores: &Stores, blobs: impl IntoIterator<Item = impl AsRef<[u8]>>) {
    for contents in blobs {
        let digest = Digest::of(contents.as_ref());
        let found = read_all(&*stores.blobs, &digest, 1 << 20).await.expect("it works");
        assert!(found.as_deref() == Some(contents.as_ref()), "{digest}");
    }
}

/// The files below a folder of the store.
fn files(folder: &TempDir, below: &str) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut todo = vec![folder.path().join("store").join(below)];
    while let Some(dir) = todo.pop() {
        for entry in fs::read_dir(dir).expect("it lists").flatten() {
            match entry.file_type().expect("it has one").is_dir() {
                true => todo.push(entry.path()),
                false => found.push(entry.path()),
            }
        }
    }
    found
}

#[tokio::test]
async fn two_processes_share_a_store() {
    let folder = tempfile::tempdir().expect("a folder");
    let (one, two) = (local(open(&folder)), local(open(&folder)));
    let node = put_file(&one, b"shared").await;
    put_file(&one, &LONG).await;
    let digests = [Digest::of(b"shared"), Digest::of(&LONG)];
    for digest in &digests {
        assert!(one.blobs.has(digest).await.expect("it works"), "its own process sees it at once");
        assert!(!two.blobs.has(digest).await.expect("it works"), "it may not be on disk yet");
    }
    one.blobs.sync().await.expect("it works");
    one.path_infos.put(path_info(node.clone())).await.expect("it works");
    for digest in &digests {
        assert!(two.blobs.has(digest).await.expect("it works"));
    }
    let found = two.path_infos.get(&path_info_digest()).await.expect("it works");
    assert_eq!(found.map(|info| info.node), Some(node));
}

#[tokio::test]
async fn long_blobs_are_plain_files_that_nobody_writes() {
    let folder = tempfile::tempdir().expect("a folder");
    let stores = local(open(&folder));
    put_file(&stores, &LONG).await;
    stores.blobs.sync().await.expect("it works");
    let files = files(&folder, "blobs");
    let hex = Digest::of(&LONG).to_hex();
    let expected = folder.path().join("store/blobs").join(&hex[..2]).join(&hex);
    assert_eq!(files, std::slice::from_ref(&expected));
    assert!(fs::read(&expected).expect("it reads") == *LONG);
    let mode = fs::metadata(&expected).expect("there").permissions().mode();
    assert_eq!(mode & 0o222, 0, "{mode:o}");
}

/// Reads a range in the middle with its proof, and expects that it is right.
async fn prove_middle(stores: &Stores, contents: &[u8]) {
    let (digest, size) = (Digest::of(contents), contents.len() as u64);
    let range = size / 2..size / 2 + 500_000;
    let tree = Tree::new(size);
    let mut check = PieceCheck::new(&digest, tree, tree.groups_of(&range));
    let proven = stores.blobs.read_proven(&digest, range).await.expect("it works");
    let Some(Proven::Range { mut pieces, .. }) = proven else { panic!("it proves nothing") };
    while let Some(piece) = pieces.next().await {
        let piece = piece.expect("it reads");
        check.take(&piece.nodes, &piece.data, |_, _| {}).expect("it is right");
    }
    assert!(check.left().is_empty());
}

#[tokio::test]
async fn the_tree_of_a_long_blob_is_kept_and_made_again_where_it_is_damaged_or_missing() {
    let folder = tempfile::tempdir().expect("a folder");
    let stores = local(open(&folder));
    let contents = noise(7, 5_000_000);
    let mut writer = stores.blobs.writer().await.expect("it works");
    writer.write(contents.clone().into()).await.expect("it works");
    writer.finish().await.expect("it works");
    stores.blobs.sync().await.expect("it works");
    let hex = Digest::of(&contents).to_hex();
    let path = folder.path().join(format!("store/blobs/{}/{hex}.outboard", &hex[..2]));
    let tree = fs::read(&path).expect("it was kept when the blob was written");
    assert_eq!(tree.len() as u64, Tree::new(5_000_000).outboard_len());
    prove_middle(&stores, &contents).await;
    for damage in 0..4 {
        let mut damaged = tree.clone();
        match damage {
            0 => damaged[8] ^= 1,
            1 => damaged.truncate(9_000),
            // What the first pieces do not need.
            2 => damaged[11_000..].fill(0),
            _ => damaged.clear(),
        }
        fs::write(&path, &damaged).expect("it writes");
        prove_middle(&stores, &contents).await;
        assert!(fs::read(&path).expect("there") == tree, "{damage}");
    }
    fs::remove_file(&path).expect("there");
    prove_middle(&stores, &contents).await;
    assert!(fs::read(&path).expect("there") == tree);
    assert!(
        stores.blobs.outboard(&Digest::of(&contents), 1 << 20).await.expect("works")
            == Some(tree.into())
    );
}

#[tokio::test]
async fn a_damaged_blob_is_told_and_its_tree_proves_nothing() {
    let folder = tempfile::tempdir().expect("a folder");
    let stores = local(open(&folder));
    let contents = noise(8, 2_000_000);
    let mut writer = stores.blobs.writer().await.expect("it works");
    writer.write(contents.clone().into()).await.expect("it works");
    writer.finish().await.expect("it works");
    stores.blobs.sync().await.expect("it works");
    let hex = Digest::of(&contents).to_hex();
    let blob = folder.path().join(format!("store/blobs/{}/{hex}", &hex[..2]));
    fs::remove_file(blob.with_extension("outboard")).expect("there");
    let mut damaged = contents.clone();
    damaged[1_999_999] ^= 1;
    fs::set_permissions(&blob, fs::Permissions::from_mode(0o644)).expect("ours");
    fs::write(&blob, damaged).expect("it writes");
    let proven = stores.blobs.read_proven(&Digest::of(&contents), 0..1).await;
    assert!(matches!(proven, Err(Error::Corrupt { .. })), "{proven:?}");
}

#[tokio::test]
async fn a_clean_end_leaves_nothing_in_staging() {
    let folder = tempfile::tempdir().expect("a folder");
    let stores = local(open(&folder));
    put_file(&stores, b"kept").await;
    put_file(&stores, &LONG).await;
    let mut writer = stores.blobs.writer().await.expect("it works");
    writer.write(noise(3, 200_000).into()).await.expect("it works");
    drop(writer);
    drop(stores);
    assert_eq!(fs::read_dir(folder.path().join("store/staging")).expect("there").count(), 0);
    assert_eq!(files(&folder, "blobs").len(), 1);
    let stores = local(open(&folder));
    assert!(stores.blobs.has(&Digest::of(b"kept")).await.expect("it works"));
}

/// A store's only pack.
fn pack(folder: &TempDir) -> PathBuf {
    let packs = files(folder, "packs");
    assert_eq!(packs.len(), 1, "{packs:?}");
    packs[0].clone()
}

#[tokio::test]
async fn one_after_another_appends_to_the_same_pack_and_two_at_once_have_one_each() {
    let folder = tempfile::tempdir().expect("a folder");
    for contents in [b"one", b"two"] {
        put_file(&local(open(&folder)), contents).await;
    }
    let one_pack = fs::read(pack(&folder)).expect("it reads");
    assert_eq!(one_pack.len(), 2 * (40 + 3));
    assert_eq!(one_pack[..8], *b"lzb1\x03\0\0\0");
    assert_eq!(one_pack[8..40], *Digest::of(b"one").as_bytes());

    let (first, second) = (local(open(&folder)), local(open(&folder)));
    let contents: Vec<_> = (0..100).map(|seed| noise(seed, 100)).collect();
    for contents in contents.chunks(2) {
        put_file(&first, &contents[0]).await;
        put_file(&second, &contents[1]).await;
    }
    // Both may pack the same.
    put_file(&first, b"same").await;
    put_file(&second, b"same").await;
    second.blobs.sync().await.expect("it works");
    drop((first, second));
    assert_eq!(files(&folder, "packs").len(), 2);
    let stores = local(open(&folder));
    assert_hold(&stores, &contents).await;
    assert_hold(&stores, [&b"one"[..], b"two", b"same"]).await;
}

/// Appends what a process that was killed before it could sync would leave.
fn append(folder: &TempDir, entries: &[(&[u8], &[u8])]) {
    let mut file = fs::File::options().append(true).open(pack(folder)).expect("it opens");
    for (contents, hashed) in entries {
        let mut entry = b"lzb1".to_vec();
        entry.extend_from_slice(&(hashed.len() as u32).to_le_bytes());
        entry.extend_from_slice(Digest::of(hashed).as_bytes());
        entry.extend_from_slice(contents);
        file.write_all(&entry).expect("it writes");
    }
}

#[tokio::test]
async fn the_next_start_enters_what_is_whole_in_a_pack_and_cuts_off_the_rest() {
    let folder = tempfile::tempdir().expect("a folder");
    put_file(&local(open(&folder)), b"known").await;
    let known = fs::metadata(pack(&folder)).expect("there").len();
    append(&folder, &[(b"whole", b"whole"), (b"", b""), (b"cut sh", b"cut short")]);
    let stores = local(open(&folder));
    assert!(stores.blobs.has(&Digest::of(b"whole")).await.expect("it works"));
    assert!(!stores.blobs.has(&Digest::of(b"cut short")).await.expect("it works"));
    assert_eq!(fs::metadata(pack(&folder)).expect("there").len(), known + 40 + 5 + 40);

    for damaged in
        [&[(&b"xxxxx"[..], &b"other"[..])][..], &[], &[(&noise(1, 65_537), &noise(1, 65_537))]]
    {
        append(&folder, damaged);
        let mut file = fs::File::options().append(true).open(pack(&folder)).expect("it opens");
        file.write_all(&[0; 1000]).expect("it writes");
        let stores = local(open(&folder));
        assert_eq!(fs::metadata(pack(&folder)).expect("there").len(), known + 40 + 5 + 40);
        for (_, hashed) in damaged {
            assert!(!stores.blobs.has(&Digest::of(hashed)).await.expect("it works"));
        }
        put_file(&stores, b"known").await;
    }
    put_file(&stores, b"after").await;
    drop(stores);
    let stores = local(open(&folder));
    assert_hold(&stores, [&b"known"[..], b"whole", b"after"]).await;
}

/// A process that was there before the other one died must not write over what that one was told is stored.
#[tokio::test]
async fn what_a_dead_process_packed_is_kept_by_the_living() {
    let folder = tempfile::tempdir().expect("a folder");
    put_file(&local(open(&folder)), b"known").await;
    let living = local(open(&folder));
    append(&folder, &[(b"of the dead", b"of the dead"), (b"cut sh", b"cut short")]);
    put_file(&living, b"of the living").await;
    assert!(living.blobs.has(&Digest::of(b"of the dead")).await.expect("it works"));
    living.blobs.sync().await.expect("it works");
    drop(living);
    let stores = local(open(&folder));
    assert_hold(&stores, [&b"known"[..], b"of the dead", b"of the living"]).await;
}

/// Which blob comes next is told by the pack: the database is asked for the first one only.
#[tokio::test]
async fn packed_blobs_are_read_in_their_order_without_asking_the_database() {
    let folder = tempfile::tempdir().expect("a folder");
    let contents: Vec<_> = (0..20).map(|seed| noise(seed, 1_000 * seed as usize + 1)).collect();
    {
        let stores = local(open(&folder));
        for contents in &contents {
            put_file(&stores, contents).await;
        }
    }
    let stores = local(open(&folder));
    assert_hold(&stores, &contents[..1]).await;
    let database = rusqlite::Connection::open(folder.path().join("store/meta.sqlite"));
    database.expect("it opens").execute("DELETE FROM packed_blobs", []).expect("it works");
    assert_hold(&stores, &contents[1..]).await;
}

#[tokio::test]
async fn a_full_disk_is_told_loses_nothing_and_heals() {
    if !crate::support::can_mount() {
        return;
    }
    let disk = SmallDisk::new(c"size=4m");
    let filler = disk.path().join("filler");
    fs::write(&filler, [0; 1 << 20]).expect("there is room");
    let stores = local(open(disk.folder()));
    let contents = |seed| Bytes::from(noise(seed, 60_000));
    let mut stored = 0;
    let error = loop {
        match stores.blobs.put(contents(stored)).await {
            Ok(_) => stored += 1,
            Err(error) => break error,
        }
    };
    assert!(stored > 10 && error.to_string().contains("No space left"), "{stored}: {error}");
    assert_hold(&stores, (0..stored).map(contents)).await;
    assert!(!stores.blobs.has(&Digest::of(&contents(stored))).await.expect("it works"));

    fs::remove_file(filler).expect("ours");
    stores.blobs.put(contents(stored)).await.expect("there is room again");
    stores.blobs.sync().await.expect("it works");
    drop(stores);
    let stores = local(open(disk.folder()));
    assert_hold(&stores, (0..=stored).map(contents)).await;
}

#[tokio::test]
async fn the_pack_of_a_living_process_is_left_alone() {
    let folder = tempfile::tempdir().expect("a folder");
    let living = local(open(&folder));
    put_file(&living, b"not synced").await;
    let len = fs::metadata(pack(&folder)).expect("there").len();
    let other = local(open(&folder));
    assert!(!other.blobs.has(&Digest::of(b"not synced")).await.expect("it works"));
    assert_eq!(fs::metadata(pack(&folder)).expect("there").len(), len);
    living.blobs.sync().await.expect("it works");
    assert!(other.blobs.has(&Digest::of(b"not synced")).await.expect("it works"));
}

#[tokio::test]
async fn a_pack_that_is_gone_or_short_is_an_error_and_not_an_absent_blob() {
    let folder = tempfile::tempdir().expect("a folder");
    put_file(&local(open(&folder)), b"lost").await;
    let digest = Digest::of(b"lost");
    let contents = fs::read(pack(&folder)).expect("it reads");
    fs::write(pack(&folder), &contents[..contents.len() - 1]).expect("it writes");
    let stores = local(open(&folder));
    let error = read_all(&*stores.blobs, &digest, 100).await.expect_err("short");
    assert!(error.to_string().contains("store"), "{error}");

    fs::remove_file(pack(&folder)).expect("it goes");
    let stores = local(open(&folder));
    let error = read_all(&*stores.blobs, &digest, 100).await.expect_err("gone");
    assert!(error.to_string().contains("packs/00000000.pack, which is gone"), "{error}");
}

/// What a process that was killed leaves: a session whose lock nobody holds.
fn dead_session(folder: &TempDir, files: &[(String, &[u8])]) {
    let session = folder.path().join("store/staging/999-0");
    fs::create_dir_all(&session).expect("new");
    fs::write(session.join("lock"), "").expect("new");
    for (name, contents) in files {
        fs::write(session.join(name), contents).expect("new");
    }
}

#[tokio::test]
async fn the_next_start_keeps_what_is_whole_and_removes_the_rest() {
    let folder = tempfile::tempdir().expect("a folder");
    drop(open(&folder));
    let whole = noise(1, 10_000);
    let (whole_digest, short_digest) = (Digest::of(&whole), Digest::of(b"was cut short"));
    dead_session(
        &folder,
        &[
            (whole_digest.to_hex(), &whole),
            (short_digest.to_hex(), b"was cut"),
            ("tmp-0".to_owned(), b"half"),
            (Digest::of(b"zeros").to_hex(), &[0; 5]),
        ],
    );
    let living = local(open(&folder));
    let node = put_file(&living, b"of a living process").await;
    let stores = local(open(&folder));
    assert!(stores.blobs.has(&whole_digest).await.expect("it works"));
    assert!(!stores.blobs.has(&short_digest).await.expect("it works"));
    assert_eq!(files(&folder, "blobs").len(), 1);
    assert!(!folder.path().join("store/staging/999-0").exists());
    // The living one was left alone.
    let Node::File { digest, .. } = node else { panic!("it is a file") };
    assert!(living.blobs.has(&digest).await.expect("it works"));
}

#[tokio::test]
async fn a_damaged_row_is_corrupt_and_not_absent() {
    let folder = tempfile::tempdir().expect("a folder");
    let stores = local(open(&folder));
    let node = put_file(&stores, b"x").await;
    let mut builder = Directory::builder();
    builder.add(Name::try_from("x").expect("legal"), node.clone());
    let directory = std::sync::Arc::new(builder.build().expect("legal"));
    stores.directories.put(directory.clone()).await.expect("it works");
    stores.path_infos.put(path_info(node)).await.expect("it works");

    let database = rusqlite::Connection::open(folder.path().join("store/meta.sqlite"));
    let database = database.expect("it opens");
    for (table, damaged) in [
        ("directories", "CAST(substr(data, 1, length(data) - 1) || x'07' AS BLOB)"),
        ("path_infos", "x'0a'"),
    ] {
        let sql = format!("UPDATE {table} SET data = {damaged}");
        assert_eq!(database.execute(&sql, []).expect("it works"), 1);
    }
    let error = stores.directories.get(&directory.digest()).await.expect_err("damaged");
    assert!(matches!(error, Error::Corrupt { .. }), "{error}");
    assert!(error.to_string().contains(&directory.digest().to_string()), "{error}");
    let error = stores.path_infos.get(&path_info_digest()).await.expect_err("damaged");
    assert!(matches!(error, Error::Corrupt { .. }), "{error}");
    assert!(error.to_string().contains("path info 0000"), "{error}");
}

fn refused(dir: &Path) -> String {
    LocalStore::open(dir).expect_err("it is refused").to_string()
}

#[test]
fn a_store_of_a_newer_format_is_left_alone() {
    let folder = tempfile::tempdir().expect("a folder");
    drop(open(&folder));
    fs::write(folder.path().join("store/version"), "2\n").expect("ours");
    let error = refused(&folder.path().join("store"));
    assert!(error.contains("store format 2") && error.contains("use a newer lazystore"), "{error}");
}

#[test]
fn a_place_where_no_store_can_be_is_named() {
    let folder = tempfile::tempdir().expect("a folder");
    fs::write(folder.path().join("file"), "").expect("ours");
    let error = refused(&folder.path().join("file/store"));
    assert!(error.contains("file/store") && error.contains("Not a directory"), "{error}");
    let error = refused(Path::new("/proc/store"));
    assert!(error.contains("/proc/store"), "{error}");
}

#[tokio::test]
async fn a_cache_is_no_store_and_a_store_no_cache() {
    let folder = tempfile::tempdir().expect("a folder");
    drop(open(&folder));
    let store = folder.path().join("store");
    let error = LocalStore::open_cache(&store, None).expect_err("refused").to_string();
    assert!(error.contains("a store, of which nothing may be forgotten"), "{error}");
    let cache = folder.path().join("cache");
    drop(LocalStore::open_cache(&cache, None).expect("it opens"));
    let error = refused(&cache);
    assert!(error.contains("is a cache") && error.contains("--store-dir"), "{error}");
    drop(LocalStore::open_cache(&cache, None).expect("it is one still"));
}
