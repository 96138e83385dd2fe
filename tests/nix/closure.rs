//! A closure of many store paths that are not content-addressed, in a store of ours.

use std::{
    collections::BTreeMap, fs, os::unix::fs::symlink, path::Path, process::Command, time::Duration,
};

use lazystore::{
    compose::{self, Addresses},
    ingest::{Progress, commit, import_tree},
    nix::{Details, NarInfo, StorePath, StorePathDigest},
    service::{
        Stores,
        blob::{SMALL_BLOB_LEN_MAX, layer::Verify},
    },
};

use crate::{
    http::Server,
    support::{Facts, lazystore, noise, run, walk, write},
};

/// How many store paths there are.
pub const PATHS: usize = 120;

/// What was made.
pub struct Closure {
    /// The one that needs all others.
    pub root: String,
    /// What is in each, by its base name.
    pub trees: BTreeMap<String, BTreeMap<std::path::PathBuf, Facts>>,
}

/// Opens the store in `dir`, which may be used by others meanwhile.
pub fn open(dir: &Path) -> Stores {
    let addresses = Addresses {
        store: None,
        blobs: None,
        directories: None,
        path_infos: None,
        store_dir: dir.to_owned(),
        cache_dir: None,
        cache_size_max: None,
        token_file: None,
        verify: Verify::Strict,
        whole_len_max: SMALL_BLOB_LEN_MAX as u64,
        offline: false,
        absent_ttl: Duration::ZERO,
    };
    compose::open(&addresses).expect("the store opens")
}

fn store_path(number: usize) -> StorePath {
    let digest: [u8; 20] = noise(number as u64, 20).try_into().expect("20 bytes");
    StorePath::new(StorePathDigest::from(digest), &format!("package-{number}")).expect("legal")
}

/// Each refers to some before it, and every third to itself.
fn references(number: usize) -> Vec<StorePath> {
    let mut numbers: Vec<_> =
        [1, 2, 5, 13].iter().filter_map(|back| number.checked_sub(*back)).collect();
    numbers.extend(number.is_multiple_of(3).then_some(number));
    let mut references: Vec<_> = numbers.into_iter().map(store_path).collect();
    references.sort();
    references
}

fn make_tree(dir: &Path, number: usize) {
    let references: Vec<_> = references(number).iter().map(StorePath::absolute).collect();
    if number % 10 == 1 {
        return write(dir, references.join("\n"), 0o755);
    }
    fs::create_dir_all(dir.join("bin")).expect("new");
    fs::create_dir(dir.join("empty")).expect("new");
    write(dir.join("bin/run"), format!("#!/bin/sh\n{}", references.join("\n")), 0o755);
    for (file, path) in references.iter().enumerate() {
        symlink(path, dir.join(format!("link-{file}"))).expect("new");
    }
    let len = [0, 1, 100, 70_000, 300_000, 1_500_000][number % 6];
    write(dir.join("data"), noise(1000 + number as u64, len), 0o644);
    for file in 0..number % 40 {
        write(dir.join(format!("small-{file}")), noise(file as u64, file * 7), 0o644);
    }
}

/// A closure that is served, signed with a key of Nix.
pub struct Served {
    pub closure: Closure,
    pub server: Server,
    /// As Nix wrote it.
    pub public_key: String,
}

/// Makes a closure in `folder` and serves it, with more arguments.
pub fn serve(folder: &Path, args: &[&str]) -> Served {
    let at = |name: &str| folder.join(name);
    fs::create_dir(at("scratch")).expect("new");
    let closure = make(&at("store"), &at("scratch"));
    let mut keys = Command::new("nix-store");
    keys.args(["--generate-binary-cache-key", "test-1"]);
    run(keys.arg(at("secret")).arg(at("public")));
    let secret = at("secret");
    let args = [&["--sign-key", secret.to_str().expect("UTF-8")], args].concat();
    let server = Server::start(&mut lazystore(&at("store")), &args);
    let public_key = fs::read_to_string(at("public")).expect("Nix wrote it");
    Served { closure, server, public_key }
}

/// Makes the closure in the store in `dir`, with the help of `scratch`, a folder.
pub fn make(dir: &Path, scratch: &Path) -> Closure {
    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    let stores = {
        let _guard = runtime.enter();
        open(dir)
    };
    let mut trees = BTreeMap::new();
    let mut imports = Vec::new();
    for number in 0..PATHS {
        let tree = scratch.join(format!("tree-{number}"));
        make_tree(&tree, number);
        let progress = Progress::default();
        let import = import_tree(&tree, Some("x"), &stores, runtime.handle(), &progress);
        let mut import = import.expect("it imports");
        let nar = import.path_info.nar_info().expect("it was hashed").nar;
        import.path_info.store_path = store_path(number);
        import.path_info.details = Details::NarInfo(NarInfo {
            nar,
            references: references(number),
            signatures: Vec::new(),
            deriver: None,
            ca: None,
        });
        trees.insert(store_path(number).to_string(), walk(&tree));
        imports.push(import);
    }
    runtime.block_on(commit(&stores, &imports)).expect("it is stored");
    Closure { root: store_path(PATHS - 1).absolute(), trees }
}
