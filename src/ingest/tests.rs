//! Trees that an import has to get right, and those that it has to refuse, in stores that are in memory.

use std::{
    ffi::{CString, OsStr},
    fs::{self, File},
    os::unix::{
        ffi::OsStrExt as _,
        fs::{PermissionsExt as _, symlink},
        net::UnixListener,
    },
    path::Path,
    sync::Arc,
};

use rustix::fs::{CWD, Mode, OFlags};
use tokio::runtime::Runtime;

use super::*;
use crate::{
    castore::{Digest, Directory, Node, NodeRef},
    render::RenderNar,
    service::{
        blob::backend::MemoryBlobs, directory::backend::MemoryDirectories,
        pathinfo::backend::MemoryPathInfos,
    },
};

struct Fixture {
    dir: tempfile::TempDir,
    stores: Stores,
    runtime: Runtime,
    progress: Progress,
}

impl Fixture {
    fn new() -> Self {
        let (blobs, directories) =
            (Arc::new(MemoryBlobs::new()), Arc::new(MemoryDirectories::new()));
        let nars = RenderNar { blobs: blobs.clone(), directories: directories.clone() };
        let path_infos = Arc::new(MemoryPathInfos::new());
        Fixture {
            dir: tempfile::tempdir().expect("a directory"),
            stores: Stores { blobs, directories, path_infos, nars: Arc::new(nars) },
            runtime: Runtime::new().expect("a runtime"),
            progress: Progress::default(),
        }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn import(&self, path: &Path) -> Result<Import, ImportError> {
        let handle = self.runtime.handle();
        import_tree(path, Some("tree"), &self.stores, handle, &self.progress)
    }

    /// The error of importing `path`, as a user reads it.
    fn refusal(&self, path: &Path) -> String {
        self.import(path).expect_err("it is refused").to_string()
    }

    /// Imports `path`, and checks that what was hashed while reading is what the store gives back.
    fn import_and_render(&self, path: &Path) -> Import {
        let import = self.import(path).expect("it imports");
        let nar = self.stores.nars.calculate_nar(&import.path_info.node);
        let nar = self.runtime.block_on(nar).expect("it renders");
        assert_eq!(import.path_info.nar_info().map(|info| info.nar), Some(nar));
        import
    }

    fn directory(&self, digest: &Digest) -> Arc<Directory> {
        let found = self.runtime.block_on(self.stores.directories.get(digest));
        found.expect("memory works").expect("it is there")
    }

    fn root(&self, import: &Import) -> Arc<Directory> {
        match &import.path_info.node {
            Node::Directory { digest, .. } => self.directory(digest),
            other => panic!("{other:?} is no directory"),
        }
    }
}

#[test]
fn what_a_store_cannot_hold_is_refused_by_path() {
    let fixture = Fixture::new();
    let tree = fixture.path("tree");
    fs::create_dir_all(tree.join("deeper")).expect("new");
    let _socket = UnixListener::bind(tree.join("deeper/socket")).expect("new");
    let expected = format!("{}/deeper/socket is a socket", tree.display());
    assert!(fixture.refusal(&tree).starts_with(&expected));

    let fifo = fixture.path("fifo");
    let fifo_c = CString::new(fifo.as_os_str().as_bytes()).expect("no NUL");
    let mode = Mode::from_raw_mode(0o600);
    rustix::fs::mknodat(CWD, &fifo_c, rustix::fs::FileType::Fifo, mode, 0).expect("new");
    assert!(fixture.refusal(&fifo).contains("fifo is a named pipe"));
    assert!(fixture.refusal(Path::new("/dev/null")).contains("/dev/null is a character device"));
}

#[test]
fn what_cannot_be_read_is_refused_by_path() {
    let fixture = Fixture::new();
    let missing = fixture.path("missing");
    assert!(fixture.refusal(&missing).contains(&format!("look at {}", missing.display())));
    // Claims to be empty; reading it from the start fails, for root too.
    assert!(fixture.refusal(Path::new("/proc/self/mem")).contains("read /proc/self/mem"));
    if !rustix::process::geteuid().is_root() {
        let tree = fixture.path("tree");
        fs::create_dir(&tree).expect("new");
        fs::write(tree.join("secret"), "s").expect("new");
        let nobody = fs::Permissions::from_mode(0o0);
        fs::set_permissions(tree.join("secret"), nobody).expect("ours");
        assert!(fixture.refusal(&tree).contains("tree/secret"));
    }
}

#[test]
fn a_file_that_is_longer_than_announced_is_refused() {
    let fixture = Fixture::new();
    // Announces no bytes and has some.
    let error = fixture.refusal(Path::new("/proc/self/status"));
    assert!(error.contains("/proc/self/status changed while it was read: it had 0 bytes"));
}

/// A file changes between the walk and a worker: the jobs here announce a length that the file no longer has.
#[test]
fn a_file_that_changes_its_length_is_refused() {
    let fixture = Fixture::new();
    for len in [0, 1, 4096, SMALL - 1, SMALL, SMALL + 1, SMALL + 2, 3 * SMALL, 3 * SMALL + 7] {
        let path = fixture.path(&format!("file-{len}"));
        let file = File::create(&path).expect("new");
        file.set_len(len).expect("it grows");
        for announced in
            [len.saturating_sub(1), len, len + 1, len + SMALL, len.saturating_sub(SMALL)]
        {
            let blobs = fixture.stores.blobs.clone();
            let stored = worker::tests::store(&path, announced, &*blobs, &fixture.progress);
            match fixture.runtime.block_on(stored) {
                Ok(()) => assert_eq!(announced, len),
                Err(ImportError::Changed { path: at, expected, found }) => {
                    assert_eq!((at, expected), (path.clone(), announced));
                    assert_ne!(found, announced);
                    assert_ne!(announced, len);
                }
                Err(other) => panic!("{len} bytes, announced {announced}: {other}"),
            }
        }
    }
}

const SMALL: u64 = crate::service::blob::SMALL_BLOB_LEN_MAX as u64;

#[test]
fn names_of_any_bytes_are_kept_and_sorted_as_bytes() {
    let fixture = Fixture::new();
    let tree = fixture.path("tree");
    fs::create_dir(&tree).expect("new");
    let every: Vec<u8> = (1..=255u8).filter(|byte| *byte != b'/').collect();
    let long = [b'x'; 255];
    let mut names: Vec<&[u8]> =
        vec![b" ", b"-", b"...", b"\n", b"a", b"a.b", b"A", b"ab", b"\xff", &every, &long];
    for name in &names {
        fs::write(tree.join(OsStr::from_bytes(name)), name).expect("new");
    }
    let import = fixture.import_and_render(&tree);
    names.sort_unstable();
    let root = fixture.root(&import);
    assert_eq!(root.entries().map(|entry| entry.name).collect::<Vec<_>>(), names);
    assert_eq!(import.counts.files, names.len() as u64);
}

#[test]
fn only_the_owner_s_bit_makes_a_file_executable() {
    let fixture = Fixture::new();
    let tree = fixture.path("tree");
    fs::create_dir(&tree).expect("new");
    for mode in [0o400, 0o500, 0o411, 0o677, 0o744, 0o755, 0o611] {
        let path = tree.join(format!("{mode:o}"));
        fs::write(&path, "x").expect("new");
        fs::set_permissions(&path, fs::Permissions::from_mode(mode)).expect("ours");
    }
    let root = fixture.root(&fixture.import_and_render(&tree));
    let executable: Vec<_> = root
        .entries()
        .filter(|entry| matches!(entry.node, NodeRef::File { executable: true, .. }))
        .map(|entry| entry.name.to_vec())
        .collect();
    assert_eq!(executable, [b"500", b"744", b"755"]);
}

#[test]
fn a_symlink_is_imported_itself() {
    let fixture = Fixture::new();
    fs::create_dir(fixture.path("tree")).expect("new");
    let link = fixture.path("link");
    symlink("tree", &link).expect("new");
    let import = fixture.import_and_render(&link);
    assert!(
        matches!(&import.path_info.node, Node::Symlink { target } if target.as_bytes() == b"tree")
    );
}

/// Deeper than paths may be long, than the stack is, and than descriptors may be open.
#[test]
fn a_tree_may_be_deeper_than_a_path_is_long() {
    const LEVELS: usize = 1500;
    let fixture = Fixture::new();
    let tree = fixture.path("tree");
    fs::create_dir(&tree).expect("new");
    let name = "d".repeat(100);
    let flags = OFlags::DIRECTORY | OFlags::CLOEXEC;
    let mut at = rustix::fs::openat(CWD, &tree, flags, Mode::empty()).expect("it is there");
    for _ in 0..LEVELS {
        rustix::fs::mkdirat(&at, &name, Mode::RWXU).expect("new");
        // Comes after the directory, so that the walk has to find its way back up.
        rustix::fs::symlinkat("x", &at, "e").expect("new");
        at = rustix::fs::openat(&at, &name, flags, Mode::empty()).expect("it is there");
    }
    let import = fixture.import_and_render(&tree);
    let mut levels = 0;
    let mut directory = fixture.root(&import);
    while let Some(NodeRef::Directory { digest, .. }) =
        directory.find(name.as_bytes()).map(|entry| entry.node)
    {
        assert_eq!(directory.len(), 2);
        directory = fixture.directory(&digest);
        levels += 1;
    }
    assert_eq!(levels, LEVELS);
}

#[test]
fn a_directory_may_have_a_hundred_thousand_entries() {
    const ENTRIES: usize = 100_000;
    let fixture = Fixture::new();
    let tree = fixture.path("tree");
    fs::create_dir(&tree).expect("new");
    let original = tree.join("0");
    fs::write(&original, "the same").expect("new");
    for number in 1..ENTRIES {
        // A directory may link to one file so often only because filesystems allow 65,000 links: use two kinds.
        let path = tree.join(number.to_string());
        match number % 2 {
            0 => fs::hard_link(&original, path).expect("new"),
            _ => symlink("0", path).expect("new"),
        }
    }
    let import = fixture.import_and_render(&tree);
    assert_eq!(fixture.root(&import).len(), ENTRIES);
    assert_eq!((import.counts.files, import.counts.bytes), (50_000, 400_000));
    assert_eq!((fixture.progress.files(), fixture.progress.bytes()), (50_000, 400_000));
}

#[test]
fn an_import_says_what_was_new() {
    let fixture = Fixture::new();
    let tree = fixture.path("tree");
    fs::create_dir(&tree).expect("new");
    fs::write(tree.join("a"), "aa").expect("new");
    fs::write(tree.join("b"), vec![7; 3 * SMALL as usize]).expect("new");
    let first = fixture.import_and_render(&tree);
    assert_eq!(
        (first.counts.files, first.counts.new_files, first.counts.new_bytes),
        (2, 2, 2 + 3 * SMALL)
    );
    fs::write(tree.join("c"), "ccc").expect("new");
    let second = fixture.import_and_render(&tree);
    assert_eq!((second.counts.files, second.counts.new_files, second.counts.new_bytes), (3, 1, 3));
}

#[test]
fn the_name_is_the_last_part_or_the_one_given() {
    let fixture = Fixture::new();
    let tree = fixture.path("tree");
    fs::create_dir_all(tree.join("inner")).expect("new");
    let name = |path: &Path| {
        let handle = fixture.runtime.handle();
        import_tree(path, None, &fixture.stores, handle, &fixture.progress)
            .map(|import| import.path_info.store_path.name().to_owned())
    };
    assert_eq!(name(&tree).expect("it imports"), "tree");
    assert_eq!(name(&tree.join("inner/..")).expect("it imports"), "tree");
    assert_eq!(name(&tree.join("inner/.")).expect("it imports"), "inner");
    fs::create_dir(fixture.path("a b")).expect("new");
    assert!(matches!(name(&fixture.path("a b")), Err(ImportError::StorePathName { .. })));
}

/// More small files than the budget has room for, and several large ones at once, with one error at the very end: the
/// stages neither wait for each other for ever, nor outlive the import.
#[test]
fn an_error_at_the_end_ends_every_stage() {
    let fixture = Fixture::new();
    let tree = fixture.path("tree");
    fs::create_dir(&tree).expect("new");
    for number in 0..100 {
        let len = if number % 8 == 0 { 9 * SMALL } else { SMALL };
        let file = File::create(tree.join(format!("f{number}"))).expect("new");
        file.set_len(len).expect("it grows");
    }
    fixture.import_and_render(&tree);
    let _socket = UnixListener::bind(tree.join("z")).expect("new");
    assert!(fixture.refusal(&tree).contains("tree/z is a socket"));
    fs::remove_file(tree.join("z")).expect("ours");
    let _socket = UnixListener::bind(tree.join("a")).expect("new");
    assert!(fixture.refusal(&tree).contains("tree/a is a socket"));
}
