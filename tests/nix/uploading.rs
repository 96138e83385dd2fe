//! Real Nix brings store paths to `lazystore serve --allow-upload`, and takes them back.

use std::{fs, path::Path, process::Command};

use crate::{
    closure::{self, Closure},
    http::Server,
    real_nix::nix,
    support::{assert_same, have_program, lazystore, run, walk, write},
};

const TOKEN: &str = "a-token-of-some-length";

/// A closure in a Nix, and an empty store that takes uploads.
struct Scene {
    folder: tempfile::TempDir,
    closure: Closure,
    target: Server,
    public_key: String,
}

impl Scene {
    fn new() -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let closure::Served { closure, server: source, public_key } =
            closure::serve(folder.path(), &[]);
        let target = Self::target(folder.path());
        let scene = Scene { folder, closure, target, public_key };
        scene.pull("first", &source.url());
        scene
    }

    fn target(folder: &Path) -> Server {
        let tokens = folder.join("tokens");
        write(&tokens, TOKEN, 0o600);
        let args = ["--allow-upload", "--upload-token-file", tokens.to_str().expect("UTF-8")];
        Server::start(&mut lazystore(&folder.join("target")), &args)
    }

    /// A Nix of its own, which knows the token, and remembers of caches what all the others do.
    fn nix(&self, root: &str) -> Command {
        let netrc = self.folder.path().join("netrc");
        write(&netrc, format!("machine 127.0.0.1 login x password {TOKEN}\n"), 0o600);
        let mut command = nix("nix", &self.folder.path().join(root));
        command.env("XDG_CACHE_HOME", self.folder.path().join("home"));
        command.args([
            "--option",
            "trusted-public-keys",
            &self.public_key,
            "--option",
            "netrc-file",
        ]);
        command.arg(netrc);
        command
    }

    fn pull(&self, root: &str, url: &str) {
        run(self.nix(root).args(["copy", "--from", url, &self.closure.root]));
        for (name, tree) in &self.closure.trees {
            assert_same(tree, &walk(&self.folder.path().join(root).join("nix/store").join(name)));
        }
    }
}

#[test]
fn a_closure_goes_up_and_comes_back_byte_for_byte() {
    if !have_program("nix") {
        return;
    }
    let mut scene = Scene::new();
    let url = scene.target.url();
    run(scene.nix("first").args(["copy", "--to", &url, &scene.closure.root]));
    // Nix remembers the narinfos that it wrote itself, with the names of the files it brought.
    scene.pull("second", &url);
    // Nothing of that is needed by others, nor the process.
    scene.target = Scene::target(scene.folder.path());
    fs::remove_dir_all(scene.folder.path().join("home")).expect("it is there");
    scene.pull("third", &scene.target.url());
    let infos = |root| {
        let mut infos = scene.nix(root);
        let infos = run(infos.args(["path-info", "-r", "--json", &scene.closure.root])).stdout;
        let mut infos: serde_json::Value = serde_json::from_slice(&infos).expect("JSON");
        for info in infos.as_array_mut().expect("a list") {
            info.as_object_mut().expect("an object").remove("registrationTime");
        }
        infos
    };
    assert_eq!(infos("first"), infos("third"));
}

#[test]
fn every_compression_goes_up_and_comes_back() {
    if !have_program("nix") {
        return;
    }
    let scene = Scene::new();
    // The first refers to nothing but itself.
    let first =
        scene.closure.trees.keys().find(|name| name.ends_with("-package-0")).expect("there");
    let path = format!("/nix/store/{first}");
    for compression in ["none", "xz", "bzip2", "gzip", "zstd", "br", "lz4"] {
        let target = tempfile::tempdir().expect("a folder");
        let args = ["--allow-upload"];
        let server = Server::start(&mut lazystore(target.path()), &args);
        let to = format!("{}?compression={compression}&write-nar-listing=1", server.url());
        run(scene.nix("first").args(["copy", "--to", &to, &path]));
        // With the narinfos that Nix remembers, and without.
        for home in ["home", "other"] {
            let root = format!("{compression}-{home}");
            let mut copy = scene.nix(&root);
            copy.env("XDG_CACHE_HOME", scene.folder.path().join(home));
            run(copy.args(["copy", "--from", &server.url(), &path]));
            let copied = scene.folder.path().join(root).join("nix/store").join(first);
            assert_same(&scene.closure.trees[first], &walk(&copied));
        }
    }
}

#[test]
fn without_the_token_nix_brings_nothing() {
    if !have_program("nix") {
        return;
    }
    let scene = Scene::new();
    let mut copy = scene.nix("first");
    copy.args(["--option", "netrc-file", "/nonexistent", "copy", "--to", &scene.target.url()]);
    let refused = copy.arg(&scene.closure.root).output().expect("Nix runs");
    assert!(!refused.status.success());
    let said = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert!(said.contains("401"), "{said}");
    let infos = lazystore(&scene.folder.path().join("target"))
        .args(["path-info", &scene.closure.root])
        .output()
        .expect("it runs");
    assert_eq!(infos.status.code(), Some(3));
}
