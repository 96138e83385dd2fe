//! `lazystore verify` and `lazystore sign` of what the real Nix made.

use std::{
    fs,
    os::unix::fs::FileExt as _,
    path::{Path, PathBuf},
    process::Command,
};

use serde_json::Value;

use crate::{
    copy::{building_nix, can_build, text},
    real_nix::nix,
    support::{files, have_program, lazystore, noise, run, write},
};

/// A store of the real Nix with a path of every kind, copied.
struct Copied {
    dir: tempfile::TempDir,
    secret: PathBuf,
    public: String,
}

impl Copied {
    /// With `make`, everything that it adds to the store.
    fn new(make: impl Fn(&Path, &Path)) -> Self {
        let dir = tempfile::tempdir().expect("a folder");
        let root = dir.path().join("nix");
        make(dir.path(), &root);
        let (secret, public) = (dir.path().join("secret"), dir.path().join("public"));
        let mut command = nix("nix-store", &root);
        let command = command.args(["--generate-binary-cache-key", "test-1"]);
        run(command.arg(&secret).arg(&public));
        let list = dir.path().join("list.json");
        fs::write(&list, run(nix("nix", &root).args(["path-info", "--json", "--all"])).stdout)
            .expect("new");
        let public = fs::read_to_string(public).expect("it was made");
        let copied = Copied { dir, secret, public };
        run(copied.lazystore().arg("copy").arg("--root").arg(&root).arg(&list));
        copied
    }

    fn root(&self) -> PathBuf {
        self.dir.path().join("nix")
    }

    fn store(&self) -> PathBuf {
        self.dir.path().join("store")
    }

    fn lazystore(&self) -> Command {
        lazystore(&self.store())
    }

    /// What `verify` prints on standard output, and its exit code.
    fn verify(&self, args: &[&str]) -> (String, Option<i32>) {
        let output = self.lazystore().arg("verify").args(args).output().expect("it runs");
        assert_eq!(output.status.success(), output.stderr.is_empty(), "{output:?}");
        (text(&output.stdout), output.status.code())
    }

    /// All store paths, by Nix.
    fn infos(&self) -> Vec<Value> {
        let list = run(nix("nix", &self.root()).args(["path-info", "--json", "--all"])).stdout;
        serde_json::from_slice(&list).expect("JSON")
    }
}

/// Paths with every kind of content address.
fn add_content_addressed(dir: &Path, root: &Path) {
    let (file, tree) = (dir.join("file"), dir.join("tree"));
    write(&file, noise(1, 100_000), 0o644);
    fs::create_dir(&tree).expect("new");
    write(tree.join("script"), "#!/bin/sh\n", 0o755);
    run(nix("nix-store", root).arg("--add").arg(&tree));
    for algorithm in ["md5", "sha1", "sha256", "sha512"] {
        run(nix("nix-store", root).args(["--add-fixed", algorithm]).arg(&file));
        run(nix("nix-store", root).args(["--add-fixed", "--recursive", algorithm]).arg(&tree));
    }
    let text = "builtins.toFile \"b\" \"see ${builtins.toFile \"a\" \"contents\"}\"";
    let mut command = nix("nix-instantiate", root);
    run(command.args(["--eval", "--read-write-mode", "--expr", text]));
}

#[test]
fn every_kind_of_content_address_needs_no_signature() {
    if !have_program("nix-store") {
        return;
    }
    let copied = Copied::new(add_content_addressed);
    // What --add makes is what --add-fixed --recursive sha256 makes.
    assert_eq!(copied.infos().len(), 10);
    let (out, code) = copied.verify(&["--all", "--trusted-public-keys", copied.public.trim()]);
    assert_eq!((out.starts_with("10 store paths with "), code), (true, Some(0)), "{out}");
}

/// A path that names itself, as a build makes it and as its contents address it.
#[test]
fn what_a_build_made_must_be_signed_and_what_names_itself_is_proven() {
    if !can_build() {
        return;
    }
    let copied = Copied::new(|dir, root| {
        let build = "derivation { name = \"itself\"; system = builtins.currentSystem;
            builder = \"/bin/sh\"; args = [ \"-c\" \"echo I am $out > $out; echo $out >> $out\" ]; }";
        let mut command = building_nix("nix-build", root, dir);
        let built = text(&run(command.args(["--no-out-link", "--expr", build])).stdout);
        let mut command = building_nix("nix", root, dir);
        run(command.args(["store", "make-content-addressed", &built]));
    });
    let keys = ["--all", "--trusted-public-keys", copied.public.trim()];
    let infos = copied.infos();
    let find = |is_addressed: bool| {
        let found = infos.iter().find(|info| {
            let path = info["path"].as_str().expect("a path");
            path.ends_with("-itself") && info["ca"].is_string() == is_addressed
        });
        found.expect("it was made")["path"].as_str().expect("a path")
    };
    let (built, addressed) = (find(false), find(true));
    let (out, code) = copied.verify(&keys);
    assert_eq!(out, format!("{built}: it is not signed by a trusted key"));
    assert_eq!(code, Some(1));
    assert_eq!(copied.verify(&["--all"]).1, Some(0), "without keys nothing must be signed");

    // Twice, since a signature that is there is not added again.
    for _ in 0..2 {
        let mut command = copied.lazystore();
        let output =
            run(command.arg("sign").arg("--key").arg(&copied.secret).args([built, addressed]));
        assert!(output.stdout.is_empty() && output.stderr.is_empty());
    }
    assert_eq!(copied.verify(&keys).1, Some(0));
    // The real Nix makes the same signature.
    let mut command = nix("nix", &copied.root());
    run(command.args(["store", "sign", "--key-file"]).arg(&copied.secret).arg(built));
    let theirs = run(nix("nix", &copied.root()).args(["path-info", "--json", built])).stdout;
    let theirs: Value = serde_json::from_slice(&theirs).expect("JSON");
    let ours = run(copied.lazystore().args(["path-info", "--json", built])).stdout;
    let ours: Value = serde_json::from_slice(&ours).expect("JSON");
    assert_eq!(ours[built]["signatures"], theirs[0]["signatures"]);
    assert_eq!(ours[built]["signatures"].as_array().map(Vec::len), Some(1));

    run(copied.lazystore().args(["sign", "--all", "--key"]).arg(&copied.secret));
    let other = "other-1:MqEdMYYYXKeVAuvCkufrt9P02lv1shS/oktlJ4kSK5c=";
    let (out, code) = copied.verify(&["--trusted-public-keys", other, built]);
    assert_eq!((out.contains("not signed by a trusted key"), code), (true, Some(1)), "{out}");
}

