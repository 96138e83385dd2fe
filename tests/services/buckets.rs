//! Stores in buckets, by the program: what they cost, and what goes wrong with them.

use std::{
    fs,
    os::unix::fs::FileExt as _,
    path::Path,
    process::Command,
    time::{Duration, Instant},
};

use crate::{
    s3::s3,
    support::{
        Mounted, Running, assert_same, base_name, can_mount, files, lazystore, noise, run,
        sample_tree, walk, write,
    },
    toll::{Toll, Trouble},
};

/// So many files of a length that is usual in a store, and some long ones. Those whose number is told to be changed have other
/// contents.
fn tree(path: &Path, count: u64, is_changed: impl Fn(u64) -> bool) {
    fs::create_dir(path).expect("new");
    for number in 0..count {
        let dir = path.join(format!("{}", number / 50));
        fs::create_dir_all(&dir).expect("it can be made");
        let seed = if is_changed(number) { number + 1_000_000 } else { number };
        let len =
            if number % 100 == 7 { 1_500_000 } else { 3_000 + (number as usize % 13) * 4_000 };
        write(dir.join(format!("file-{number}")), noise(seed, len), 0o644);
    }
}

fn program(folder: &Path, store: &str) -> Command {
    let mut command = lazystore(&folder.join("unused"));
    command.args(["--store", store]);
    command
}

fn import(folder: &Path, store: &str, path: &Path) -> String {
    let output = run(program(folder, store).arg("import").arg(path));
    base_name(String::from_utf8(output.stdout).expect("ASCII").trim_end())
}

fn chunks_and_lists(folder: &Path) -> u64 {
    let count = |name| files(&folder.join("bucket").join(name)).len() as u64;
    count("chunks") + count("blobs")
}

#[test]
fn an_upload_costs_what_it_stores_and_sends_only_what_is_new() {
    let Some(s3) = s3() else { return };
    let (folder, toll) = (tempfile::tempdir().expect("a folder"), Toll::new(s3.address));
    let bucket = s3.bucket();
    let store = s3.store_at(&bucket, toll.address, "");
    let (first, second) = (folder.path().join("first"), folder.path().join("second"));
    tree(&first, 1000, |_| false);
    tree(&second, 1000, |number| number % 10 == 3);
    // The same in files tells how many objects there are.
    let beside = format!("objectstore+file://{}/bucket", folder.path().display());
    let name = import(folder.path(), &beside, &first);
    let objects = chunks_and_lists(folder.path());

    import(folder.path(), &store, &first);
    let paid = toll.paid();
    eprintln!("a new tree of {objects} chunks and lists: {paid:?}");
    assert!(paid.requests() <= (objects + 2) * 105 / 100, "{paid:?} for {objects}");

    let total: u64 = walk_len(&second);
    import(folder.path(), &store, &second);
    let paid = toll.paid();
    eprintln!("with nine of ten there, {total} bytes: {paid:?}");
    assert!(paid.sent * 100 <= total * 12, "{paid:?} of {total}");

    // Nothing is new.
    import(folder.path(), &store, &second);
    let paid = toll.paid();
    eprintln!("with all there: {paid:?}");
    assert!(paid.sent * 100 <= total, "{paid:?} of {total}");

    // From one store into another it is the same.
    let other = s3.store_at(&s3.bucket(), toll.address, "");
    let store_path = format!("/nix/store/{name}");
    run(program(folder.path(), &other).args(["copy", "--from", &beside, &store_path]));
    let paid = toll.paid();
    eprintln!("copied: {paid:?}");
    assert!(paid.requests() <= (objects + 2) * 105 / 100, "{paid:?} for {objects}");
}

fn walk_len(path: &Path) -> u64 {
    files(path).iter().map(|file| fs::metadata(file).expect("it is there").len()).sum()
}

/// Imports a tree into a bucket, and compares a mount of it, with a cache and without.
fn is_mounted_as_it_was(folder: &Path, store: &str, tree: &Path) {
    let name = import(folder, store, tree);
    for cache in ["none", "cache"] {
        let mountpoint = folder.join(format!("mounted-with-{cache}"));
        let mut command = program(folder, store);
        if cache != "none" {
            command.env("LAZYSTORE_CACHE_DIR", folder.join(cache));
        }
        let mounted = Mounted::new(&mut command, &mountpoint);
        assert_same(&walk(tree), &walk(&mountpoint.join(&name)));
        mounted.unmount();
    }
}

#[test]
fn a_tree_is_mounted_straight_off_a_bucket_of_files() {
    if !can_mount() {
        return;
    }
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("tree");
    sample_tree(&path);
    let store = format!("objectstore+file://{}/bucket", folder.path().display());
    is_mounted_as_it_was(folder.path(), &store, &path);
}

#[test]
fn a_tree_is_mounted_straight_off_s3() {
    let Some(s3) = s3() else { return };
    if !can_mount() {
        return;
    }
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("tree");
    tree(&path, 120, |_| false);
    is_mounted_as_it_was(folder.path(), &s3.store(), &path);
}

