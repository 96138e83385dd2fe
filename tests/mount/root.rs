//! The root: which names are there, and when.

use std::{
    collections::BTreeSet,
    fs,
    io::{self, Write as _},
    path::Path,
    process::Stdio,
    thread,
};

use crate::support::{Mounted, can_mount, import, lazystore, run, write};

fn listed(root: &Path) -> Vec<String> {
    let entries = fs::read_dir(root).expect("the root always lists");
    entries
        .map(|entry| entry.expect("it lists").file_name().into_string().expect("ASCII"))
        .collect()
}

fn small_files(dir: &Path, count: usize) -> Vec<std::path::PathBuf> {
    fs::create_dir_all(dir).expect("new");
    (0..count)
        .map(|number| {
            let path = dir.join(format!("item-{number}"));
            write(&path, format!("{} {number}", dir.display()), 0o644);
            path
        })
        .collect()
}

fn assert_absent(path: &Path) {
    let error = fs::symlink_metadata(path).expect_err("it should be absent");
    assert_eq!(error.kind(), io::ErrorKind::NotFound, "{path:?}: {error}");
}

#[test]
fn without_list_root_the_root_lists_what_was_looked_up() {
    if !can_mount() {
        return;
    }
    let dir = tempfile::tempdir().expect("a temporary directory");
    let store = dir.path().join("store");
    let files = small_files(&dir.path().join("files"), 3);
    let names: Vec<_> = files.iter().map(|file| import(&store, file)).collect();
    let mounted = Mounted::new(&mut lazystore(&store), &dir.path().join("mnt"));
    assert_eq!(listed(&mounted.path), [""; 0]);
    fs::metadata(mounted.path.join(&names[1])).expect("there");
    assert_eq!(listed(&mounted.path), [names[1].as_str()]);
}

#[test]
fn an_unknown_path_is_absent_until_it_appears() {
    if !can_mount() {
        return;
    }
    let dir = tempfile::tempdir().expect("a temporary directory");
    let (store, other) = (dir.path().join("store"), dir.path().join("other"));
    let file = dir.path().join("file");
    write(&file, "late", 0o644);
    let name = import(&other, &file);
    let mut command = lazystore(&store);
    let mounted = Mounted::new(command.arg("--log-level=info"), &dir.path().join("mnt"));
    let path = mounted.path.join(&name);
    for _ in 0..3 {
        assert_absent(&path);
    }
    assert_eq!(import(&store, &file), name);
    assert_eq!(fs::read(&path).expect("it is there at once"), b"late");
    assert_eq!(listed(&mounted.path), [name]);
}

#[test]
fn the_whole_name_must_match() {
    if !can_mount() {
        return;
    }
    let dir = tempfile::tempdir().expect("a temporary directory");
    let store = dir.path().join("store");
    write(dir.path().join("file"), "x", 0o644);
    let name = import(&store, &dir.path().join("file"));
    let mounted = Mounted::new(&mut lazystore(&store), &dir.path().join("mnt"));
    let digest = &name[..32];
    for wrong in
        [format!("{digest}-wrongname"), format!("{digest}-"), digest.to_owned(), format!("{name}x")]
    {
        assert_absent(&mounted.path.join(wrong));
    }
    fs::metadata(mounted.path.join(&name)).expect("there");
    assert_absent(&mounted.path.join(format!("{digest}-wrongname")));
    assert_eq!(listed(&mounted.path), [name]);
}

#[test]
fn names_that_are_no_store_paths_are_absent_without_asking_anyone() {
    if !can_mount() {
        return;
    }
    let dir = tempfile::tempdir().expect("a temporary directory");
    // Nobody listens there: asking would be an error other than ENOENT.
    let mut command = lazystore(Path::new("/nonexistent"));
    command.env("LAZYSTORE_STORE", format!("grpc+unix://{}/nobody", dir.path().display()));
    let mounted = Mounted::new(&mut command, &dir.path().join("mnt"));
    for name in
        [".git", "lost+found", "index.html", ".links", "x", "00000000000000000000000000000000"]
    {
        assert_absent(&mounted.path.join(name));
    }
    let error = fs::metadata(mounted.path.join("00000000000000000000000000000000-name"));
    let error = error.expect_err("nobody can be asked").raw_os_error();
    assert_eq!(error, Some(libc::EHOSTUNREACH));
}

