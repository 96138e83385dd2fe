//! Real Nix takes a closure from `lazystore serve`.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use crate::{
    closure::{self, Closure, PATHS},
    http::Server,
    real_nix::{nix, nix_at},
    support::{assert_same, have_program, lazystore, run, walk},
};

/// A closure that is served, signed with a key of Nix.
struct Served {
    folder: tempfile::TempDir,
    closure: Closure,
    server: Server,
    public_key: String,
}

impl Served {
    fn new() -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let served = closure::serve(folder.path(), &["--priority", "17"]);
        let closure::Served { closure, server, public_key } = served;
        Served { folder, closure, server, public_key }
    }

    /// Where a Nix of its own is.
    fn nix_root(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// A Nix whose store is what is served.
    fn nix_on_it(&self) -> Command {
        nix_at("nix", &self.server.url(), &self.nix_root("home"))
    }

    /// What a Nix has must be what was made.
    fn check_all(&self, root: &Path) {
        for (name, tree) in &self.closure.trees {
            assert_same(tree, &walk(&root.join("nix/store").join(name)));
        }
    }
}

#[test]
fn nix_copies_a_closure_that_must_be_signed() {
    if !have_program("nix") {
        return;
    }
    let served = Served::new();
    let (root, url) = (served.nix_root("nix"), served.server.url());
    let copy = |key: &str| {
        let mut copy = nix("nix", &root);
        copy.args(["copy", "--from", &url, &served.closure.root]);
        copy.args(["--option", "trusted-public-keys", key]);
        copy
    };
    let wrong = copy("test-1:AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=").output();
    let wrong = wrong.expect("Nix runs");
    assert!(!wrong.status.success());
    assert!(String::from_utf8_lossy(&wrong.stderr).contains("lacks a valid signature"));

    run(&mut copy(&served.public_key));
    served.check_all(&root);
    let mut verify = nix("nix", &root);
    verify.args(["store", "verify", "--all", "--sigs-needed", "1"]);
    run(verify.args(["--option", "trusted-public-keys", &served.public_key]));
    let known = run(nix("nix", &root).args(["path-info", "-r", &served.closure.root])).stdout;
    assert_eq!(known.split(|byte| *byte == b'\n').count(), PATHS + 1);
}

#[test]
fn nix_looks_into_the_cache() {
    if !have_program("nix") {
        return;
    }
    let served = Served::new();
    let closure = &served.closure;
    let mut infos = served.nix_on_it();
    let infos = run(infos.args(["path-info", "-r", "--json", &closure.root])).stdout;
    let infos: serde_json::Value = serde_json::from_slice(&infos).expect("JSON");
    let infos = infos.as_array().expect("a list");
    assert_eq!(infos.len(), PATHS);
    for info in infos {
        let url = info["url"].as_str().expect("text");
        let name = url.strip_prefix("nar/").and_then(|url| url.strip_suffix(".nar"));
        let path = info["path"].as_str().expect("text");
        assert_eq!(name.map(|name| &name[..32]), path.get(11..43), "{info}");
        assert_eq!(info["signatures"].as_array().map(Vec::len), Some(1));
        assert_eq!(info["narSize"], info["downloadSize"]);
        assert_eq!(info["narHash"], info["downloadHash"]);
    }
    let mut ls = served.nix_on_it();
    let listed = run(ls.args(["store", "ls", "-R", &closure.root])).stdout;
    let tree = &closure.trees[closure.root.strip_prefix("/nix/store/").expect("absolute")];
    // All but the root.
    assert_eq!(String::from_utf8_lossy(&listed).lines().count(), tree.len() - 1);
    let mut cat = served.nix_on_it();
    let script = run(cat.args(["store", "cat", &format!("{}/bin/run", closure.root)])).stdout;
    assert!(script.starts_with(b"#!/bin/sh\n/nix/store/"));
    let mut verify = served.nix_on_it();
    verify.args(["store", "verify", "-r", "--sigs-needed", "1", &closure.root]);
    run(verify.args(["--option", "trusted-public-keys", &served.public_key]));
}

#[test]
fn nix_realises_by_substitution() {
    if !have_program("nix-store") {
        return;
    }
    let served = Served::new();
    let root = served.nix_root("nix");
    let mut realise = nix("nix-store", &root);
    realise.args(["--realise", &served.closure.root]);
    realise.args(["--option", "substituters", &served.server.url()]);
    run(realise.args(["--option", "trusted-public-keys", &served.public_key]));
    served.check_all(&root);
}

#[test]
fn it_ends_by_sigterm_and_finishes_what_is_under_way() {
    let folder = tempfile::tempdir().expect("a folder");
    fs::create_dir(folder.path().join("scratch")).expect("new");
    let store = folder.path().join("store");
    closure::make(&store, &folder.path().join("scratch"));
    let mut server = Server::start(&mut lazystore(&store), &[]);
    server.running.signal(rustix::process::Signal::TERM);
    assert!(server.running.wait(), "{:?}", server.running.log);
}
