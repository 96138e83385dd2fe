//! What a store that is far away costs: round trips, bytes moved and time, each beside what it would cost at best.
//!
//! `cargo bench --bench remote [-- [WORK]...]`, as root. The real daemon, the real mount, and between them a proxy that
//! delays and counts. Every figure is of a mount whose kernel caches and cache directory are empty, unless it says
//! otherwise.

#[path = "../tests/remote/far.rs"]
#[allow(dead_code)] // The tests use the rest, here as below.
mod far;
#[path = "../tests/support/proxy.rs"]
#[allow(dead_code)]
mod proxy;
#[path = "../tests/support/mod.rs"]
mod support;

use std::{
    fs::{self, File},
    io::Read as _,
    os::unix::fs::{FileExt as _, MetadataExt as _},
    path::{Path, PathBuf},
    process::{Command, Stdio},
    sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed},
    thread,
    time::{Duration, Instant},
};

use far::Far;
use support::{Mounted, Running, drop_kernel_caches, files, lazystore, noise, run, write};

const MIB: u64 = 1 << 20;
const READERS: usize = 8;

const WORK: &[(&str, fn())] = &[
    ("walk", walk_far),
    ("readers", readers),
    ("middle", middle),
    ("program", program),
    ("everything", everything),
    ("near", near),
    ("lent", lent),
    ("bounded", bounded),
    ("hits", hits),
];

fn main() {
    let only: Vec<String> = std::env::args().skip(1).filter(|arg| arg != "--bench").collect();
    assert!(rustix::process::geteuid().is_root(), "needs root: to mount and to drop caches");
    for (name, work) in WORK {
        if only.is_empty() || only.iter().any(|word| name == word) {
            work();
        }
    }
}

/// A line of the table: what was measured, and what it is measured by.
fn tell(what: &str, measured: f64, unit: &str, best: f64, bound: f64) {
    let ratio = measured / best;
    println!("{what:<66} {measured:>9.1} {unit:<7} {ratio:>7.2} (wanted: {bound})");
}

fn seconds(work: impl FnOnce()) -> f64 {
    let began = Instant::now();
    work();
    began.elapsed().as_secs_f64()
}

/// `count` files of `len` bytes, a hundred in a directory.
fn tree(root: &Path, count: u64, len: usize) {
    for number in 0..count {
        let dir =
            root.join("tree").join((number / 2000).to_string()).join((number / 100).to_string());
        if number % 100 == 0 {
            fs::create_dir_all(&dir).expect("new");
        }
        write(dir.join(number.to_string()), noise(number, len), 0o644);
    }
}

fn large(path: &Path, len: u64) {
    let mut file = File::create(path).expect("new");
    for number in 0..len / MIB {
        std::io::Write::write_all(&mut file, &noise(number, MIB as usize)).expect("there is room");
    }
}

/// A mount with an empty cache whose connections are made.
fn mount(far: &Far, cache: &str, args: &[&str]) -> Mounted {
    let mounted = far.mount_with("", cache, args);
    thread::sleep(Duration::from_millis(700));
    drop_kernel_caches();
    mounted
}

fn read(path: &Path) {
    let mut file = File::open(path).expect("it opens");
    let mut buffer = vec![0; MIB as usize];
    while file.read(&mut buffer).expect("it reads") > 0 {}
}

fn read_by_many(files: &[PathBuf]) {
    let next = AtomicU64::new(0);
    thread::scope(|scope| {
        for _ in 0..READERS {
            scope.spawn(|| {
                while let Some(file) = files.get(next.fetch_add(1, Relaxed) as usize) {
                    read(file);
                }
            });
        }
    });
}

fn walk_far() {
    let (far, names) = Far::new(|root| tree(root, 20_000, 10));
    for milliseconds in [20, 150] {
        let trip = Duration::from_millis(milliseconds);
        far.proxy.delay(trip);
        let mounted = mount(&far, &format!("walk{milliseconds}"), &[]);
        let requests = far.proxy.requests();
        let time = seconds(|| drop(files(&mounted.path.join(&names[0]))));
        let trips = time / trip.as_secs_f64();
        tell(
            &format!("walk of 20,000 files, {milliseconds} ms away, in round trips"),
            trips,
            "",
            1.0,
            5.0,
        );
        println!("    in {} requests", far.proxy.requests() - requests);
        mounted.unmount();
    }
}

