//! Several daemons over one store, of which some fail.

use std::{
    fs,
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use rustix::process::Signal;

use crate::support::{Mounted, Running, SOON, can_mount, import, lazystore, noise, write};

const LEN: usize = 700_000;

/// Daemons over one store with some files.
struct Several {
    dir: tempfile::TempDir,
    names: Vec<String>,
    daemons: Vec<(Running, String)>,
}

impl Several {
    fn new(count: usize) -> Self {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let store = dir.path().join("store");
        let names = (0..8).map(|number| {
            let path = dir.path().join(number.to_string());
            write(&path, noise(number, LEN), 0o644);
            import(&store, &path)
        });
        let names = names.collect();
        let daemons = (0..count).map(|_| serve(&store, "127.0.0.1:0")).collect();
        Several { dir, names, daemons }
    }

    fn mount(&self) -> Mounted {
        let all: Vec<&str> = self.daemons.iter().map(|(_, address)| &**address).collect();
        let mut command = lazystore(Path::new("/nonexistent"));
        command.env("LAZYSTORE_STORE", format!("grpc+http://{}?timeout=4", all.join(",")));
        command.env("LAZYSTORE_CACHE_DIR", self.dir.path().join("cache"));
        Mounted::with(&mut command, &self.dir.path().join("mnt"), &["--absent-ttl=0"])
    }

    fn path(&self, mounted: &Mounted, number: usize) -> PathBuf {
        mounted.path.join(&self.names[number])
    }

    fn kill(&mut self, daemon: usize) {
        self.daemons[daemon].0.child.kill().expect("ours");
        self.daemons[daemon].0.wait();
    }
}

fn serve(store: &Path, listen: &str) -> (Running, String) {
    let mut command = lazystore(store);
    let mut daemon = Running::start(command.arg("daemon").arg(format!("--listen={listen}")));
    let line = daemon.wait_for_line("listening");
    let address = line.split("address=").nth(1).and_then(|rest| rest.split(' ').next());
    (daemon, address.expect("it says where").trim_matches('"').to_owned())
}

fn assert_reads(path: &Path, number: usize) {
    let read = fs::read(path).expect("it reads");
    assert!(read == noise(number as u64, LEN), "{number}");
}

#[test]
fn readers_notice_nothing_of_a_daemon_that_dies_or_stands_still() {
    if !can_mount() {
        return;
    }
    let mut several = Several::new(3);
    let mounted = several.mount();
    assert_reads(&several.path(&mounted, 0), 0);
    several.kill(0);
    let began = Instant::now();
    assert_reads(&several.path(&mounted, 1), 1);
    assert!(began.elapsed() < Duration::from_secs(3), "{:?}", began.elapsed());
    several.daemons[1].0.signal(Signal::STOP);
    // Who stands still is waited for, but only for half of the time.
    assert_reads(&several.path(&mounted, 2), 2);
    let began = Instant::now();
    for number in 3..6 {
        assert_reads(&several.path(&mounted, number), number);
    }
    assert!(began.elapsed() < Duration::from_secs(3), "it is asked again: {:?}", began.elapsed());

    several.kill(2);
    several.daemons[1].0.signal(Signal::KILL);
    let began = Instant::now();
    fs::read(several.path(&mounted, 6)).expect_err("nobody is left");
    assert!(began.elapsed() < Duration::from_secs(6), "{:?}", began.elapsed());
    // Any of them heals it.
    let address = several.daemons[0].1.clone();
    several.daemons[0] = serve(&several.dir.path().join("store"), &address);
    let began = Instant::now();
    while fs::read(several.path(&mounted, 7)).is_err() {
        assert!(began.elapsed() < SOON, "it does not come back");
    }
    assert_reads(&several.path(&mounted, 6), 6);
    mounted.unmount();
}
