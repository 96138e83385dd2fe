//! Stores over a cache in which something is wrong.

use std::{
    path::{Path, PathBuf},
    time::Duration,
};

use lazystore::{
    compose::{Addresses, open},
    nix::StorePathDigest,
    service::{Stores, blob::layer::Verify},
};
use tokio::runtime::Runtime;

use crate::{
    made_cache::{Made, address, serve_info, words},
    support::{files, noise},
    web::HttpServer,
};

/// How much memory may be used at most while caches are refused, in bytes. The window of zstd alone may take 128 MiB.
const MEMORY_MAX: usize = 420 << 20;

/// What is at `store`, kept in a cache in `folder`.
pub fn addresses(folder: &Path, store: &str) -> Addresses {
    Addresses {
        store: Some(store.to_owned()),
        blobs: None,
        directories: None,
        path_infos: None,
        store_dir: folder.join("store"),
        cache_dir: Some(folder.join("cache")),
        cache_size_max: Some(1 << 30),
        token_file: None,
        verify: Verify::Source,
        whole_len_max: 256 << 10,
        offline: false,
        absent_ttl: Duration::ZERO,
    }
}

/// A cache, and two stores that read it: one keeps what it holds in a cache, the other in a store directory.
pub struct Fixture {
    folder: tempfile::TempDir,
    runtime: Runtime,
    pub server: HttpServer,
    stores: [Stores; 2],
    refused: usize,
}

impl Fixture {
    pub fn new() -> Self {
        let server = HttpServer::new();
        serve_info(&server);
        Self::of(server)
    }

    pub fn of(server: HttpServer) -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let runtime = Runtime::new().expect("a runtime");
        let addresses = addresses(folder.path(), &address(&server));
        let beside = Addresses {
            store: Some("local:".to_owned()),
            path_infos: Some(address(&server)),
            ..addresses.clone()
        };
        let _in_runtime = runtime.enter();
        let stores = [&addresses, &beside].map(|addresses| open(addresses).expect("it opens"));
        Fixture { folder, runtime, server, stores, refused: 0 }
    }

    fn get(&self, store: &Stores, digest: &StorePathDigest) -> Result<bool, String> {
        let found = self.runtime.block_on(store.path_infos.get(digest));
        found.map(|found| found.is_some()).map_err(|error| error.to_string())
    }

    /// Asks for the path, which is to be refused with an error that says all of `reasons`.
    pub fn refuses(&mut self, what: &str, digest: &StorePathDigest, reasons: &[&str]) {
        for store in &self.stores {
            let error = self.get(store, digest).expect_err(what);
            for reason in reasons {
                assert!(error.contains(reason), "{what}: {reason:?} is not in {error:?}");
            }
            assert!(error.len() < 2000, "{what}: {} bytes", error.len());
        }
        self.refused += 1;
    }

    pub fn refuses_made(&mut self, what: &str, made: &Made, reasons: &[&str]) {
        made.serve(&self.server);
        self.refuses(what, &made.told.store_path.digest(), reasons);
    }

    /// Asks for two paths at the same time, of which only the second is to be had.
    pub fn accepts_only_the_second(&self, what: &str, [wrong, right]: [&Made; 2]) {
        wrong.serve(&self.server);
        right.serve(&self.server);
        for store in &self.stores {
            let [wrong, right] = [wrong, right].map(|made| made.told.store_path.digest());
            let asked = async {
                let asked =
                    [wrong, right].map(|digest| async move { store.path_infos.get(&digest).await });
                futures::future::join_all(asked).await
            };
            let found = self.runtime.block_on(asked);
            assert!(found[0].is_err(), "{what}: {:?}", found[0]);
            assert!(matches!(found[1], Ok(Some(_))), "{what}: {:?}", found[1]);
        }
    }

    pub fn accepts(&self, what: &str, made: &Made) {
        made.serve(&self.server);
        for store in &self.stores {
            assert_eq!(self.get(store, &made.told.store_path.digest()), Ok(true), "{what}");
        }
    }

    /// Checks that nothing of all that is visible.
    pub fn nothing_is_visible(self, refused_min: usize) {
        self.nothing_is_in(&["store", "cache"], refused_min);
    }

    /// Checks that nothing of all that is in the store. A cache may have it until it is evicted.
    pub fn nothing_is_in_the_store(self, refused_min: usize) {
        self.nothing_is_in(&["store"], refused_min);
    }

    fn nothing_is_in(self, places: &[&str], refused_min: usize) {
        assert!(self.refused >= refused_min, "only {} were tried", self.refused);
        drop(self.stores);
        for place in places {
            let path = self.folder.path().join(place).join("meta.sqlite");
            let database = rusqlite::Connection::open(path).expect("it opens");
            for table in ["path_infos", "directories", "archives", "archived"] {
                let count = format!("SELECT count(*) FROM {table}");
                let rows = database.query_row(&count, (), |row| row.get::<_, i64>(0));
                assert_eq!(rows, Ok(0), "{table} of the {place}");
            }
        }
        // A cache evicts what nobody names; in a store it would stay.
        let store = self.folder.path().join("store");
        assert_eq!(files(&store.join("blobs")), Vec::<PathBuf>::new());
        let packs = files(&store.join("packs"));
        let packed: u64 = packs.iter().map(|pack| pack.metadata().expect("ours").len()).sum();
        assert_eq!(packed, 0, "{packs:?}");
        let peak = peak_memory();
        assert!(peak < MEMORY_MAX, "{peak} bytes");
    }
}

/// The most memory that this process ever had resident, in bytes.
fn peak_memory() -> usize {
    let status = std::fs::read_to_string("/proc/self/status").expect("it runs");
    let line = status.lines().find(|line| line.starts_with("VmHWM:")).expect("it is told");
    let kib = line.split_whitespace().nth(1).and_then(|kib| kib.parse::<usize>().ok());
    kib.expect("a number") << 10
}

/// The archive of a directory with a file and a link.
pub fn tree(number: usize) -> Vec<u8> {
    let contents = noise(number as u64, 3000 + number);
    words(&[
        b"nix-archive-1",
        b"(",
        b"type",
        b"directory",
        b"entry",
        b"(",
        b"name",
        b"a",
        b"node",
        b"(",
        b"type",
        b"regular",
        b"executable",
        b"",
        b"contents",
        &contents,
        b")",
        b")",
        b"entry",
        b"(",
        b"name",
        b"b",
        b"node",
        b"(",
        b"type",
        b"symlink",
        b"target",
        b"a",
        b")",
        b")",
        b")",
    ])
}