/// Each small file is a round trip of the reader that wants it.
fn readers() {
    for (milliseconds, count) in [(20, 20_000), (150, 4_000)] {
        let (far, names) = Far::new(|root| tree(root, count, 8_000));
        far.proxy.delay(Duration::from_millis(milliseconds));
        let mounted = mount(&far, "cache", &[]);
        let files = files(&mounted.path.join(&names[0]));
        let time = seconds(|| read_by_many(&files));
        let best = (count as f64 / READERS as f64).ceil() * milliseconds as f64 / 1000.0;
        let what = format!("{count} files by {READERS} readers, {milliseconds} ms away");
        tell(&what, time * 1000.0, "ms", best * 1000.0, 1.15);
        mounted.unmount();
    }
}

fn middle() {
    let (far, names) = Far::new(|root| large(&root.join("large"), 1024 * MIB));
    let mounted = mount(&far, "cache", &[]);
    let path = mounted.path.join(&names[0]);
    fs::metadata(&path).expect("it is there");
    let received = far.proxy.received();
    let file = File::open(&path).expect("it opens");
    let mut buffer = vec![0; MIB as usize];
    file.read_exact_at(&mut buffer, 512 * MIB + 12_345).expect("it reads");
    thread::sleep(Duration::from_secs(1));
    let received = (far.proxy.received() - received) as f64 / MIB as f64;
    tell("1 MiB from the middle of 1 GiB, bytes moved", received, "MiB", 1.0, 2.0);
    mounted.unmount();
}

/// What the page cache holds of the mount's files is what was read.
fn program() {
    let sysroot = run(Command::new("rustc").args(["--print", "sysroot"])).stdout;
    let sysroot = PathBuf::from(String::from_utf8_lossy(&sysroot).trim());
    let (far, names) = Far::new(|root| {
        for folder in ["bin", "lib"] {
            fs::create_dir_all(root.join("rust").join(folder)).expect("new");
            for entry in fs::read_dir(sysroot.join(folder)).expect("it lists").flatten() {
                let name = entry.file_name();
                if name == "rustc" || name.to_string_lossy().contains(".so") {
                    let to = root.join("rust").join(folder).join(name);
                    fs::copy(entry.path(), to).expect("new");
                }
            }
        }
    });
    let mounted = mount(&far, "cache", &[]);
    let root = mounted.path.join(&names[0]);
    let received = far.proxy.received();
    run(Command::new(root.join("bin/rustc")).arg("--version"));
    thread::sleep(Duration::from_secs(1));
    let received = (far.proxy.received() - received) as f64;
    let (mut read, mut size) = (0, 0);
    for file in files(&root) {
        let output = run(Command::new("fincore").args(["-b", "-n", "-o", "RES"]).arg(&file)).stdout;
        read += String::from_utf8_lossy(&output).trim().parse::<u64>().unwrap_or(0);
        size += file.metadata().expect("it is there").len();
    }
    tell(
        "starting rustc, bytes moved",
        received / MIB as f64,
        "MiB",
        read as f64 / MIB as f64,
        1.1,
    );
    println!("    of {} MiB that the program and its libraries are long", size / MIB);
    mounted.unmount();
}

