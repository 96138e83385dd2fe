//! Every byte, name, mode and target is right.

use std::{
    fs::{self, File, OpenOptions},
    io::{self, Read as _, Seek as _, SeekFrom},
    os::unix::fs::{FileExt as _, PermissionsExt as _},
    path::Path,
    process::Command,
    thread,
};

use crate::support::{
    Mounted, Running, assert_same, can_mount, drop_kernel_caches, import, lazystore, noise,
    sample_tree, walk, write,
};

/// Four readers at once, cold, warm, and after the kernel dropped its caches.
pub fn walk_all(source: &Path, image: &Path) {
    let expected = walk(source);
    for _ in 0..2 {
        thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| assert_same(&expected, &walk(image)));
            }
        });
        assert_same(&expected, &walk(image));
        drop_kernel_caches();
    }
}

#[test]
fn a_mounted_tree_is_the_imported_one() {
    if !can_mount() {
        return;
    }
    let dir = tempfile::tempdir().expect("a temporary directory");
    let tree = dir.path().join("tree");
    sample_tree(&tree);
    let name = import(&dir.path().join("store"), &tree);
    let mounted = Mounted::new(&mut lazystore(&dir.path().join("store")), &dir.path().join("mnt"));
    walk_all(&tree, &mounted.path.join(name));
    mounted.unmount();
}

fn through_a_daemon(dialect: &str, cache: &str) {
    if !can_mount() {
        return;
    }
    let dir = tempfile::tempdir().expect("a temporary directory");
    let (tree, store) = (dir.path().join("tree"), dir.path().join("store"));
    sample_tree(&tree);
    let socket = dir.path().join("socket");
    let mut daemon = Running::start(
        lazystore(&store).arg("daemon").arg(format!("--listen=unix:{}", socket.display())),
    );
    daemon.wait_for_line("listening");
    let address = format!("grpc+unix://{}{dialect}", socket.display());
    let remote = || {
        let mut command = lazystore(Path::new("/nonexistent"));
        command.env("LAZYSTORE_STORE", &address);
        if !cache.is_empty() {
            command.env("LAZYSTORE_CACHE_DIR", dir.path().join(cache));
        }
        command
    };
    let printed = crate::support::run(remote().arg("import").arg(&tree)).stdout;
    let name = crate::support::base_name(String::from_utf8_lossy(&printed).trim_end());
    let mounted = Mounted::new(&mut remote(), &dir.path().join("mnt"));
    walk_all(&tree, &mounted.path.join(name));
    mounted.unmount();
}

#[test]
fn through_a_daemon_in_the_older_dialect() {
    through_a_daemon("?dialect=tvix", "cache");
}

#[test]
fn through_a_daemon_in_the_newer_dialect() {
    through_a_daemon("?dialect=snix", "cache");
}

#[test]
fn through_a_daemon_whose_dialect_is_found_out_without_a_cache() {
    through_a_daemon("", "");
}

#[test]
fn a_single_file_and_a_single_symlink_can_be_store_paths() {
    if !can_mount() {
        return;
    }
    let dir = tempfile::tempdir().expect("a temporary directory");
    let store = dir.path().join("store");
    write(dir.path().join("script"), "#!/bin/sh\necho hello\n", 0o755);
    std::os::unix::fs::symlink("some/where", dir.path().join("link")).expect("new");
    let script = import(&store, &dir.path().join("script"));
    let link = import(&store, &dir.path().join("link"));
    let mounted = Mounted::new(&mut lazystore(&store), &dir.path().join("mnt"));
    let output = Command::new(mounted.path.join(script)).output().expect("it can be executed");
    assert_eq!(output.stdout, b"hello\n");
    let target = fs::read_link(mounted.path.join(link)).expect("a symlink");
    assert_eq!(target, Path::new("some/where"));
}

/// Reads a file of 3,000,001 bytes at its edges, and beyond.
pub fn read_everywhere(path: &Path, contents: &[u8]) {
    let mut file = File::open(path).expect("it opens");
    let mut buffer = vec![0; 10_000];
    for offset in [0, 1, 4095, 1 << 20, 2_999_999, 3_000_000, 3_000_001, 1 << 40] {
        let len = file.read_at(&mut buffer, offset).expect("it reads");
        let start = (offset as usize).min(contents.len());
        let end = (start + len).min(contents.len());
        assert_eq!(buffer[..len], contents[start..end], "at {offset}");
        assert_eq!(len == 0, offset >= 3_000_001, "at {offset}");
    }
    assert_eq!(file.seek(SeekFrom::End(0)).expect("it seeks"), 3_000_001);
    let mut rest = Vec::new();
    assert_eq!(file.read_to_end(&mut rest).expect("it reads"), 0);
}

#[test]
fn reads_at_any_offset_and_past_the_end() {
    if !can_mount() {
        return;
    }
    let dir = tempfile::tempdir().expect("a temporary directory");
    let contents = noise(1, 3_000_001);
    write(dir.path().join("file"), &contents, 0o644);
    let name = import(&dir.path().join("store"), &dir.path().join("file"));
    let mounted = Mounted::new(&mut lazystore(&dir.path().join("store")), &dir.path().join("mnt"));
    read_everywhere(&mounted.path.join(name), &contents);
}

