//! Through the cache of a remote store: its bound, and what happens to its disk.

use std::{
    fs::{self, File},
    os::unix::fs::{FileExt as _, MetadataExt as _},
    path::{Path, PathBuf},
    process::Command,
    thread,
    time::{Duration, Instant},
};

use crate::io_modes::can_pass_through;
use crate::support::{
    Mounted, Running, assert_same, can_mount, drop_kernel_caches, import, lazystore, noise, run,
    wait_until, walk, write,
};

/// A tree, a daemon that has it, and a cache before that.
struct Remote {
    dir: tempfile::TempDir,
    name: String,
    daemon: Running,
}

impl Remote {
    /// `fill` makes the tree.
    fn new(fill: impl FnOnce(&Path)) -> Self {
        let dir = tempfile::tempdir().expect("a folder");
        let tree = dir.path().join("tree");
        fs::create_dir(&tree).expect("new");
        fill(&tree);
        let store = dir.path().join("store");
        let name = import(&store, &tree);
        let mut daemon = lazystore(&store);
        daemon.arg("daemon").arg(format!("--listen=unix:{}/socket", dir.path().display()));
        let mut daemon = Running::start(&mut daemon);
        daemon.wait_for_line("listening");
        Remote { dir, name, daemon }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn command(&self) -> Command {
        let mut command = lazystore(Path::new("/nonexistent"));
        command.env("LAZYSTORE_STORE", format!("grpc+unix://{}/socket", self.dir.path().display()));
        command.env("LAZYSTORE_CACHE_DIR", self.path("cache"));
        command
    }

    fn mount(&self, args: &[&str]) -> Mounted {
        Mounted::with(&mut self.command(), &self.path("mnt"), args)
    }
}

/// The files below a directory, as long as they are there.
fn files(dir: &Path) -> Vec<(PathBuf, fs::Metadata)> {
    let mut found = Vec::new();
    for entry in fs::read_dir(dir).into_iter().flatten().flatten() {
        match entry.metadata() {
            Ok(metadata) if metadata.is_dir() => found.extend(files(&entry.path())),
            Ok(metadata) => found.push((entry.path(), metadata)),
            Err(_) => {}
        }
    }
    found
}

fn taken(dir: &Path) -> u64 {
    files(dir).iter().map(|(_, metadata)| metadata.blocks() * 512).sum()
}

/// Files from small to 3 MB, some 600 KB each on average.
fn mixed(tree: &Path, bytes: u64) {
    let (mut number, mut total) = (0, 0);
    while total < bytes {
        let len = [3_000_000, 40_000, 200_000, 1_000_000, 5_000, 65_537, 30][number as usize % 7];
        write(tree.join(number.to_string()), noise(number, len), 0o644);
        (number, total) = (number + 1, total + len as u64);
    }
}

/// Turns over `count` bits of what lies in the cache: blobs on their way, in part, packed, in their place.
fn flip(cache: &Path, seed: u64, count: usize) {
    let folders = ["blobs", "packs", "staging", "partials"];
    let files: Vec<_> = folders
        .iter()
        .flat_map(|folder| files(&cache.join(folder)))
        .filter(|f| f.1.len() > 0)
        .collect();
    let total: u64 = files.iter().map(|(_, metadata)| metadata.len()).sum();
    for random in noise(seed, count * 16).chunks(16) {
        let mut at = u64::from_le_bytes(random[..8].try_into().expect("8 bytes")) % total;
        let hit = files.iter().find(|(_, metadata)| {
            let here = at < metadata.len();
            at -= if here { 0 } else { metadata.len() };
            here
        });
        // It may have moved since.
        let path = &hit.expect("below the total").0;
        let Ok(file) = File::options().read(true).write(true).open(path) else { continue };
        let mut byte = [0];
        if file.read_exact_at(&mut byte, at).is_ok() {
            byte[0] ^= 1 << (random[8] % 8);
            file.write_all_at(&byte, at).expect("it writes");
        }
    }
}

#[test]
fn ten_thousand_flipped_bits_of_the_cache_reach_no_reader() {
    if !can_mount() {
        return;
    }
    let remote = Remote::new(|tree| mixed(tree, 20_000_000));
    let expected = walk(&remote.path("tree"));
    for round in 0..5 {
        // By turns a new process, and one that has just read everything itself.
        let mounted = remote.mount(&[]);
        let image = mounted.path.join(&remote.name);
        for step in 0..2 {
            assert_same(&expected, &walk(&image));
            drop_kernel_caches();
            flip(&remote.path("cache"), round * 2 + step, 1000);
        }
        assert_same(&expected, &walk(&image));
        drop_kernel_caches();
        mounted.unmount();
    }
}

/// How much is read, in MiB. The suite's time allows for little; set LAZYSTORE_WORKING_SET_MIB for more.
fn working_set() -> u64 {
    let set = std::env::var("LAZYSTORE_WORKING_SET_MIB").ok().and_then(|mib| mib.parse().ok());
    set.unwrap_or(192) << 20
}

#[test]
fn a_cache_of_64_mib_holds_its_bound_under_more_than_it_holds() {
    if !can_mount() {
        return;
    }
    let remote = Remote::new(|tree| mixed(tree, working_set()));
    let mounted = remote.mount(&["--cache-size=64MiB"]);
    let (tree, image) = (remote.path("tree"), mounted.path.join(&remote.name));
    let cache = remote.path("cache");
    let mut most = 0;
    thread::scope(|scope| {
        let readers: Vec<_> =
            (0..4).map(|_| scope.spawn(|| assert_same(&walk(&tree), &walk(&image)))).collect();
        while !readers.iter().all(thread::ScopedJoinHandle::is_finished) {
            most = most.max(taken(&cache));
            thread::sleep(Duration::from_millis(5));
        }
    });
    eprintln!("at most {most} bytes were taken");
    // A piece of 1 MiB a reader.
    assert!(most <= (64 + 4) << 20, "{most}");
    assert!(most > 32 << 20, "{most}");

    mounted.unmount();

    // What fits is read as if there were no bound: by turns with and without, each time by a new process and from the disk.
    let mut times = [Vec::new(), Vec::new()];
    for round in 0..10 {
        let size = ["--cache-size=64MiB", "--cache-size=10GiB"][round % 2];
        let mounted = remote.mount(&[size]);
        let image = mounted.path.join(&remote.name);
        drop_kernel_caches();
        let start = Instant::now();
        for number in 0..40 {
            fs::read(image.join(number.to_string())).expect("it reads");
        }
        // The first two rounds bring it here.
        if round > 1 {
            times[round % 2].push(start.elapsed());
        }
        mounted.unmount();
    }
    let [within, without] = times.map(|mut times| {
        times.sort_unstable();
        times[times.len() / 2]
    });
    eprintln!("hits took {within:?} within a bound, {without:?} without");
    assert!(within < without * 3, "{within:?} within a bound, {without:?} without");
}

#[test]
fn what_the_kernel_reads_itself_is_not_evicted() {
    if !can_pass_through() {
        return;
    }
    let contents = noise(5, 5_000_000);
    let remote = Remote::new(|tree| write(tree.join("large"), &contents, 0o644));
    let mounted = remote.mount(&["--io-mode=passthrough"]);
    let path = mounted.path.join(&remote.name).join("large");
    let hex = blake3::hash(&contents).to_hex();
    let blob = remote.path("cache/blobs").join(&hex[..2]).join(&hex[..]);
    wait_until("the blob is in its place", || {
        assert!(fs::read(&path).expect("it reads") == contents);
        blob.exists()
    });
    let open = File::open(&path).expect("it opens");
    let prune = || {
        let mut command = remote.command();
        command.args(["cache", "prune", "--to=0"]);
        run(&mut command);
    };
    // Longer than anything is kept open just in case.
    for _ in 0..3 {
        thread::sleep(Duration::from_secs(1));
        prune();
        assert!(blob.exists(), "the kernel reads it");
    }
    drop_kernel_caches();
    let mut end = [0; 1000];
    open.read_exact_at(&mut end, 4_999_000).expect("it reads");
    assert_eq!(end[..], contents[4_999_000..]);
    drop(open);
    mounted.unmount();
    // The kernel lets go of it a moment after the mount is gone.
    wait_until("nobody reads it, and it goes", || {
        prune();
        !blob.exists()
    });
}

#[test]
fn what_was_read_is_there_after_the_remote_is_gone() {
    if !can_mount() {
        return;
    }
    let mut remote = Remote::new(|tree| mixed(tree, 10_000_000));
    let expected = walk(&remote.path("tree"));
    let mounted = remote.mount(&[]);
    assert_same(&expected, &walk(&mounted.path.join(&remote.name)));
    mounted.unmount();
    remote.daemon.child.kill().expect("ours");
    remote.daemon.wait();
    let mounted = remote.mount(&[]);
    assert_same(&expected, &walk(&mounted.path.join(&remote.name)));
    mounted.unmount();
}
