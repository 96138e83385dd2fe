//! `lazystore nar`: the archives, hashes and listings that Nix makes of the same trees.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use lazystore::nix::nar::{ListingEvent, ListingReader};

use crate::{
    real_nix::{nix, shapes},
    support::{Mounted, base_name, can_mount, have_program, lazystore, run, sample_tree, walk},
};

/// A folder with trees of all shapes, and a store into which they were imported.
struct Imported {
    folder: tempfile::TempDir,
    /// Each with the base name of its store path.
    trees: Vec<(PathBuf, String)>,
}

impl Imported {
    fn new() -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let inputs = folder.path().join("inputs");
        fs::create_dir(&inputs).expect("new");
        let mut inputs_made = shapes(&inputs);
        let sample = inputs.join("sample");
        sample_tree(&sample);
        // Nix limits the depth of archives; ours reaches beyond.
        fs::remove_dir_all(sample.join("deep")).expect("ours");
        inputs_made.push(sample);
        let mut import = lazystore(&folder.path().join("store"));
        let printed = run(import.arg("import").args(&inputs_made)).stdout;
        let printed = String::from_utf8(printed).expect("store paths are ASCII");
        let trees = inputs_made.into_iter().zip(printed.lines().map(base_name)).collect();
        Imported { folder, trees }
    }

    fn store(&self) -> PathBuf {
        self.folder.path().join("store")
    }

    fn nar(&self, args: &[&str]) -> Vec<u8> {
        run(lazystore(&self.store()).arg("nar").args(args)).stdout
    }
}

fn dumped(path: &Path) -> Vec<u8> {
    run(Command::new("nix-store").arg("--dump").arg(path)).stdout
}

#[test]
fn nar_dump_writes_what_nix_store_dump_writes() {
    if !have_program("nix-store") {
        return;
    }
    let imported = Imported::new();
    assert!(imported.trees.len() > 50);
    for (tree, name) in &imported.trees {
        assert!(imported.nar(&["dump", name]) == dumped(tree), "{tree:?}");
    }
    let (sample, name) = imported.trees.last().expect("there are some");
    for inner in ["file-1048577", "links/odd", "wide", "odd names"] {
        let ours = imported.nar(&["dump", &format!("/nix/store/{name}/{inner}")]);
        assert!(ours == dumped(&sample.join(inner)), "{inner}");
    }
}

#[test]
fn nar_hash_tells_what_nix_hash_path_tells() {
    if !have_program("nix") {
        return;
    }
    let imported = Imported::new();
    let root = imported.folder.path().join("nix");
    for (format, option) in [("sri", "--sri"), ("base32", "--base32"), ("base16", "--base16")] {
        let mut ours = lazystore(&imported.store());
        ours.args(["nar", "hash", "--format", format]);
        let ours = run(ours.args(imported.trees.iter().map(|(_, name)| name))).stdout;
        let mut theirs = nix("nix", &root);
        theirs.args(["hash", "path", option]).args(imported.trees.iter().map(|(tree, _)| tree));
        assert_eq!(
            String::from_utf8_lossy(&ours),
            String::from_utf8_lossy(&run(&mut theirs).stdout)
        );
    }
    let (tree, name) = &imported.trees[0];
    let line = String::from_utf8(imported.nar(&["hash", "--size", name])).expect("ASCII");
    assert!(line.ends_with(&format!(" {}\n", dumped(tree).len())), "{line}");
}

/// Nix is asked for `.ls` files beside its archives.
#[test]
fn nar_ls_writes_the_listings_of_a_binary_cache() {
    if !have_program("nix") {
        return;
    }
    let imported = Imported::new();
    let root = imported.folder.path().join("nix");
    let cache = imported.folder.path().join("cache");
    let trees = imported.trees.iter().map(|(tree, _)| tree);
    run(nix("nix-store", &root).arg("--add").args(trees));
    let to = format!("file://{}?write-nar-listing=1&compression=none", cache.display());
    run(nix("nix", &root).args(["copy", "--no-check-sigs", "--all", "--to", &to]));
    for (tree, name) in &imported.trees {
        let theirs = cache.join(format!("{}.ls", &name[..32]));
        let theirs = fs::read(&theirs).expect("Nix wrote it");
        let mut ours = imported.nar(&["ls", "--json", name]);
        assert_eq!(ours.pop(), Some(b'\n'));
        assert_eq!(ours.escape_ascii().to_string(), theirs.escape_ascii().to_string(), "{tree:?}");
        let mut reader = ListingReader::new(&theirs[..]);
        let mut nodes = 0;
        while let Some(event) = reader.next_event().unwrap_or_else(|e| panic!("{tree:?}: {e}")) {
            nodes +=
                usize::from(!matches!(event, ListingEvent::Entry(_) | ListingEvent::EndDirectory));
        }
        assert_eq!(nodes, walk(tree).len(), "{tree:?}");
    }
    let (_, sample) = imported.trees.last().expect("there are some");
    let listed = imported.nar(&["ls", sample]);
    for line in [
        "dr-xr-xr-x            2 ./twin-a\n",
        "-r--r--r--            4 ./twin-a/inner/file\n",
        "-r-xr-xr-x           20 ./executable\n",
        "lrwxrwxrwx            8 ./links/up -> ../plain\n",
    ] {
        let found = listed.windows(line.len()).any(|window| window == line.as_bytes());
        assert!(found, "{line:?}");
    }
}

#[test]
fn nix_makes_the_same_archives_of_what_is_mounted() {
    if !have_program("nix-store") || !can_mount() {
        return;
    }
    let imported = Imported::new();
    let mountpoint = imported.folder.path().join("mnt");
    let mounted = Mounted::new(&mut lazystore(&imported.store()), &mountpoint);
    for (tree, name) in &imported.trees {
        assert!(dumped(&mountpoint.join(name)) == dumped(tree), "{tree:?}");
    }
    mounted.unmount();
}