#[test]
fn a_blob_that_is_missing_is_an_error_and_harms_nobody_else() {
    if !can_mount() {
        return;
    }
    let dir = tempfile::tempdir().expect("a temporary directory");
    let tree = dir.path().join("tree");
    fs::create_dir(&tree).expect("new");
    for name in ["whole", "missing", "short"] {
        write(tree.join(name), name.repeat(20_000), 0o644);
    }
    let store = dir.path().join("store");
    let name = import(&store, &tree);
    let blob = |contents: &str| {
        let hex = blake3::hash(contents.repeat(20_000).as_bytes()).to_hex().to_string();
        store.join("blobs").join(&hex[..2]).join(hex)
    };
    fs::remove_file(blob("missing")).expect("it was there");
    fs::set_permissions(blob("short"), fs::Permissions::from_mode(0o644)).expect("ours");
    OpenOptions::new().write(true).open(blob("short")).expect("ours").set_len(100).expect("ours");
    let mounted = Mounted::new(&mut lazystore(&store), &dir.path().join("mnt"));
    let image = mounted.path.join(name);
    for damaged in ["missing", "short"] {
        for _ in 0..2 {
            let error = fs::read(image.join(damaged)).expect_err(damaged);
            assert_eq!(error.raw_os_error(), Some(libc::EIO), "{damaged}");
        }
    }
    assert_eq!(fs::read_to_string(image.join("whole")).expect("it reads"), "whole".repeat(20_000));
    mounted.unmount();
}

#[test]
fn programs_run_and_are_mapped_from_the_mount() {
    if !can_mount() {
        return;
    }
    let dir = tempfile::tempdir().expect("a temporary directory");
    let tree = dir.path().join("bin");
    fs::create_dir(&tree).expect("new");
    // A real program, which the kernel and the loader map; it reads a file that it maps or reads.
    fs::copy("/bin/cat", tree.join("cat")).expect("there is a cat");
    fs::set_permissions(tree.join("cat"), fs::Permissions::from_mode(0o755)).expect("ours");
    write(tree.join("text"), noise(3, 500_000), 0o644);
    let name = import(&dir.path().join("store"), &tree);
    let mounted = Mounted::new(&mut lazystore(&dir.path().join("store")), &dir.path().join("mnt"));
    let image = mounted.path.join(name);
    let output = Command::new(image.join("cat")).arg(image.join("text")).output().expect("it runs");
    assert_eq!(output.stdout, noise(3, 500_000));
}

#[test]
fn a_plain_and_an_executable_twin_keep_their_modes() {
    if !can_mount() {
        return;
    }
    let dir = tempfile::tempdir().expect("a temporary directory");
    let tree = dir.path().join("tree");
    sample_tree(&tree);
    let name = import(&dir.path().join("store"), &tree);
    let mounted = Mounted::new(&mut lazystore(&dir.path().join("store")), &dir.path().join("mnt"));
    let image = mounted.path.join(name);
    let plain = Command::new(image.join("plain")).output();
    assert_eq!(plain.expect_err("it is not executable").kind(), io::ErrorKind::PermissionDenied);
    let output = Command::new(image.join("executable")).output().expect("it is executable");
    assert_eq!(output.stdout, b"twin\n");
}

#[test]
fn every_attempt_to_write_is_refused_as_read_only() {
    if !can_mount() {
        return;
    }
    let dir = tempfile::tempdir().expect("a temporary directory");
    let tree = dir.path().join("tree");
    sample_tree(&tree);
    let name = import(&dir.path().join("store"), &tree);
    let mounted = Mounted::new(&mut lazystore(&dir.path().join("store")), &dir.path().join("mnt"));
    let image = mounted.path.join(name);
    let (file, new) = (image.join("plain"), image.join("new"));
    let attempts: [(&str, io::Result<()>); 12] = [
        ("open for writing", OpenOptions::new().write(true).open(&file).map(drop)),
        ("open for both", OpenOptions::new().read(true).write(true).open(&file).map(drop)),
        ("append", OpenOptions::new().append(true).open(&file).map(drop)),
        ("truncate", OpenOptions::new().write(true).truncate(true).open(&file).map(drop)),
        ("create", File::create(&new).map(drop)),
        ("create in the root", File::create(mounted.path.join("x")).map(drop)),
        ("mkdir", fs::create_dir(&new)),
        ("unlink", fs::remove_file(&file)),
        ("rmdir", fs::remove_dir(image.join("empty"))),
        ("rename", fs::rename(&file, &new)),
        ("link", fs::hard_link(&file, &new)),
        ("symlink", std::os::unix::fs::symlink("x", &new)),
    ];
    for (what, result) in attempts {
        assert_eq!(result.expect_err(what).raw_os_error(), Some(libc::EROFS), "{what}");
    }
    let chmod = fs::set_permissions(&file, fs::Permissions::from_mode(0o777));
    assert_eq!(chmod.expect_err("chmod").raw_os_error(), Some(libc::EROFS));
    let setxattr = rustix::fs::setxattr(&file, "user.x", b"y", rustix::fs::XattrFlags::empty());
    assert_eq!(setxattr, Err(rustix::io::Errno::ROFS));
}