/// Two paths, one of them with a large and a small file.
fn tree_and_file(dir: &Path, root: &Path) {
    let tree = dir.join("tree");
    fs::create_dir_all(tree.join("inner")).expect("new");
    write(tree.join("inner/large"), noise(1, 2_000_000), 0o644);
    write(tree.join("inner/small"), noise(2, 2000), 0o644);
    run(nix("nix-store", root).arg("--add").arg(&tree));
    let other = dir.join("other");
    write(&other, noise(3, 1_000_000), 0o644);
    run(nix("nix-store", root).arg("--add").arg(&other));
}

/// Flips a bit of `contents`, at the byte `at`, wherever in `store` they lie.
fn flip(store: &Path, contents: &[u8], at: usize) {
    let (before, after) = (&contents[..at], &contents[at + 1..]);
    let place = |file: &Path| {
        let bytes = fs::read(file).ok()?;
        let mut windows = bytes.windows(contents.len());
        let start = windows.position(|w| w[..at] == *before && w[at + 1..] == *after)?;
        Some((start + at, bytes[start + at]))
    };
    let found = files(store).into_iter().find_map(|file| Some((place(&file)?, file)));
    let ((place, byte), file) = found.expect("the contents lie in the store as they are");
    let opened = fs::OpenOptions::new().write(true).open(&file).expect("root may");
    opened.write_all_at(&[byte ^ 1], place as u64).expect("root may");
}

/// Each flipped bit of a file is found and told with the place of the file, whether it is packed or not; and what is
/// damaged can be brought back.
#[test]
fn flipped_bits_are_found_named_and_repaired() {
    if !have_program("nix-store") {
        return;
    }
    let copied = Copied::new(tree_and_file);
    let infos = copied.infos();
    let find = |name: &str| {
        let mut paths = infos.iter().filter_map(|info| info["path"].as_str());
        paths.find(|path| path.ends_with(name)).expect("it was added")
    };
    let (tree, other) = (find("-tree"), find("-other"));
    let (large, small, file) = (noise(1, 2_000_000), noise(2, 2000), noise(3, 1_000_000));
    let told = || {
        let (out, code) = copied.verify(&["--all"]);
        assert_eq!(code, Some(1), "{out}");
        let mut told: Vec<_> = out.lines().map(str::to_owned).collect();
        told.sort();
        told
    };
    assert_eq!(copied.verify(&["--all"]).1, Some(0));
    for (contents, at, named) in [
        (&large, 1_999_999, format!("{tree}/inner/large: blob blake3-")),
        (&small, 1000, format!("{tree}/inner/small: blob blake3-")),
        (&file, 0, format!("{other}: blob blake3-")),
    ] {
        flip(&copied.store(), contents, at);
        let told = told();
        assert!(told.len() == 1 && told[0].starts_with(&named), "{told:?}");
        flip(&copied.store(), contents, at);
        assert_eq!(copied.verify(&["--all"]).1, Some(0));
    }
    for (contents, at) in [(&large, 7), (&small, 7), (&file, 7)] {
        flip(&copied.store(), contents, at);
    }
    assert_eq!(told().len(), 3);
    assert_eq!(copied.verify(&[tree, "--remove-damaged"]).1, Some(1));
    let told = told();
    assert_eq!(told.iter().filter(|line| line.contains("it is missing")).count(), 2, "{told:?}");
    assert_eq!(copied.verify(&["--all", "--remove-damaged"]).1, Some(1));
    let copy = |again: &[&str]| {
        let mut command = copied.lazystore();
        command.arg("copy").args(again).arg("--root").arg(copied.root());
        run(command.arg(copied.dir.path().join("list.json")));
    };
    copy(&[]);
    assert_eq!(copied.verify(&["--all"]).1, Some(1), "what is there is left out");
    copy(&["--again"]);
    assert_eq!(copied.verify(&["--all"]).1, Some(0));

    let absent = "/nix/store/n5wkd9frr45pa74if5gpz9j7mifg27fh-foo";
    assert_eq!(copied.verify(&[absent]).1, Some(3));
    assert_eq!(copied.verify(&[]).1, Some(2));
    assert_eq!(copied.verify(&["--all", "--remove-damaged", "--store", "memory:"]).1, Some(2));
}
