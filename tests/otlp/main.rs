//! Traces and metrics of the real program, as a collector gets them.

#[path = "../support/beside.rs"]
mod beside;
#[path = "../support/bigtable.rs"]
mod bigtable_emulator;
#[path = "../support/http.rs"]
mod http;
#[path = "../support/made_cache.rs"]
mod made_cache;
#[path = "../support/s3.rs"]
mod s3;
#[path = "../support/mod.rs"]
mod support;
#[path = "../support/web.rs"]
mod web;

mod collector;
mod metrics;
mod served;
mod stores;
mod traces;
mod trouble;

use std::{
    fs,
    net::SocketAddr,
    path::{Path, PathBuf},
    process::Command,
};

use collector::Collector;
use support::{Running, import, lazystore, noise, write};

/// A store with one path, and a daemon of it.
struct Far {
    dir: tempfile::TempDir,
    name: String,
}

/// How long the one file is: longer than what comes whole.
const FILE_LEN: usize = 1 << 20;

impl Far {
    fn new() -> Self {
        Self::with(FILE_LEN)
    }

    /// The same, whose file has so many bytes.
    fn with(len: usize) -> Self {
        let dir = tempfile::tempdir().expect("a folder");
        let tree = dir.path().join("tree");
        fs::create_dir(&tree).expect("new");
        write(tree.join("file"), noise(1, len), 0o644);
        let name = import(&dir.path().join("store"), &tree);
        Far { dir, name }
    }

    /// The daemon, which sends to `collector` when it ends.
    fn daemon(&self, collector: &str) -> (Running, SocketAddr) {
        let mut command = sending(lazystore(&self.dir.path().join("store")));
        command.args(["daemon", "--listen=127.0.0.1:0", "--otlp-endpoint", collector]);
        let mut daemon = Running::start(&mut command);
        let line = daemon.wait_for_line("listening");
        let address = line.split("address=").nth(1).and_then(|rest| rest.split(' ').next());
        let address = address.expect("it says where").trim_matches('"').parse();
        (daemon, address.expect("an address"))
    }

    fn mountpoint(&self) -> PathBuf {
        self.dir.path().join("mnt")
    }
}

/// Sends nothing before the end, so that what comes comes from there.
fn sending(mut command: Command) -> Command {
    command.env("OTEL_BSP_SCHEDULE_DELAY", "3600000");
    command.env("OTEL_METRIC_EXPORT_INTERVAL", "3600000");
    command
}

/// The program, with the store of a daemon and no cache.
fn over(daemon: SocketAddr) -> Command {
    let mut command = sending(lazystore(Path::new("/nonexistent")));
    command.env("LAZYSTORE_STORE", format!("grpc+http://{daemon}"));
    command
}

/// Ends a process by SIGTERM and expects a clean end.
fn end(mut running: Running) -> Vec<String> {
    running.signal(rustix::process::Signal::TERM);
    assert!(running.wait(), "it said:\n{}", running.log.join("\n"));
    std::mem::take(&mut running.log)
}
