//! What a store directory promises besides: several processes, crashes, damage.

use std::{
    fs,
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
};

use bytes::Bytes;
use lazystore::{
    castore::{Digest, Directory, Name, Node},
    nix::{Details, PathInfo, StorePath},
    service::{Error, Stores, local::LocalStore},
};
use tempfile::TempDir;

use crate::{
    stacks::{local, open},
    support::noise,
};

fn path_info(node: Node) -> PathInfo {
    let store_path = StorePath::from_base_name(b"00000000000000000000000000000000-x");
    PathInfo { store_path: store_path.expect("legal"), node, details: Details::References(vec![]) }
}

fn path_info_digest() -> lazystore::nix::StorePathDigest {
    path_info(Node::File { digest: Digest::EMPTY, size: 0, executable: false }).store_path.digest()
}

async fn put_file(stores: &Stores, contents: &[u8]) -> Node {
    let digest = stores.blobs.put(Bytes::copy_from_slice(contents)).await.expect("it works");
    Node::File { digest, size: contents.len() as u64, executable: false }
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
    let digest = Digest::of(b"shared");
    assert!(one.blobs.has(&digest).await.expect("it works"), "its own process sees it at once");
    one.blobs.sync().await.expect("it works");
    one.path_infos.put(path_info(node.clone())).await.expect("it works");
    assert!(two.blobs.has(&digest).await.expect("it works"));
    let found = two.path_infos.get(&path_info_digest()).await.expect("it works");
    assert_eq!(found.map(|info| info.node), Some(node));
}

#[tokio::test]
async fn blobs_are_plain_files_that_nobody_writes() {
    let folder = tempfile::tempdir().expect("a folder");
    let stores = local(open(&folder));
    put_file(&stores, b"plain").await;
    stores.blobs.sync().await.expect("it works");
    let files = files(&folder, "blobs");
    let hex = Digest::of(b"plain").to_hex();
    let expected = folder.path().join("store/blobs").join(&hex[..2]).join(&hex);
    assert_eq!(files, std::slice::from_ref(&expected));
    assert_eq!(fs::read(&expected).expect("it reads"), b"plain");
    let mode = fs::metadata(&expected).expect("there").permissions().mode();
    assert_eq!(mode & 0o222, 0, "{mode:o}");
}

#[tokio::test]
async fn a_clean_end_leaves_nothing_in_staging() {
    let folder = tempfile::tempdir().expect("a folder");
    let stores = local(open(&folder));
    put_file(&stores, b"kept").await;
    let mut writer = stores.blobs.writer().await.expect("it works");
    writer.write(Bytes::from_static(b"half")).await.expect("it works");
    drop(writer);
    drop(stores);
    assert_eq!(fs::read_dir(folder.path().join("store/staging")).expect("there").count(), 0);
    assert_eq!(files(&folder, "blobs").len(), 1);
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
