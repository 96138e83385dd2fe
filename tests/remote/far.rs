//! A daemon behind a proxy, and mounts of it.

use std::{
    fs,
    net::SocketAddr,
    path::{Path, PathBuf},
};

use crate::{
    proxy::Proxy,
    support::{Mounted, Running, import, lazystore},
};

/// A name that no store has.
pub const ABSENT_NAME: &str = "00000000000000000000000000000000-absent";

/// The store of a daemon, and the way to it.
pub struct Far {
    pub dir: tempfile::TempDir,
    pub proxy: Proxy,
    pub daemon: Running,
    /// Where the daemon listens.
    address: SocketAddr,
}

impl Far {
    /// With what `fill` puts into the folder it gets, each as a store path, whose names are returned in order.
    pub fn new(fill: impl FnOnce(&Path)) -> (Self, Vec<String>) {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let sources = dir.path().join("sources");
        fs::create_dir(&sources).expect("new");
        fill(&sources);
        let mut sources: Vec<_> = fs::read_dir(&sources)
            .expect("it lists")
            .map(|entry| entry.expect("it lists"))
            .collect();
        sources.sort_by_key(|entry| entry.file_name());
        let store = dir.path().join("store");
        let names = sources.iter().map(|source| import(&store, &source.path())).collect();
        let (daemon, address) = serve(&store, "127.0.0.1:0");
        (Far { proxy: Proxy::new(address), dir, daemon, address }, names)
    }

    /// Mounts the store behind the proxy without a cache. `options` are those of the address.
    pub fn mount(&self, options: &str) -> Mounted {
        self.mount_with(options, "none", &[])
    }

    /// The same with a cache, and with more arguments.
    pub fn mount_with(&self, options: &str, cache: &str, args: &[&str]) -> Mounted {
        let mut command = lazystore(Path::new("/nonexistent"));
        command.env("LAZYSTORE_STORE", self.proxy.store(options));
        let cache = match cache {
            "none" => PathBuf::from(cache),
            name => self.dir.path().join(name),
        };
        command.env("LAZYSTORE_CACHE_DIR", cache);
        Mounted::with(&mut command, &self.dir.path().join("mnt"), args)
    }

    /// Starts a daemon again where the last one was, which has ended.
    pub fn serve_again(&mut self) {
        let store = self.dir.path().join("store");
        (self.daemon, _) = serve(&store, &self.address.to_string());
    }
}

fn serve(store: &Path, listen: &str) -> (Running, SocketAddr) {
    let mut daemon =
        Running::start(lazystore(store).arg("daemon").arg(format!("--listen={listen}")));
    let line = daemon.wait_for_line("listening");
    let address = line.split("address=").nth(1).and_then(|rest| rest.split(' ').next());
    let address = address.expect("it says where").trim_matches('"').parse();
    (daemon, address.expect("an address"))
}
