//! Looking after the cache: `lazystore cache` and `lazystore fetch`.

use std::{
    fs,
    os::unix::fs::FileExt as _,
    path::{Path, PathBuf},
    process::Command,
};

use crate::{
    commands::{failed, text},
    support::{Running, import, lazystore, noise, run, sample_tree, write},
};

/// A daemon over a store, and a cache before it.
struct Remote {
    dir: tempfile::TempDir,
    _daemon: Running,
}

impl Remote {
    fn new() -> Self {
        let dir = tempfile::tempdir().expect("a folder");
        let mut daemon = lazystore(&dir.path().join("store"));
        daemon.arg("daemon").arg(format!("--listen=unix:{}/socket", dir.path().display()));
        let mut daemon = Running::start(&mut daemon);
        daemon.wait_for_line("listening");
        Remote { dir, _daemon: daemon }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn import(&self, path: &Path) -> String {
        import(&self.path("store"), path)
    }

    fn command(&self, args: &[&str]) -> Command {
        let mut command = lazystore(Path::new("/nonexistent"));
        command.env("LAZYSTORE_STORE", format!("grpc+unix://{}", self.path("socket").display()));
        command.env("LAZYSTORE_CACHE_DIR", self.path("cache")).args(args);
        command
    }

    /// What it prints. Nothing else is said into a pipe.
    fn run(&self, args: &[&str]) -> String {
        let output = run(&mut self.command(args));
        assert_eq!(text(&output.stderr), "", "{args:?}");
        text(&output.stdout)
    }

    fn stats(&self) -> serde_json::Value {
        serde_json::from_str(&self.run(&["cache", "stats", "--json"])).expect("JSON")
    }
}

/// Files of which each is evicted by itself.
fn tree(path: &Path, seed: u64) {
    fs::create_dir(path).expect("new");
    for number in 0..10 {
        write(path.join(number.to_string()), noise(seed * 100 + number, 200_000), 0o644);
    }
}

#[test]
fn what_was_fetched_is_read_while_the_remote_is_gone() {
    let remote = Remote::new();
    sample_tree(&remote.path("tree"));
    let name = remote.import(&remote.path("tree"));
    assert_eq!(remote.run(&["fetch", &name]), "");
    assert_eq!(remote.run(&["fetch", "--closure", &name]), "", "again, and there is nothing to do");
    let Remote { dir, _daemon: daemon } = remote;
    drop(daemon);
    let offline = |args: &[&str]| {
        let mut command = lazystore(Path::new("/nonexistent"));
        command.env("LAZYSTORE_STORE", "grpc+unix:///nonexistent/socket");
        command.env("LAZYSTORE_CACHE_DIR", dir.path().join("cache")).args(args);
        command
    };
    for file in ["file-3000001", "file-4095", "executable", "twin-b/inner/file", "wide/entry-77"] {
        let read = run(&mut offline(&["cat", &format!("{name}/{file}")])).stdout;
        assert!(read == fs::read(dir.path().join("tree").join(file)).expect("ours"), "{file}");
    }
    // What is all here needs nobody to be told so.
    run(&mut offline(&["fetch", &name]));
}

#[test]
fn fetch_tells_absent_from_what_does_not_fit() {
    let remote = Remote::new();
    write(remote.path("large"), noise(1, 20 << 20), 0o644);
    let name = remote.import(&remote.path("large"));
    let absent = "00000000000000000000000000000000-absent";
    let said = failed(&remote.command(&["fetch", absent]).output().expect("it runs"), 3);
    assert!(said.contains("-absent is not in the store"), "{said}");
    let output = remote.command(&["fetch", "--cache-size=16M", &name]).output();
    let said = failed(&output.expect("it runs"), 1);
    assert!(said.contains("1 of 1 files are not kept here: the cache is too small"), "{said}");
    let said = failed(&remote.command(&["fetch", "x"]).output().expect("it runs"), 1);
    assert!(said.contains("x is no store path"), "{said}");
}

#[test]
fn a_pinned_closure_stays_whatever_is_pruned() {
    let remote = Remote::new();
    for (name, seed) in [("pinned", 1), ("other", 2)] {
        tree(&remote.path(name), seed);
    }
    write(remote.path("pinned/small"), "small", 0o644);
    let pinned = remote.import(&remote.path("pinned"));
    let other = remote.import(&remote.path("other"));
    let absolute = format!("/nix/store/{pinned}");
    let said = remote.run(&["cache", "pin", &pinned]);
    assert_eq!(said, format!("{absolute}: 0 of 11 files are here\n"));
    remote.run(&["fetch", &pinned, &other]);
    assert_eq!(
        remote.run(&["cache", "pin", &pinned]),
        format!("{absolute}: 11 of 11 files are here\n")
    );
    assert_eq!(remote.run(&["cache", "pin"]), format!("{absolute}\n"));
    let stats = remote.stats();
    assert_eq!((&stats["files"]["count"], &stats["pins"]), (&20.into(), &1.into()), "{stats}");

    let said = remote.run(&["cache", "prune", "--to", "0"]);
    assert!(said.contains("what is left is pinned, in use, or the database"), "{said}");
    let stats = remote.stats();
    assert_eq!((&stats["files"]["count"], &stats["packed"]["count"]), (&10.into(), &1.into()));
    assert_eq!(
        remote.run(&["cache", "pin", &pinned]),
        format!("{absolute}: 11 of 11 files are here\n")
    );

    assert_eq!(remote.run(&["cache", "unpin", &absolute]), "");
    let output = remote.command(&["cache", "unpin", &absolute]).output().expect("it runs");
    assert!(failed(&output, 3).contains("is not pinned"));
    remote.run(&["cache", "prune", "--to", "0"]);
    let stats = remote.stats();
    assert_eq!((&stats["files"]["count"], &stats["packed"]["count"]), (&0.into(), &0.into()));
}

#[test]
fn verify_finds_and_removes_what_is_damaged() {
    let remote = Remote::new();
    tree(&remote.path("tree"), 1);
    write(remote.path("tree/small"), "small", 0o644);
    let name = remote.import(&remote.path("tree"));
    remote.run(&["fetch", &name]);
    // Ten files, a small one, a directory, a path info.
    let said = remote.run(&["cache", "verify"]);
    assert!(said.starts_with("13 objects with 1.91 MiB are as they should be"), "{said}");

    let digest = blake3::hash(&noise(103, 200_000)).to_hex();
    let file = remote.path("cache/blobs").join(&digest[..2]).join(&digest[..]);
    let write_at = |path: &Path, at| {
        let file = fs::File::options().write(true).open(path).expect("ours");
        file.write_all_at(b"damaged", at).expect("it writes");
    };
    write_at(&file, 100_000);
    write_at(&remote.path("cache/packs/00000000.pack"), 38);
    let output = remote.command(&["cache", "verify"]).output().expect("it runs");
    let said = failed(&output, 1);
    assert!(said.contains("error: 2 of 13 objects were damaged, and are removed"), "{said}");
    assert!(!file.exists());
    assert!(remote.run(&["cache", "verify"]).starts_with("11 objects"));
    remote.run(&["fetch", &name]);
    assert!(remote.run(&["cache", "verify"]).starts_with("13 objects"));
}

#[test]
fn a_cache_that_is_not_there_is_not_made_by_looking_at_it() {
    let remote = Remote::new();
    for args in [&["cache", "stats"][..], &["cache", "verify"], &["cache", "prune"]] {
        let said = failed(&remote.command(args).output().expect("it runs"), 1);
        assert!(said.contains("there is no cache in"), "{said}");
        let none = [args, &["--cache-dir=none"]].concat();
        let said = failed(&remote.command(&none).output().expect("it runs"), 1);
        assert!(said.contains("there is no cache: --cache-dir is none"), "{said}");
    }
    assert!(!remote.path("cache").exists());
    // Nor is a store taken for one.
    let mut command = remote.command(&["cache", "prune", "--to=0"]);
    let output = command.env("LAZYSTORE_CACHE_DIR", remote.path("store")).output();
    let said = failed(&output.expect("it runs"), 1);
    assert!(said.contains("is a store, of which nothing may be forgotten"), "{said}");
}

#[test]
fn stats_are_told_to_people_too() {
    let remote = Remote::new();
    tree(&remote.path("tree"), 1);
    let name = remote.import(&remote.path("tree"));
    remote.run(&["fetch", &name]);
    let said = remote.run(&["cache", "stats", "--cache-size=1GiB"]);
    for line in ["large files:  10, 1.91 MiB", "store paths:  1", "pinned:       0", " of 1.00 GiB"]
    {
        assert!(said.contains(line), "{said}");
    }
}