#[test]
fn a_wide_directory_loses_no_entry_whatever_the_buffer() {
    if !can_mount() {
        return;
    }
    const COUNT: usize = 50_000;
    let dir = tempfile::tempdir().expect("a temporary directory");
    let tree = dir.path().join("tree");
    fs::create_dir(&tree).expect("new");
    let mut expected = BTreeSet::new();
    for number in 0..COUNT {
        let name = format!("{number}-{}", "n".repeat(number % 200));
        fs::write(tree.join(&name), "").expect("it can be written");
        expected.insert(name);
    }
    let name = import(&dir.path().join("store"), &tree);
    let mounted = Mounted::new(&mut lazystore(&dir.path().join("store")), &dir.path().join("mnt"));
    let image = mounted.path.join(name);
    for buffer_len in [512, 4096, 32_768, 1 << 20] {
        let opened = fs::File::open(&image).expect("it opens");
        let mut names = BTreeSet::new();
        let mut buffer = Vec::with_capacity(buffer_len);
        let mut entries = rustix::fs::RawDir::new(&opened, buffer.spare_capacity_mut());
        let mut count = 0;
        while let Some(entry) = entries.next() {
            let name = entry.expect("it lists").file_name().to_string_lossy().into_owned();
            if name != "." && name != ".." {
                names.insert(name);
                count += 1;
            }
        }
        assert_eq!(count, COUNT, "with {buffer_len} bytes");
        assert_eq!(names, expected, "with {buffer_len} bytes");
        crate::support::drop_kernel_caches();
    }
}

#[test]
fn the_root_loses_and_repeats_nothing_while_paths_are_added() {
    if !can_mount() {
        return;
    }
    let dir = tempfile::tempdir().expect("a temporary directory");
    let store = dir.path().join("store");
    let before = small_files(&dir.path().join("before"), 1500);
    let after = small_files(&dir.path().join("after"), 1500);
    run(lazystore(&store).arg("import").args(&before));
    let expected: BTreeSet<_> = {
        let output = run(lazystore(&store).arg("import").args(&before));
        let text = String::from_utf8(output.stdout).expect("ASCII");
        text.lines().map(crate::support::base_name).collect()
    };
    assert_eq!(expected.len(), 1500);
    let mut command = lazystore(&store);
    fs::create_dir(dir.path().join("mnt")).expect("new");
    command.arg("mount").arg("--list-root").arg(dir.path().join("mnt"));
    let mut running = crate::support::Running::start(&mut command);
    running.wait_for_line("mounted;");
    let mounted = Mounted { running, path: dir.path().join("mnt") };

    let mut importer = lazystore(&store);
    importer.arg("import").args(&after).stdout(Stdio::null()).stderr(Stdio::null());
    let mut importer = importer.spawn().expect("it runs");
    let mut rounds = 0;
    loop {
        let done = importer.try_wait().expect("our child").is_some();
        let names = listed(&mounted.path);
        let unique: BTreeSet<_> = names.iter().cloned().collect();
        assert_eq!(unique.len(), names.len(), "a name is repeated");
        assert!(
            unique.is_superset(&expected),
            "{} names are lost",
            expected.difference(&unique).count()
        );
        rounds += 1;
        if done {
            assert_eq!(names.len(), 3000, "after {rounds} rounds");
            break;
        }
        thread::yield_now();
    }
    io::stderr().write_all(format!("{rounds} listings\n").as_bytes()).expect("stderr");
}
