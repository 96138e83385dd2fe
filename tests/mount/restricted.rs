//! The options that restrict a mount, tried by brute force through the kernel.

use std::{
    collections::BTreeSet,
    ffi::CString,
    fs, io,
    os::{
        fd::AsRawFd as _,
        unix::{ffi::OsStrExt as _, fs::symlink},
    },
    path::Path,
};

use lazystore::{
    nix::{Details, StorePath},
    service::{
        local::LocalStore,
        pathinfo::{PathInfoService as _, backend::LocalPathInfos},
    },
};

use crate::support::{Mounted, PROGRAM, can_mount, import, lazystore, run, write};

const ATTRIBUTE: &str = "user.snix.castore.directory.digest";

/// A store with store paths in threes, each of which refers to the one before it.
fn many(store: &Path, dir: &Path) -> Vec<String> {
    let mut names: Vec<String> = Vec::new();
    for number in 0..30 {
        let tree = dir.join(format!("tree-{number}"));
        fs::create_dir(&tree).expect("new");
        let before = names.last().map_or("nothing", String::as_str);
        let reference = if number % 3 == 0 { "nothing" } else { before };
        write(tree.join("file"), format!("{number} /nix/store/{reference}"), 0o644);
        symlink(format!("../{before}"), tree.join("sideways")).expect("new");
        names.push(import(store, &tree));
    }
    let local = LocalStore::open(store).expect("it opens");
    let path_infos = LocalPathInfos::new(local);
    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    let path = |name: &String| StorePath::from_base_name(name.as_bytes()).expect("a store path");
    for number in (0..30).filter(|number| number % 3 != 0) {
        let digest = path(&names[number]).digest();
        let info = runtime.block_on(path_infos.get(&digest)).expect("it reads");
        let mut info = info.expect("it was imported");
        let Details::NarInfo(nar_info) = &mut info.details else { panic!("{info:?}") };
        nar_info.references = vec![path(&names[number - 1])];
        runtime.block_on(path_infos.put(info)).expect("it stores");
    }
    names
}

fn listed(root: &Path) -> BTreeSet<String> {
    let entries = fs::read_dir(root).expect("the root lists");
    entries.map(|e| e.expect("it lists").file_name().into_string().expect("ASCII")).collect()
}

/// `struct file_handle` with room for what FUSE puts into it.
#[repr(C)]
#[derive(Clone)]
struct Handle {
    len: u32,
    kind: i32,
    bytes: [u8; 128],
}

#[allow(unsafe_code)] // There is no safe binding.
mod handles {
    use super::*;

    pub fn of(path: &Path) -> io::Result<Handle> {
        let path = CString::new(path.as_os_str().as_bytes()).expect("no NUL");
        let mut handle = Handle { len: 128, kind: 0, bytes: [0; 128] };
        let mut mount = 0;
        // SAFETY: the path ends with a NUL, the handle has the room it says, and all live through the call.
        let returned = unsafe {
            libc::syscall(
                libc::SYS_name_to_handle_at,
                libc::AT_FDCWD,
                path.as_ptr(),
                &raw mut handle,
                &raw mut mount,
                0,
            )
        };
        if returned < 0 { Err(io::Error::last_os_error()) } else { Ok(handle) }
    }

