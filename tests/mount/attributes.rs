//! What `stat`, `statfs` and extended attributes tell.

use std::{fs, os::unix::fs::MetadataExt as _, path::Path};

use lazystore::castore::Digest;

use crate::support::{
    Mounted, can_mount, drop_kernel_caches, have_program, import, lazystore, sample_tree, write,
};

#[test]
fn attributes_are_those_of_a_nix_store() {
    if !can_mount() {
        return;
    }
    let dir = tempfile::tempdir().expect("a temporary directory");
    let tree = dir.path().join("tree");
    sample_tree(&tree);
    let name = import(&dir.path().join("store"), &tree);
    let mounted = Mounted::new(&mut lazystore(&dir.path().join("store")), &dir.path().join("mnt"));
    let image = mounted.path.join(name);
    let mode = |inner: &str| fs::symlink_metadata(image.join(inner)).expect("there").mode();
    assert_eq!(mode(""), libc::S_IFDIR | 0o555);
    assert_eq!(mode("plain"), libc::S_IFREG | 0o444);
    assert_eq!(mode("executable"), libc::S_IFREG | 0o555);
    assert_eq!(mode("only-group-may-execute"), libc::S_IFREG | 0o444);
    assert_eq!(mode("links/up"), libc::S_IFLNK | 0o777);
    for inner in ["", "plain", "links/up", "wide", "file-3000001", "empty"] {
        let metadata = fs::symlink_metadata(image.join(inner)).expect("there");
        assert_eq!((metadata.uid(), metadata.gid()), (0, 0), "{inner}");
        assert_eq!((metadata.mtime(), metadata.ctime(), metadata.atime()), (1, 1, 1), "{inner}");
        assert_eq!(metadata.mtime_nsec(), 0, "{inner}");
        assert_eq!(metadata.nlink(), 1, "{inner}");
        assert_eq!(metadata.blocks(), metadata.size().div_ceil(512), "{inner}");
    }
    let size = |inner: &str| fs::symlink_metadata(image.join(inner)).expect("there").size();
    assert_eq!(size("file-3000001"), 3_000_001);
    assert_eq!(size("links/long"), 4095);
}

#[test]
fn the_size_of_a_directory_does_not_change_once_it_is_read() {
    if !can_mount() {
        return;
    }
    let dir = tempfile::tempdir().expect("a temporary directory");
    let tree = dir.path().join("tree");
    sample_tree(&tree);
    let name = import(&dir.path().join("store"), &tree);
    let mounted = Mounted::new(&mut lazystore(&dir.path().join("store")), &dir.path().join("mnt"));
    let wide = mounted.path.join(name).join("wide");
    let before = fs::metadata(&wide).expect("there").size();
    assert_eq!(before, 3000);
    assert_eq!(fs::read_dir(&wide).expect("it lists").count(), 3000);
    assert_eq!(fs::metadata(&wide).expect("there").size(), before);
    drop_kernel_caches();
    assert_eq!(fs::metadata(&wide).expect("there").size(), before);
}

#[test]
fn statfs_is_plausible() {
    if !can_mount() {
        return;
    }
    let dir = tempfile::tempdir().expect("a temporary directory");
    write(dir.path().join("file"), vec![1; 100_000], 0o644);
    let name = import(&dir.path().join("store"), &dir.path().join("file"));
    let mounted = Mounted::new(&mut lazystore(&dir.path().join("store")), &dir.path().join("mnt"));
    fs::metadata(mounted.path.join(name)).expect("there");
    let statvfs = rustix::fs::statvfs(&mounted.path).expect("it answers");
    assert_eq!((statvfs.f_bsize, statvfs.f_frsize, statvfs.f_namemax), (4096, 4096, 255));
    assert!(statvfs.f_blocks >= 25 && statvfs.f_files >= 2);
    assert_eq!((statvfs.f_bfree, statvfs.f_bavail, statvfs.f_ffree), (0, 0, 0));
    assert!(statvfs.f_flag.contains(rustix::fs::StatVfsMountFlags::RDONLY));
}

fn getxattr(path: &Path, name: &str) -> Result<String, rustix::io::Errno> {
    let mut buffer = vec![0; 200];
    let len = rustix::fs::lgetxattr(path, name, &mut buffer)?;
    Ok(String::from_utf8_lossy(&buffer[..len]).into_owned())
}