/// Reading all through the mount against fetching all and then reading.
fn everything() {
    let (far, names) = Far::new(|root| {
        tree(root, 4_000, 8_000);
        large(&root.join("tree/large"), 256 * MIB);
    });
    for milliseconds in [0, 20] {
        far.proxy.delay(Duration::from_millis(milliseconds));
        let mounted = mount(&far, &format!("lazy{milliseconds}"), &[]);
        let lazy = seconds(|| read_by_many(&files(&mounted.path.join(&names[0]))));
        mounted.unmount();
        let cache = format!("copied{milliseconds}");
        let copied = seconds(|| {
            let mut command = lazystore(Path::new("/nonexistent"));
            command.env("LAZYSTORE_STORE", far.proxy.store(""));
            command.env("LAZYSTORE_CACHE_DIR", far.dir.path().join(&cache));
            run(command.arg("fetch").arg(format!("/nix/store/{}", names[0])));
        });
        let mounted = mount(&far, &cache, &[]);
        let copied = copied + seconds(|| read_by_many(&files(&mounted.path.join(&names[0]))));
        mounted.unmount();
        let what = format!("reading all, {milliseconds} ms away, against fetching all first");
        tell(&what, lazy * 1000.0, "ms", copied * 1000.0, 1.0);
    }
}

/// A daemon on this machine, without delay.
fn near() {
    const LARGE: u64 = 640 * MIB;
    let (far, names) = Far::new(|root| {
        tree(root, 20_000, 100);
        large(&root.join("large"), LARGE);
    });
    let native = far.dir.path().join("sources");
    // Sorted by name: the large one first.
    let (large, tree) = (&names[0], &names[1]);
    let walk = |root: &Path| seconds(|| drop(files(root)));

    let mut command = lazystore(&far.dir.path().join("store"));
    let in_process = Mounted::with(&mut command, &far.dir.path().join("mnt"), &[]);
    drop_kernel_caches();
    let best = walk(&in_process.path.join(tree));
    in_process.unmount();
    let mounted = mount(&far, "cache", &[]);
    tell(
        "walk of 20,000 files, daemon here",
        walk(&mounted.path.join(tree)) * 1000.0,
        "ms",
        best * 1000.0,
        1.5,
    );

    let best = cold(&native.join("large"));
    read_store(&far);
    drop_kernel_caches();
    let received = far.proxy.received();
    let path = mounted.path.join(large);
    let time = seconds(|| read(&path));
    let received = far.proxy.received() - received;
    tell("640 MiB in order, daemon here", time * 1000.0, "ms", best * 1000.0, 2.0);
    tell("    bytes moved", received as f64 / MIB as f64, "MiB", (LARGE / MIB) as f64, 1.02);

    let requests = far.proxy.requests();
    drop_kernel_caches();
    read(&path);
    walk(&mounted.path.join(tree));
    println!("    requests to read and walk it again: {}", far.proxy.requests() - requests);
    mounted.unmount();

    let mounted = mount(&far, "random", &[]);
    let path = mounted.path.join(large);
    // Brings the parts here, and leaves the file incomplete.
    random(&path, LARGE);
    drop_kernel_caches();
    let time = seconds(|| random(&path, LARGE));
    drop_kernel_caches();
    let best = seconds(|| random(&native.join("large"), LARGE));
    tell("random 4 KiB, parts here, time", time * 1000.0, "ms", best * 1000.0, 2.0);
    mounted.unmount();
}

/// Reads the daemon's files: what was just written is slow to read for the first time on some disks.
fn read_store(far: &Far) {
    files(&far.dir.path().join("store/blobs")).iter().for_each(|file| read(file));
}

/// How long a file takes in order, at best.
fn cold(path: &Path) -> f64 {
    let once = || {
        drop_kernel_caches();
        seconds(|| read(path))
    };
    once().min(once()).min(once())
}