    pub fn open(mount: &fs::File, handle: &Handle) -> io::Result<fs::File> {
        use std::os::fd::FromRawFd as _;
        // SAFETY: the handle has as many bytes as it says, and lives through the call.
        let opened = unsafe {
            let flags = libc::O_RDONLY | libc::O_CLOEXEC;
            libc::syscall(libc::SYS_open_by_handle_at, mount.as_raw_fd(), &raw const *handle, flags)
        };
        if opened < 0 {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: the kernel has just made it for us.
        Ok(unsafe { fs::File::from_raw_fd(opened as i32) })
    }
}

/// Tries every name of the store in every way, and expects just those in `visible`.
fn assert_just(mount: &Path, whole: &Path, names: &[String], visible: &BTreeSet<String>) {
    assert_eq!(listed(mount), *visible);
    let root = fs::File::open(mount).expect("it opens");
    for name in names {
        let path = mount.join(name);
        let handle = handles::of(&whole.join(name)).expect("the whole store gives handles");
        if visible.contains(name) {
            assert_eq!(
                fs::read(path.join("file")).ok(),
                fs::read(whole.join(name).join("file")).ok()
            );
            handles::open(&root, &handles::of(&path).expect("it gives one")).expect("its own");
            continue;
        }
        let absent = |what: &str, error: io::Error| {
            assert_eq!(error.raw_os_error(), Some(libc::ENOENT), "{what} of {name}: {error}");
        };
        absent("stat", fs::symlink_metadata(&path).map(|_| ()).expect_err("stat"));
        absent("a file", fs::read(path.join("file")).map(|_| ()).expect_err("read"));
        absent("listing", fs::read_dir(&path).map(|_| ()).expect_err("readdir"));
        absent("readlink", fs::read_link(path.join("sideways")).map(|_| ()).expect_err("readlink"));
        let mut buffer = [0; 100];
        let attribute = rustix::fs::lgetxattr(&path, ATTRIBUTE, &mut buffer);
        assert_eq!(attribute, Err(rustix::io::Errno::NOENT), "{name}");
        let attributes = rustix::fs::llistxattr(&path, &mut buffer);
        assert_eq!(attributes, Err(rustix::io::Errno::NOENT), "{name}");
        absent("handle", handles::of(&path).map(|_| ()).expect_err("a handle"));
        let forged = handles::open(&root, &handle).map(|_| ()).expect_err("a forged handle");
        assert_eq!(forged.raw_os_error(), Some(libc::ESTALE), "{name}");
    }
    // Links that lead from what is visible to what is not.
    for pair in names.windows(2).filter(|pair| visible.contains(&pair[1])) {
        let link = mount.join(&pair[1]).join("sideways/file");
        assert_eq!(fs::read(link).is_ok(), visible.contains(&pair[0]));
    }
}

#[test]
fn nothing_outside_a_view_can_be_reached_by_any_way_through_the_kernel() {
    if !can_mount() {
        return;
    }
    let dir = tempfile::tempdir().expect("a temporary directory");
    let store = dir.path().join("store");
    let names = many(&store, dir.path());
    let whole = Mounted::with(&mut lazystore(&store), &dir.path().join("whole"), &["--list-root"]);
    assert_eq!(listed(&whole.path).len(), names.len());
    let some = |indices: &[usize]| indices.iter().map(|index| names[*index].clone()).collect();

    // With --list-root, too, only these are listed.
    let args = ["--list-root", "--only", &names[3], &names[14], "--show-xattr"];
    let mounted = Mounted::with(&mut lazystore(&store), &dir.path().join("only"), &args);
    assert_just(&mounted.path, &whole.path, &names, &some(&[3, 14]));
    drop(mounted);

    let absolute = format!("/nix/store/{}", names[14]);
    let args = ["--closure-of", &absolute, "--closure-of", &names[6], "--"];
    let mounted = Mounted::with(&mut lazystore(&store), &dir.path().join("closure"), &args);
    assert_just(&mounted.path, &whole.path, &names, &some(&[12, 13, 14, 6]));
    drop(mounted);

    let list = dir.path().join("list");
    write(&list, format!("/nix/store/{}\n{}\n", names[20], names[21]), 0o644);
    let args = ["--only-from", list.to_str().expect("UTF-8"), "--only", &names[1]];
    let mounted = Mounted::with(&mut lazystore(&store), &dir.path().join("from"), &args);
    assert_just(&mounted.path, &whole.path, &names, &some(&[1, 20, 21]));
    drop(mounted);

    write(&list, "", 0o644);
    let args = ["--only-from", list.to_str().expect("UTF-8")];
    let mounted = Mounted::with(&mut lazystore(&store), &dir.path().join("none"), &args);
    assert_just(&mounted.path, &whole.path, &names, &BTreeSet::new());
}

#[test]
fn what_is_imported_for_a_mount_is_shown_and_appears_where_it_is_named() {
    if !can_mount() {
        return;
    }
    let dir = tempfile::tempdir().expect("a temporary directory");
    let (store, elsewhere) = (dir.path().join("store"), dir.path().join("elsewhere"));
    let (first, late) = (dir.path().join("first"), dir.path().join("late"));
    write(&first, "first", 0o644);
    write(&late, "late", 0o644);
    let late_name = import(&elsewhere, &late);
    let args = ["--import", first.to_str().expect("UTF-8"), "--only", &late_name];
    let mounted = Mounted::with(&mut lazystore(&store), &dir.path().join("mnt"), &args);
    let first_name = import(&elsewhere, &first);
    assert_eq!(listed(&mounted.path), BTreeSet::from([first_name.clone()]));
    assert!(!mounted.path.join(&late_name).exists());
    import(&store, &late);
    assert_eq!(fs::read(mounted.path.join(&late_name)).expect("it has appeared"), b"late");
    assert_eq!(listed(&mounted.path), BTreeSet::from([first_name, late_name]));
}

#[test]
fn a_closure_that_is_not_there_and_names_that_are_none_are_told_before_anything_is_mounted() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let (store, mnt) = (dir.path().join("store"), dir.path().join("mnt"));
    let absent = "00000000000000000000000000000000-absent";
    let list = dir.path().join("list");
    write(&list, "x\n", 0o644);
    for (args, code, text) in [
        (&["--closure-of", absent][..], 3, absent),
        (&["--only", "x", "y"][..], 1, "x is no store path"),
        (&["--only-from", list.to_str().expect("UTF-8")][..], 1, "line 1"),
    ] {
        let output = lazystore(&store).arg("mount").args(args).arg("--").arg(&mnt).output();
        let output = output.unwrap_or_else(|error| panic!("{PROGRAM}: {error}"));
        let said = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(code), "{said}");
        assert!(said.contains(text), "{said}");
        assert!(!mnt.exists());
    }
    run(lazystore(&store).args(["mount", "--help"]));
}