#[test]
fn digests_show_as_extended_attributes_in_both_dialects() {
    if !can_mount() {
        return;
    }
    let dir = tempfile::tempdir().expect("a temporary directory");
    let tree = dir.path().join("tree");
    sample_tree(&tree);
    let name = import(&dir.path().join("store"), &tree);
    let mounted = Mounted::new(&mut lazystore(&dir.path().join("store")), &dir.path().join("mnt"));
    let image = mounted.path.join(name);
    let file = image.join("plain");
    let digest = Digest::of(&fs::read(&file).expect("it reads"));
    assert_eq!(getxattr(&file, "user.tvix.castore.blob.digest"), Ok(digest.to_b3()));
    assert_eq!(getxattr(&file, "user.snix.castore.blob.digest"), Ok(digest.to_string()));
    let empty = image.join("empty");
    assert_eq!(getxattr(&empty, "user.tvix.castore.directory.digest"), Ok(Digest::EMPTY.to_b3()));
    assert_eq!(
        getxattr(&empty, "user.snix.castore.directory.digest"),
        Ok(Digest::EMPTY.to_string())
    );

    for (inner, absent) in [
        ("plain", "user.tvix.castore.directory.digest"),
        ("plain", "user.other"),
        ("empty", "user.tvix.castore.blob.digest"),
    ] {
        assert_eq!(getxattr(&image.join(inner), absent), Err(rustix::io::Errno::NODATA));
    }
    // Kinds that do not exist here at all: `ls -l` then asks for one file only.
    for (inner, kind) in
        [("plain", "security.selinux"), ("links/up", "security.selinux"), ("plain", "trusted.x")]
    {
        let result = getxattr(&image.join(inner), kind);
        assert_eq!(result, Err(rustix::io::Errno::OPNOTSUPP), "{inner} {kind}");
    }
    let mut small = [0; 10];
    let result = rustix::fs::lgetxattr(&file, "user.tvix.castore.blob.digest", &mut small[..]);
    assert_eq!(result, Err(rustix::io::Errno::RANGE));
    // This one asks for the length first.
    if have_program("getfattr") {
        let mut getfattr = std::process::Command::new("getfattr");
        getfattr.args(["--only-values", "--name=user.tvix.castore.blob.digest"]).arg(&file);
        assert_eq!(crate::support::run(&mut getfattr).stdout, digest.to_b3().into_bytes());
    }

    let list = |path: &Path| {
        let mut buffer = vec![0; 500];
        let len = rustix::fs::llistxattr(path, &mut buffer).expect("it lists");
        String::from_utf8_lossy(&buffer[..len]).into_owned()
    };
    assert_eq!(list(&file), "user.tvix.castore.blob.digest\0user.snix.castore.blob.digest\0");
    assert_eq!(
        list(&empty),
        "user.tvix.castore.directory.digest\0user.snix.castore.directory.digest\0"
    );
    assert_eq!(list(&image.join("links/up")), "");
    assert_eq!(list(&mounted.path), "");
    let result = rustix::fs::llistxattr(&file, &mut small[..]);
    assert_eq!(result, Err(rustix::io::Errno::RANGE));
}

#[test]
fn extended_attributes_can_be_turned_off() {
    if !can_mount() {
        return;
    }
    let dir = tempfile::tempdir().expect("a temporary directory");
    write(dir.path().join("file"), "x", 0o644);
    let name = import(&dir.path().join("store"), &dir.path().join("file"));
    let mut command = lazystore(&dir.path().join("store"));
    command.arg("mount").arg("--show-xattr=false").arg(dir.path().join("mnt"));
    fs::create_dir(dir.path().join("mnt")).expect("new");
    let mut running = crate::support::Running::start(&mut command);
    running.wait_for_line("mounted;");
    let mounted = Mounted { running, path: dir.path().join("mnt") };
    for _ in 0..2 {
        assert_eq!(
            getxattr(&mounted.path.join(&name), "user.tvix.castore.blob.digest"),
            Err(rustix::io::Errno::OPNOTSUPP)
        );
    }
}

#[test]
fn inode_numbers_are_the_same_after_a_remount_and_differ_where_they_must() {
    if !can_mount() {
        return;
    }
    let dir = tempfile::tempdir().expect("a temporary directory");
    let tree = dir.path().join("tree");
    sample_tree(&tree);
    let name = import(&dir.path().join("store"), &tree);
    let numbers = || {
        let mounted =
            Mounted::new(&mut lazystore(&dir.path().join("store")), &dir.path().join("mnt"));
        let image = mounted.path.join(&name);
        let ino = |inner: &str| fs::symlink_metadata(image.join(inner)).expect("there").ino();
        // What readdir says must agree with what stat says.
        for entry in fs::read_dir(&image).expect("it lists") {
            let entry = entry.expect("it lists");
            let listed = std::os::unix::fs::DirEntryExt::ino(&entry);
            assert_eq!(listed, entry.metadata().expect("there").ino(), "{entry:?}");
        }
        let numbers = [
            "",
            "plain",
            "executable",
            "twin-a",
            "twin-b",
            "twin-a/inner",
            "twin-b/inner",
            "twin-a/inner/file",
            "twin-b/inner/file",
        ]
        .map(ino);
        mounted.unmount();
        numbers
    };
    let first = numbers();
    assert_eq!(first, numbers());
    let [_, plain, executable, twin_a, twin_b, inner_a, inner_b, file_a, file_b] = first;
    assert_ne!(plain, executable);
    assert_ne!(twin_a, twin_b);
    assert_ne!(inner_a, inner_b);
    // Equal files are one inode: one page cache.
    assert_eq!(file_a, file_b);
}

#[test]
fn a_working_directory_does_not_jump_to_its_twin() {
    if !can_mount() {
        return;
    }
    let dir = tempfile::tempdir().expect("a temporary directory");
    let store = dir.path().join("store");
    let mut names = Vec::new();
    for tree in ["one", "two"] {
        let tree = dir.path().join(tree);
        fs::create_dir_all(tree.join("same/inner")).expect("new");
        names.push(import(&store, &tree));
    }
    let mounted = Mounted::new(&mut lazystore(&store), &dir.path().join("mnt"));
    let inner = |name: &str| mounted.path.join(name).join("same/inner");
    let script = "cd \"$1\" && ls \"$2\" && pwd -P && cd .. && pwd -P";
    let output = crate::support::run(
        std::process::Command::new("sh")
            .args(["-c", script, "sh"])
            .arg(inner(&names[0]))
            .arg(inner(&names[1])),
    );
    let expected = format!(
        "{}\n{}\n",
        inner(&names[0]).display(),
        mounted.path.join(&names[0]).join("same").display()
    );
    assert_eq!(String::from_utf8_lossy(&output.stdout), expected);
}