#[test]
fn a_range_of_a_long_file_costs_the_chunks_that_it_touches() {
    let Some(s3) = s3() else { return };
    if !can_mount() {
        return;
    }
    let (folder, toll) = (tempfile::tempdir().expect("a folder"), Toll::new(s3.address));
    let path = folder.path().join("file");
    let contents = noise(1, 20_000_000);
    write(&path, &contents, 0o644);
    let store = s3.store_at(&s3.bucket(), toll.address, "");
    let name = import(folder.path(), &store, &path);
    for cache in ["none", "cache"] {
        let mut command = program(folder.path(), &store);
        command.env("LAZYSTORE_CACHE_DIR", folder.path().join(cache));
        if cache == "none" {
            command.env("LAZYSTORE_CACHE_DIR", "none");
        }
        let mounted = Mounted::new(&mut command, &folder.path().join(format!("mounted-{cache}")));
        let file = fs::File::open(mounted.path.join(&name)).expect("it is there");
        toll.paid();
        let mut read = vec![0; 4096];
        file.read_exact_at(&mut read, 10_000_000).expect("it reads");
        assert_eq!(read, contents[10_000_000..10_004_096]);
        let paid = toll.paid();
        eprintln!("4 KiB of 20 MB with cache {cache}: {paid:?}");
        // Its list, and what the kernel reads ahead.
        assert!(paid.requests() <= 8 && paid.received < 4_000_000, "{paid:?}");
        drop(file);
        mounted.unmount();
    }
}

#[test]
fn daemons_over_one_bucket_serve_what_each_other_stored() {
    let Some(s3) = s3() else { return };
    let folder = tempfile::tempdir().expect("a folder");
    let (path, store) = (folder.path().join("tree"), s3.store());
    tree(&path, 120, |_| false);
    let sockets = ["one", "two"].map(|name| folder.path().join(name));
    let _daemons = sockets.each_ref().map(|socket| {
        let listen = format!("unix:{}", socket.display());
        let mut daemon = program(folder.path(), &store);
        let mut daemon = Running::start(daemon.args(["daemon", "--listen", &listen]));
        daemon.wait_for_line("listening");
        daemon
    });
    let address = |socket: &Path| format!("grpc+unix://{}", socket.display());
    let name = import(folder.path(), &address(&sockets[0]), &path);
    let store_path = format!("/nix/store/{name}");
    let hash = |store: &str| run(program(folder.path(), store).args(["nar", "hash", &store_path]));
    let beside = format!("objectstore+file://{}/bucket", folder.path().display());
    assert_eq!(import(folder.path(), &beside, &path), name);
    assert_eq!(hash(&address(&sockets[1])).stdout, hash(&beside).stdout);
    run(program(folder.path(), &address(&sockets[1])).args(["verify", &store_path]));
}

#[test]
fn a_bucket_that_does_not_answer_is_unavailable_within_its_deadline() {
    let Some(s3) = s3() else { return };
    let (folder, toll) = (tempfile::tempdir().expect("a folder"), Toll::new(s3.address));
    let path = folder.path().join("file");
    write(&path, "contents", 0o644);
    let bucket = s3.bucket();
    let name = import(folder.path(), &s3.store_at(&bucket, s3.address, ""), &path);
    let store = s3.store_at(&bucket, toll.address, "&timeout=3");
    let dead = s3.store_at(&bucket, "127.0.0.1:1".parse().expect("an address"), "&timeout=3");
    for (trouble, store) in [
        (Trouble::Status(500), &store),
        (Trouble::Status(503), &store),
        (Trouble::Status(403), &store),
        (Trouble::Silence, &store),
        (Trouble::None, &dead),
    ] {
        toll.trouble(trouble);
        let began = Instant::now();
        let output = program(folder.path(), store)
            .args(["path-info", &format!("/nix/store/{name}")])
            .output()
            .expect("it runs");
        let (said, took) = (String::from_utf8_lossy(&output.stderr), began.elapsed());
        assert!(!output.status.success(), "{trouble:?}: {said}");
        let is_told = said.contains("is unavailable") || said.contains("did not answer in time");
        assert!(is_told && !said.contains("secret"), "{trouble:?}: {said}");
        assert!(took < Duration::from_secs(10), "{trouble:?} took {took:?}");
    }
    // What lasts no longer than the deadline is not noticed.
    toll.trouble_for(Trouble::Status(503), 2);
    run(program(folder.path(), &store).args(["path-info", &format!("/nix/store/{name}")]));
}

#[test]
fn what_is_damaged_in_a_bucket_is_said_and_never_absent() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("tree");
    fs::create_dir(&path).expect("new");
    write(path.join("file"), noise(1, 1000), 0o644);
    let store = format!("objectstore+file://{}/bucket", folder.path().display());
    let name = import(folder.path(), &store, &path);
    for (kind, said) in [("chunks", "chunk blake3-"), ("dirs", "closure of"), ("pathinfos", "seal")]
    {
        let objects = files(&folder.path().join("bucket").join(kind));
        let [object] = &objects[..] else { panic!("{objects:?}") };
        let whole = fs::read(object).expect("it is there");
        for damaged in [vec![7; whole.len()], whole[..whole.len() / 2].to_vec()] {
            fs::write(object, damaged).expect("it can be written");
            let output = program(folder.path(), &store)
                .args(["cat", &format!("/nix/store/{name}/file")])
                .output()
                .expect("it runs");
            let text = String::from_utf8_lossy(&output.stderr);
            assert!(!output.status.success() && text.contains("wrong data"), "{kind}: {text}");
            assert!(text.contains(said), "{kind}: {text}");
        }
        fs::write(object, whole).expect("it can be written");
    }
    run(program(folder.path(), &store).args(["cat", &format!("/nix/store/{name}/file")]));
}
