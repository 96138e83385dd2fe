//! Beside the real Nix: the same store paths, the same archives.

use std::{
    ffi::OsStr,
    fs,
    os::unix::{ffi::OsStrExt as _, fs::symlink},
    path::{Path, PathBuf},
    process::Command,
};

use lazystore::{
    castore::Node,
    ingest::{Progress, import_tree},
    render::{RenderNar, write_nar},
    service::{
        Stores, blob::backend::MemoryBlobs, directory::backend::MemoryDirectories,
        pathinfo::backend::MemoryPathInfos,
    },
};

use crate::support::{have_program, lazystore, noise, run, sample_tree, write};

/// Nix with a store of its own that is still called /nix/store, so that nothing outside is touched.
fn nix(program: &str, root: &Path) -> Command {
    let mut command = Command::new(program);
    command.env("NIX_CONFIG", "build-users-group =\nsandbox = false");
    command.args(["--store", root.to_str().expect("UTF-8")]);
    command
}

/// Some fifty inputs of all shapes.
fn shapes(dir: &Path) -> Vec<PathBuf> {
    let mut shapes = Vec::new();
    let mut add = |name: &str| {
        shapes.push(dir.join(name));
        dir.join(name)
    };
    for len in [
        0,
        1,
        2,
        3,
        7,
        8,
        9,
        15,
        16,
        31,
        63,
        64,
        65,
        4095,
        4096,
        4097,
        1 << 20,
        (1 << 20) + 1,
        2_500_001,
    ] {
        write(add(&format!("file-{len}")), noise(len as u64, len), 0o644);
    }
    for mode in [0o400, 0o444, 0o500, 0o555, 0o600, 0o644, 0o654, 0o700, 0o711, 0o744, 0o755, 0o777]
    {
        write(add(&format!("mode-{mode:o}")), "#!/bin/sh\n", mode);
    }
    for (name, target) in
        [("link-short", "x"), ("link-absolute", "/nix/store"), ("link-up", "../../x")]
    {
        symlink(target, add(name)).expect("new");
    }
    symlink(OsStr::from_bytes(&[b'l'; 4095]), add("link-long")).expect("new");
    symlink(OsStr::from_bytes(b"\xff\xfe"), add("link-odd")).expect("new");
    for name in ["a", "A", "name+with.all_the?legal=characters-0", "n".repeat(200).as_str()] {
        write(add(name), name, 0o644);
    }
    fs::create_dir(add("empty-directory")).expect("new");
    fs::create_dir_all(add("only-empty").join("a/b/c")).expect("new");
    for count in [1, 2, 100] {
        let dir = add(&format!("entries-{count}"));
        fs::create_dir(&dir).expect("new");
        for number in 0..count {
            write(dir.join(number.to_string()), number.to_string(), 0o644);
        }
    }
    // Names whose order as bytes is not that of a locale.
    let sorted = add("order");
    fs::create_dir(&sorted).expect("new");
    for name in ["a", "B", "a.b", "a-b", "ab", "a b", "Z", "_", "~", "\u{e9}", "e", "10", "9"] {
        write(sorted.join(name), name, 0o644);
    }
    fs::create_dir(sorted.join("a.d")).expect("new");
    symlink("a", sorted.join("a.l")).expect("new");
    let deep: PathBuf = (0..60).map(|level| level.to_string()).collect();
    fs::create_dir_all(add("deep").join(deep)).expect("new");
    let twins = add("twins");
    for place in ["x", "y"] {
        fs::create_dir_all(twins.join(place)).expect("new");
        write(twins.join(place).join("same"), "same", 0o755);
    }
    for round in 0..4 {
        let mixed = add(&format!("mixed-{round}"));
        fs::create_dir(&mixed).expect("new");
        for number in 0..20 {
            let name = mixed.join(format!("{}-{number}", number % 3));
            match (round + number) % 4 {
                0 => symlink(format!("{number}"), name).expect("new"),
                1 => fs::create_dir(name).expect("new"),
                kind => write(
                    name,
                    noise(number, 37 * number as usize),
                    [0o644, 0o755][kind as usize - 2],
                ),
            }
        }
    }
    shapes
}

#[test]
fn import_prints_what_nix_store_add_prints() {
    if !have_program("nix-store") {
        return;
    }
    let dir = tempfile::tempdir().expect("a folder");
    let inputs = dir.path().join("inputs");
    fs::create_dir(&inputs).expect("new");
    let shapes = shapes(&inputs);
    assert!(shapes.len() >= 50, "{}", shapes.len());
    let sample = inputs.join("sample");
    sample_tree(&sample);
    // Nix limits the depth of archives; ours reaches beyond.
    fs::remove_dir_all(sample.join("deep")).expect("ours");

    let mut command = lazystore(&dir.path().join("store"));
    let ours = run(command.arg("import").args(&shapes).arg(&sample)).stdout;
    let mut command = nix("nix-store", &dir.path().join("nix"));
    let theirs = run(command.arg("--add").args(&shapes).arg(&sample)).stdout;
    let lines = |bytes: &[u8]| -> Vec<String> {
        String::from_utf8_lossy(bytes).lines().map(str::to_owned).collect()
    };
    for ((ours, theirs), shape) in lines(&ours).iter().zip(lines(&theirs)).zip(&shapes) {
        assert_eq!(*ours, theirs, "{shape:?}");
    }
    assert_eq!(lines(&ours).len(), shapes.len() + 1);
    assert_eq!(lines(&ours), lines(&theirs));
}

#[test]
fn rendered_archives_are_those_of_nix_store_dump() {
    if !have_program("nix-store") {
        return;
    }
    let dir = tempfile::tempdir().expect("a folder");
    let shapes = shapes(dir.path());
    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    let (blobs, directories) =
        (std::sync::Arc::new(MemoryBlobs::new()), std::sync::Arc::new(MemoryDirectories::new()));
    let nars = RenderNar { blobs: blobs.clone(), directories: directories.clone() };
    let stores = Stores {
        blobs: blobs.clone(),
        directories: directories.clone(),
        path_infos: std::sync::Arc::new(MemoryPathInfos::new()),
        nars: std::sync::Arc::new(nars),
    };
    for shape in shapes {
        let progress = Progress::default();
        let import = import_tree(&shape, Some("x"), &stores, runtime.handle(), &progress);
        let import = import.expect("it imports");
        let node: &Node = &import.path_info.node;
        let nar = runtime.block_on(write_nar(&*blobs, &*directories, node, Vec::new()));
        let nar = nar.expect("it renders");
        let theirs = run(Command::new("nix-store").arg("--dump").arg(&shape)).stdout;
        assert!(nar == theirs, "{shape:?}: {} bytes instead of {}", nar.len(), theirs.len());
        let hash = runtime.block_on(stores.nars.calculate_nar(node)).expect("it renders");
        assert_eq!(hash.size, nar.len() as u64);
        assert_eq!(Some(hash), import.path_info.nar_info().map(|info| info.nar));
    }
}