/// The same without a cache, by the socket: the daemon lends its files.
fn lent() {
    const LARGE: u64 = 640 * MIB;
    let (far, names) = Far::new(|root| {
        tree(root, 20_000, 100);
        large(&root.join("large"), LARGE);
    });
    let native = far.dir.path().join("sources/large");
    let socket = format!("unix:{}", far.dir.path().join("socket").display());
    let mut command = lazystore(&far.dir.path().join("store"));
    let mut daemon = Running::start(command.arg("daemon").arg(format!("--listen={socket}")));
    daemon.wait_for_line("listening");
    let mount = |store: &str| {
        let mut command = lazystore(&far.dir.path().join("store"));
        command.env("LAZYSTORE_STORE", store);
        let mounted = Mounted::with(&mut command, &far.dir.path().join("mnt"), &[]);
        thread::sleep(Duration::from_millis(700));
        drop_kernel_caches();
        mounted
    };
    let remote = format!("grpc+unix://{}", far.dir.path().join("socket").display());
    read_store(&far);
    let (best, best_random) = (cold(&native), {
        drop_kernel_caches();
        seconds(|| random(&native, LARGE))
    });
    for (what, store) in [("in process", "local:"), ("lent by a daemon here", &remote)] {
        let mounted = mount(store);
        let walked = seconds(|| drop(files(&mounted.path.join(&names[1]))));
        println!("walk of 20,000 files, {what}: {:.1} ms", walked * 1000.0);
        let path = mounted.path.join(&names[0]);
        let time = cold(&path);
        tell(&format!("640 MiB in order, {what}"), time * 1000.0, "ms", best * 1000.0, 2.0);
        drop_kernel_caches();
        let time = seconds(|| random(&path, LARGE));
        tell(&format!("random 4 KiB, {what}"), time * 1000.0, "ms", best_random * 1000.0, 2.0);
        mounted.unmount();
    }
}

/// What is in a cache that is bounded is read as fast as from one that is not.
fn hits() {
    let (far, names) = Far::new(|root| {
        tree(root, 1_000, 20_000);
        for number in 0..10 {
            large(&root.join("tree").join(format!("large{number}")), 3 * MIB);
        }
    });
    let [unbounded, bounded] = ["1T", "80M"].map(|bound| {
        let mounted = mount(&far, bound, &["--cache-size", bound]);
        let files = files(&mounted.path.join(&names[0]));
        let mut best = f64::MAX;
        for round in 0..12 {
            drop_kernel_caches();
            let time = seconds(|| files.iter().for_each(|file| read(file)));
            // The first fills the cache.
            best = if round == 0 { best } else { best.min(time) };
        }
        mounted.unmount();
        best * 1000.0
    });
    tell("50 MiB that are in a cache, bounded against unbounded", bounded, "ms", unbounded, 1.0);
}

fn random(path: &Path, len: u64) {
    let file = File::open(path).expect("it opens");
    let (mut buffer, mut state) = ([0; 4096], 0x9e37_79b9_7f4a_7c15_u64);
    for _ in 0..2048 {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        file.read_exact_at(&mut buffer, (state >> 20) % (len / 4096) * 4096).expect("it reads");
    }
}

/// 2 GiB through a cache of 64 MiB.
fn bounded() {
    let (far, names) = Far::new(|root| {
        for number in 0..64 {
            fs::create_dir_all(root.join("many")).expect("new");
            let path = root.join("many").join(number.to_string());
            fs::write(path, noise(number, 32 << 20)).expect("there is room");
        }
    });
    let mounted = mount(&far, "cache", &["--cache-size=64M"]);
    let files = files(&mounted.path.join(&names[0]));
    let (done, most) = (AtomicBool::new(false), AtomicU64::new(0));
    thread::scope(|scope| {
        scope.spawn(|| {
            while !done.load(Relaxed) {
                most.fetch_max(on_disk(&far.dir.path().join("cache")), Relaxed);
                thread::sleep(Duration::from_millis(10));
            }
        });
        files.iter().for_each(|file| read(file));
        done.store(true, Relaxed);
    });
    let most = most.load(Relaxed) as f64 / MIB as f64;
    tell("2 GiB through a cache of 64 MiB, most that it held", most, "MiB", 64.0, 1.0);
    mounted.unmount();
}

/// The bytes of disk that the files below take.
fn on_disk(dir: &Path) -> u64 {
    let du = Command::new("du").args(["-s", "-B1"]).arg(dir).stderr(Stdio::null()).output();
    let output = du.expect("du is there").stdout;
    let output = String::from_utf8_lossy(&output);
    let total = output.split_whitespace().next().and_then(|total| total.parse().ok());
    total.unwrap_or_else(|| dir.metadata().map_or(0, |metadata| metadata.blocks() * 512))
}
