//! What a cache evicts comes back out of its archive, and nothing is fetched twice that is here.

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
};

use lazystore::nix::Compression;

use crate::{
    made_cache::{Made, address, serve_info},
    support::{Facts, Mounted, assert_same, can_mount, lazystore, noise, run, walk, write},
    web::HttpServer,
};

/// Trees of some MiB that do not compress, served as archives. Each with the folder that it was made of.
struct Served {
    folder: tempfile::TempDir,
    server: HttpServer,
    trees: Vec<(PathBuf, Made)>,
}

impl Served {
    /// Each tree has files of these sizes, in bytes.
    fn new(trees: usize, sizes: &[usize]) -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let server = HttpServer::new();
        serve_info(&server);
        let store = folder.path().join("made");
        let made = (0..trees).map(|number| {
            let tree = folder.path().join(format!("tree-{number}"));
            fs::create_dir_all(tree.join("inner")).expect("new");
            for (index, size) in sizes.iter().enumerate() {
                let seed = (number * 1000 + index) as u64;
                let place = if index % 2 == 0 { "inner" } else { "." };
                write(tree.join(place).join(format!("file-{index}")), noise(seed, *size), 0o644);
            }
            let imported = run(lazystore(&store).arg("import").arg(&tree)).stdout;
            let path = String::from_utf8(imported).expect("a store path is ASCII");
            let archive = run(lazystore(&store).args(["nar", "dump", path.trim_end()])).stdout;
            let made = Made::new(&format!("tree-{number}"), &archive, Compression::Zstd);
            made.serve(&server);
            (tree, made)
        });
        let trees = made.collect();
        Served { folder, server, trees }
    }

    /// With a cache of that size.
    fn mount(&self, cache_size: &str) -> Mounted {
        let mut command = lazystore(&self.folder.path().join("store"));
        command.env("LAZYSTORE_CACHE_DIR", self.folder.path().join("cache"));
        command.args(["--store", &address(&self.server), "--cache-size", cache_size]);
        let mount = self.folder.path().join("mount");
        // Every read is to reach the store.
        Mounted::with(&mut command, &mount, &["--io-mode", "no-open"])
    }

    fn compare(&self, mount: &Path) {
        for (tree, made) in &self.trees {
            crate::support::drop_kernel_caches();
            let got = walk(&mount.join(made.told.store_path.to_string()));
            assert_same(&walk(tree), &got);
        }
    }

    /// How often archives were asked for.
    fn archives_asked(&self) -> usize {
        self.server.asked("nar/")
    }
}

#[test]
fn what_was_evicted_comes_back_with_its_archive() {
    if !can_mount() {
        return;
    }
    // 60 MiB in a cache of 32 MiB.
    let served = Served::new(10, &[3 << 20, 2 << 20, 1 << 20, 100, 30_000, 70_000]);
    let mounted = served.mount("32M");
    served.compare(&mounted.path);
    let first = served.archives_asked();
    assert_eq!(first, 10);
    served.compare(&mounted.path);
    assert!(served.archives_asked() > first, "nothing was evicted");
    let used = cache_len(&served.folder.path().join("cache"));
    assert!(used <= 33 << 20, "{used}");
    mounted.unmount();
    // The next process knows what was in the archives, too.
    let mounted = served.mount("32M");
    served.compare(&mounted.path);
    mounted.unmount();
}

#[test]
fn an_archive_that_is_larger_than_the_cache_can_be_read() {
    if !can_mount() {
        return;
    }
    // One file is longer than half of the cache: it is never kept.
    let served = Served::new(1, &[12 << 20, 3 << 20, 9 << 20, 5000, 7 << 20, 20_000]);
    let mounted = served.mount("16M");
    served.compare(&mounted.path);
    // Each file that was not kept costs one archive, and not one for every read.
    let asked = served.archives_asked();
    assert!(asked <= 8, "{asked}");
    let used = cache_len(&served.folder.path().join("cache"));
    assert!(used <= 17 << 20, "{used}");
    mounted.unmount();
}

#[test]
fn what_is_gone_from_the_caches_too_is_an_error_and_not_absent() {
    if !can_mount() {
        return;
    }
    let served = Served::new(10, &[3 << 20, 2 << 20, 1 << 20]);
    let mounted = served.mount("32M");
    served.compare(&mounted.path);
    for (_, made) in &served.trees {
        served.server.trouble(&made.narinfo_name(), crate::web::Trouble::Status(404));
    }
    crate::support::drop_kernel_caches();
    let mut errors = BTreeMap::new();
    for (tree, made) in &served.trees {
        for name in walk(tree).iter().filter(|(_, facts)| matches!(facts, Facts::File { .. })) {
            let path = mounted.path.join(made.told.store_path.to_string()).join(name.0);
            if let Err(error) = fs::read(path) {
                *errors.entry(error.raw_os_error()).or_insert(0) += 1;
            }
        }
    }
    let unreachable = Some(rustix::io::Errno::HOSTUNREACH.raw_os_error());
    assert!(errors.contains_key(&unreachable) && errors.len() == 1, "{errors:?}");
    served.server.heal();
    served.compare(&mounted.path);
    mounted.unmount();
}

#[test]
fn other_services_are_filled_and_nothing_is_fetched_twice() {
    if !can_mount() {
        return;
    }
    let served = Served::new(2, &[2 << 20, 300_000, 100]);
    // Another path with an archive that is known.
    let (tree, first) = &served.trees[0];
    let mut twin = Made::new("twin", b"", Compression::Zstd);
    twin.told.info.nar = first.told.info.nar;
    twin.told.archive = first.told.archive.clone();
    twin.file = first.file.clone();
    twin.sign(&crate::made_cache::key());
    twin.serve(&served.server);
    let mount = || {
        let mut command = lazystore(&served.folder.path().join("store"));
        command.args(["--path-info-service-addr", &address(&served.server)]);
        Mounted::new(&mut command, &served.folder.path().join("mount"))
    };
    for _ in 0..2 {
        let mounted = mount();
        served.compare(&mounted.path);
        let got = walk(&mounted.path.join(twin.told.store_path.to_string()));
        assert_same(&walk(tree), &got);
        mounted.unmount();
        assert_eq!(served.archives_asked(), 2);
    }
}

/// What lies in the cache, in bytes of the disk.
fn cache_len(cache: &Path) -> u64 {
    use std::os::unix::fs::MetadataExt as _;
    let files = crate::support::files(cache);
    files.iter().filter_map(|file| fs::metadata(file).ok()).map(|file| file.blocks() * 512).sum()
}
