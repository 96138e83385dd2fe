//! How far a mounted store is from the files it was made of: the same work on ext4 (or whatever lies under the
//! working folder) and on a mount in each I/O mode, side by side in one run.
//!
//! `cargo bench --bench native [-- [--runs N] [--dir DIR] [--metrics] [WORK]...]`, as root. Prints, for each kind of work and each
//! state of the caches, the time on the disk and the ratios of the mounts to it: medians of paired runs.
//!
//! * *warm*: the same work was just done;
//! * *first*: a daemon and a mount that have just started, so that the kernel knows no page and no name of it, over a
//!   store whose files are in memory, against the warm disk;
//! * *cold*: nothing is in the kernel's caches, on neither side, and the daemon has just started.
//!
//! With `--metrics` it tells instead what watching costs: the same warm work on a mount that answers at `--metrics` and on
//! one without that and without a slow log. Both are mounted at once and take turns; the median of the ratios of so many
//! pairs. Where no message reaches the process, what differs from 1 is how the kernel laid out its pages.
#![allow(unsafe_code)] // mmap

#[path = "../tests/support/mod.rs"]
mod support;

use std::{
    collections::BTreeMap,
    fs::{self, File},
    io::{self, Read as _, Write as _},
    os::unix::fs::{FileExt as _, symlink},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use support::{PROGRAM, drop_kernel_caches, files, import, is_mounted, resident};

const MODES: [&str; 2] = ["no-open", "passthrough"];
const SMALL_FILES: usize = 20_000;
const LARGE_LEN: u64 = 640 << 20;
const RANDOM_READS: u64 = 4096;
/// How often two mounts take turns.
const TURNS: usize = 5;

#[derive(Clone, Copy, PartialEq, Eq)]
enum State {
    Warm,
    First,
    Cold,
}

impl State {
    fn name(self) -> &'static str {
        match self {
            State::Warm => "warm",
            State::First => "first",
            State::Cold => "cold",
        }
    }
}

struct Work {
    name: &'static str,
    states: &'static [State],
    run: fn(&Path),
}

use State::{Cold, First, Warm};

const ALL: &[State] = &[Warm, First, Cold];

const WORK: &[Work] = &[
    Work { name: "sequential read", states: ALL, run: |root| sequential(&root.join("large")) },
    Work { name: "mmap scan", states: ALL, run: |root| mmap_scan(&root.join("large")) },
    Work { name: "random 4 KiB", states: &[Warm, Cold], run: |root| random(&root.join("large")) },
    Work { name: "find", states: ALL, run: |root| run("find", &[root.join("small").as_os_str()]) },
    Work {
        name: "ls -lR",
        states: ALL,
        run: |root| run("ls", &["-lR".as_ref(), root.join("small").as_os_str()]),
    },
    Work { name: "stat", states: &[Warm, First], run: |root| stat(&root.join("small")) },
    Work {
        name: "ls, wide directory",
        states: &[Warm, First],
        run: |root| {
            run("ls", &["-U".as_ref(), root.join("wide").as_os_str()]);
        },
    },
    Work { name: "stat, deep", states: &[Warm, First], run: |root| deep(root) },
    Work {
        name: "open+read+close",
        states: ALL,
        run: |root| open_read_close(&files(&root.join("small"))),
    },
    Work {
        name: "the same, 4 readers",
        states: &[Warm, First],
        run: |root| {
            let files = files(&root.join("small"));
            thread::scope(|scope| {
                for part in files.chunks(files.len().div_ceil(4).max(1)) {
                    scope.spawn(|| open_read_close(part));
                }
            });
        },
    },
    Work { name: "tar", states: &[Warm, Cold], run: |root| tar(&root.join("small")) },
    Work {
        name: "exec, big program",
        states: &[Warm, Cold],
        run: |root| {
            run(&root.join("rust/bin/rustc").to_string_lossy(), &["--version".as_ref()]);
        },
    },
    Work { name: "getxattr", states: &[Warm], run: |root| getxattr(&root.join("small")) },
    Work { name: "C compile, 100 files", states: &[Warm], run: |root| compile(root) },
    Work { name: "Python, all modules", states: &[Warm], run: |root| python(root) },
];

fn main() {
    let mut runs = 5;
    let mut dir = None;
    let mut only = Vec::new();
    let mut is_watched = false;
    let mut args = std::env::args().skip(1).filter(|arg| arg != "--bench");
    while let Some(arg) = args.next() {
        match arg.as_str() {
            "--runs" => runs = args.next().and_then(|n| n.parse().ok()).expect("--runs N"),
            "--metrics" => is_watched = true,
            "--dir" => dir = Some(PathBuf::from(args.next().expect("--dir DIR"))),
            _ => only.push(arg),
        }
    }
    assert!(rustix::process::geteuid().is_root(), "needs root: to mount and to drop caches");
    let folder = match &dir {
        Some(dir) => tempfile::tempdir_in(dir),
        None => tempfile::tempdir_in("/var/tmp"),
    };
    let folder = folder.expect("a working folder");
    let bench = Bench::new(folder.path());
    println!("{SMALL_FILES} small files, one of {} MiB; medians of {runs} runs", LARGE_LEN >> 20);
    let all = WORK.iter().filter(|work| {
        only.is_empty() || only.iter().any(|word| work.name.contains(word.as_str()))
    });
    if is_watched {
        println!("{:<22} {:>9} {:>12}", "watched/not", MODES[0], MODES[1]);
        for work in all {
            bench.watch(work, runs);
        }
        return;
    }
    println!("{:<22} {:<6} {:>10} {:>9} {:>12}", "work", "", "disk, ms", MODES[0], MODES[1]);
    for work in all {
        for state in work.states {
            bench.compare(work, *state, runs);
        }
    }
    if only.is_empty() {
        for mode in MODES {
            bench.memory(mode);
        }
    }
}

struct Bench {
    corpus: PathBuf,
    store: PathBuf,
    store_path: String,
    mountpoint: PathBuf,
}

struct Mount {
    child: Child,
    mountpoint: PathBuf,
    root: PathBuf,
}

impl Drop for Mount {
    fn drop(&mut self) {
        let pid = rustix::process::Pid::from_child(&self.child);
        let _ = rustix::process::kill_process(pid, rustix::process::Signal::TERM);
        let _ = self.child.wait();
        assert!(!is_mounted(&self.mountpoint), "it did not unmount");
    }
}

impl Bench {
    fn new(folder: &Path) -> Self {
        // As deep below the folder as the mounted one: a path costs by its length.
        let (corpus, store) = (folder.join("disk/corpus"), folder.join("store"));
        build_corpus(&corpus);
        let store_path = import(&store, &corpus);
        let mountpoint = folder.join("mnt");
        Bench { corpus, store, store_path, mountpoint }
    }

    fn mount(&self, mode: &str) -> Option<Mount> {
        self.mount_at(&self.mountpoint, mode, &[])
    }

    fn mount_at(&self, mountpoint: &Path, mode: &str, args: &[&str]) -> Option<Mount> {
        fs::create_dir_all(mountpoint).expect("a folder");
        let mut command = Command::new(PROGRAM);
        command.args(["mount", "--log-level=warn", "--io-mode", mode, "--store-dir"]);
        command.arg(&self.store).args(args).arg(mountpoint);
        let mut child = command.stdin(Stdio::null()).spawn().expect("it runs");
        while !is_mounted(mountpoint) {
            if child.try_wait().expect("a child").is_some() {
                return None;
            }
            thread::sleep(Duration::from_millis(2));
        }
        let root = mountpoint.join(&self.store_path);
        Some(Mount { child, mountpoint: mountpoint.to_owned(), root })
    }

    /// One row.
    fn compare(&self, work: &Work, state: State, runs: usize) {
        let mut disk = Vec::new();
        let mut ratios: BTreeMap<&str, Vec<f64>> = BTreeMap::new();
        for _ in 0..runs {
            let native = self.on_disk(work, state);
            disk.push(native);
            for mode in MODES {
                if let Some(time) = self.on_mount(work, state, mode) {
                    ratios.entry(mode).or_default().push(time / native);
                }
            }
        }
        let ratio = |mode| match ratios.get_mut(mode) {
            Some(ratios) => format!("{:.2}", median(ratios)),
            None => "-".to_owned(),
        };
        let [no_open, passthrough] = MODES.map(ratio);
        println!(
            "{:<22} {:<6} {:>10.1} {no_open:>9} {passthrough:>12}",
            work.name,
            state.name(),
            median(&mut disk) * 1000.0
        );
    }

    /// One row of what watching costs.
    fn watch(&self, work: &Work, pairs: usize) {
        let [no_open, passthrough] = MODES.map(|mode| {
            // Whatever it is to be the first one is so on either side as often.
            let ratios = (0..pairs).map(|number| self.pair(work, mode, number % 2 == 0));
            ratios
                .collect::<Option<Vec<_>>>()
                .map_or("-".to_owned(), |mut ratios| format!("{:.3}", median(&mut ratios)))
        });
        println!("{:<22} {no_open:>9} {passthrough:>12}", work.name);
    }

    /// How many times as long the work takes on a mount that is watched.
    fn pair(&self, work: &Work, mode: &str, watched_first: bool) -> Option<f64> {
        let address = format!("unix:{}", self.mountpoint.with_file_name("metrics.sock").display());
        let unwatched = ("not-watched", vec!["--slow-log", "0"]);
        let watched = ("was-watched", vec!["--metrics", &address]);
        let mut sides = [unwatched, watched];
        if watched_first {
            sides.reverse();
        }
        let mount = |(name, args): &(&str, Vec<&str>)| {
            self.mount_at(&self.mountpoint.with_file_name(name), mode, args)
        };
        let mounts = [mount(&sides[0])?, mount(&sides[1])?];
        mounts.iter().for_each(|mount| (work.run)(&mount.root));
        let mut times = [Vec::new(), Vec::new()];
        for _ in 0..TURNS {
            for (mount, times) in mounts.iter().zip(&mut times) {
                times.push(timed(|| (work.run)(&mount.root)));
            }
        }
        let [one, other] = times.map(|mut times| median(&mut times));
        Some(if watched_first { one / other } else { other / one })
    }

    fn on_disk(&self, work: &Work, state: State) -> f64 {
        match state {
            State::Warm | State::First => (work.run)(&self.corpus),
            State::Cold => drop_kernel_caches(),
        }
        timed(|| (work.run)(&self.corpus))
    }

    fn on_mount(&self, work: &Work, state: State, mode: &str) -> Option<f64> {
        if state == State::First {
            files(&self.store).iter().for_each(|file| sequential(file));
        }
        let mount = self.mount(mode)?;
        match state {
            State::Warm => (work.run)(&mount.root),
            State::First => {}
            State::Cold => drop_kernel_caches(),
        }
        Some(timed(|| (work.run)(&mount.root)))
    }

    /// What is kept in memory, and what the daemon does while warm files are read.
    fn memory(&self, mode: &str) {
        let Some(mount) = self.mount(mode) else { return };
        let large = cache_growth(|| sequential(&mount.root.join("large")));
        let small = |root: &Path| {
            let files = files(&root.join("small"));
            cache_growth(|| open_read_close(&files))
        };
        let (small, small_on_disk) = (small(&mount.root), small(&self.corpus));
        stat(&mount.root.join("small"));
        sequential(&mount.root.join("large"));
        let cpu = cpu_ticks(mount.child.id());
        for _ in 0..3 {
            sequential(&mount.root.join("large"));
        }
        let cpu = cpu_ticks(mount.child.id()) - cpu;
        println!(
            "{mode}: the page cache grew by {:.2} bytes for each that was read of the large file, and by {:.2} times \
             as many as on the disk for the small ones; {} ms of processor time while 2 GiB were read again; {} MiB \
             resident",
            large / LARGE_LEN as f64,
            small / small_on_disk,
            cpu * 10,
            resident(mount.child.id()) >> 20
        );
    }
}

fn median(values: &mut [f64]) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

fn timed(work: impl FnOnce()) -> f64 {
    let start = Instant::now();
    work();
    start.elapsed().as_secs_f64()
}

fn meminfo(key: &str) -> u64 {
    let text = fs::read_to_string("/proc/meminfo").expect("proc is there");
    let line = text.lines().find(|line| line.starts_with(key)).expect("it is told");
    line.split_whitespace().nth(1).and_then(|kib| kib.parse().ok()).expect("a number")
}

/// By how many bytes what is in the page cache grows from nothing.
fn cache_growth(work: impl FnOnce()) -> f64 {
    drop_kernel_caches();
    let before = meminfo("Cached:");
    work();
    (meminfo("Cached:") - before) as f64 * 1024.0
}

fn cpu_ticks(pid: u32) -> u64 {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).expect("it runs");
    let fields: Vec<&str> = stat.rsplit(')').next().expect("there").split_whitespace().collect();
    let number = |index: usize| fields[index].parse::<u64>().expect("a number");
    number(11) + number(12)
}

// The corpus: files of this machine.

fn build_corpus(corpus: &Path) {
    fs::create_dir_all(corpus).expect("new");
    let mut left = SMALL_FILES;
    for source in ["/usr/include", "/usr/lib/python3", "/usr/share", "/usr/lib"] {
        copy_small(Path::new(source), &corpus.join("small").join(&source[1..]), &mut left);
    }
    // Machines with few files get more of them: the same again, and never the same contents.
    let mut round = 0;
    while left > 0 {
        round += 1;
        for file in files(&corpus.join("small/usr")).into_iter().take(left) {
            let name =
                file.strip_prefix(corpus).expect("below").to_string_lossy().replace('/', "-");
            let mut contents = fs::read(file).expect("it reads");
            contents.extend_from_slice(name.as_bytes());
            let folder = corpus.join(format!("small/more{round}/{}", left % 50));
            fs::create_dir_all(&folder).expect("new");
            fs::write(folder.join(format!("{left}")), contents).expect("new");
            left -= 1;
        }
    }
    let mut large = File::create(corpus.join("large")).expect("new");
    let mut len = 0;
    let mut stamp = 0u64;
    'outer: loop {
        for file in files(Path::new("/usr/lib")) {
            let Ok(mut contents) = fs::read(&file) else { continue };
            // Never the same twice, as deduplication would see it.
            stamp += 1;
            contents.extend_from_slice(&stamp.to_le_bytes());
            contents.truncate((LARGE_LEN - len) as usize);
            large.write_all(&contents).expect("there is room");
            len += contents.len() as u64;
            if len == LARGE_LEN {
                break 'outer;
            }
        }
    }
    let rustc =
        Command::new("rustc").args(["--print", "sysroot"]).output().expect("rustc is there");
    let sysroot = PathBuf::from(String::from_utf8_lossy(&rustc.stdout).trim());
    for folder in ["bin", "lib"] {
        fs::create_dir_all(corpus.join("rust").join(folder)).expect("new");
        for entry in fs::read_dir(sysroot.join(folder)).expect("it lists").flatten() {
            let name = entry.file_name();
            if name == "rustc" || name.to_string_lossy().contains(".so") {
                fs::copy(entry.path(), corpus.join("rust").join(folder).join(name)).expect("new");
            }
        }
    }
    let mut deep = corpus.join("deep");
    (0..100).for_each(|_| deep.push("d"));
    fs::create_dir_all(&deep).expect("new");
    fs::create_dir(corpus.join("wide")).expect("new");
    for number in 0..20_000 {
        symlink(format!("{number}"), corpus.join(format!("wide/{number}"))).expect("new");
    }
    fs::create_dir(corpus.join("c")).expect("new");
    for number in 0..100 {
        let source = format!(
            "#include <stdio.h>\n#include <stdlib.h>\n#include <string.h>\n#include <unistd.h>\n\
             #include <sys/stat.h>\n#include <sys/socket.h>\n#include <netinet/in.h>\n#include <pthread.h>\n\
             #include <math.h>\n#include <time.h>\nint f{number}(int x) {{ return printf(\"%d\", x); }}\n"
        );
        fs::write(corpus.join(format!("c/{number}.c")), source).expect("new");
    }
    copy_tree(Path::new("/usr/include"), &corpus.join("include"));
    let version = "import sys, sysconfig; print(sysconfig.get_paths()['stdlib'])";
    let python = Command::new("python3").args(["-c", version]).output().expect("python3 is there");
    let stdlib = PathBuf::from(String::from_utf8_lossy(&python.stdout).trim());
    copy_tree(&stdlib, &corpus.join("python"));
    // As Nix does: a store is read-only, so what is compiled is compiled before.
    let mut compile = Command::new("python3");
    compile.args(["-m", "compileall", "-q", "--invalidation-mode", "unchecked-hash"]);
    let _ = compile.arg(corpus.join("python")).stdout(Stdio::null()).status();
    rustix::fs::sync();
}

fn copy_small(from: &Path, to: &Path, left: &mut usize) {
    let Ok(entries) = fs::read_dir(from) else { return };
    for entry in entries.flatten() {
        let Ok(metadata) = entry.metadata() else { continue };
        if metadata.is_dir() {
            copy_small(&entry.path(), &to.join(entry.file_name()), left);
        } else if metadata.is_file() && metadata.len() <= 64 << 10 && *left > 0 {
            fs::create_dir_all(to).expect("new");
            if fs::copy(entry.path(), to.join(entry.file_name())).is_ok() {
                *left -= 1;
            }
        }
    }
}

/// Regular files and folders only, and no packages that were installed besides.
fn copy_tree(from: &Path, to: &Path) {
    fs::create_dir_all(to).expect("new");
    for entry in fs::read_dir(from).expect("it lists").flatten() {
        let Ok(metadata) = entry.metadata() else { continue };
        let name = entry.file_name();
        if metadata.is_dir() && name != "site-packages" && name != "test" && name != "__pycache__" {
            copy_tree(&entry.path(), &to.join(name));
        } else if metadata.is_file() {
            let _ = fs::copy(entry.path(), to.join(name));
        } else if metadata.is_symlink()
            && let Ok(target) = fs::read_link(entry.path())
        {
            let _ = symlink(target, to.join(name));
        }
    }
}

// The work.

fn run(program: &str, args: &[&std::ffi::OsStr]) {
    let status = Command::new(program).args(args).stdout(Stdio::null()).status();
    assert!(status.expect("it runs").success(), "{program} failed");
}

fn sequential(file: &Path) {
    let mut file = File::open(file).expect("it opens");
    let mut buffer = vec![0; 1 << 20];
    while file.read(&mut buffer).expect("it reads") > 0 {}
}

fn random(file: &Path) {
    let file = File::open(file).expect("it opens");
    let mut buffer = [0; 4096];
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    for _ in 0..RANDOM_READS {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        let page = (state >> 20) % (LARGE_LEN / 4096);
        file.read_exact_at(&mut buffer, page * 4096).expect("it reads");
    }
}

fn mmap_scan(path: &Path) {
    let file = File::open(path).expect("it opens");
    let len = file.metadata().expect("it has some").len() as usize;
    // SAFETY: a fresh private mapping of a file that nobody changes, unmapped at the end.
    let sum = unsafe {
        let address = libc::mmap(
            std::ptr::null_mut(),
            len,
            libc::PROT_READ,
            libc::MAP_PRIVATE,
            std::os::fd::AsRawFd::as_raw_fd(&file),
            0,
        );
        assert_ne!(address, libc::MAP_FAILED, "{}", io::Error::last_os_error());
        let bytes = std::slice::from_raw_parts(address.cast::<u8>(), len);
        let sum = bytes.iter().step_by(4096).map(|byte| u64::from(*byte)).sum::<u64>();
        libc::munmap(address, len);
        sum
    };
    std::hint::black_box(sum);
}

fn stat(folder: &Path) {
    for file in files(folder) {
        fs::symlink_metadata(file).expect("it is there");
    }
}

fn deep(root: &Path) {
    let mut path = root.join("deep");
    for _ in 0..100 {
        path.push("d");
        fs::symlink_metadata(&path).expect("it is there");
    }
}

fn open_read_close(files: &[PathBuf]) {
    let mut buffer = vec![0; 64 << 10];
    for path in files {
        let mut file = File::open(path).expect("it opens");
        while file.read(&mut buffer).expect("it reads") == buffer.len() {}
    }
}

fn getxattr(folder: &Path) {
    let mut buffer = [0; 100];
    for file in files(folder) {
        let _ = rustix::fs::lgetxattr(file, "user.tvix.castore.blob.digest", &mut buffer[..]);
    }
}

/// Through a pipe: `tar` does not read what it writes to /dev/null.
fn tar(folder: &Path) {
    let mut tar = Command::new("tar")
        .args(["-cf", "-", "-C"])
        .arg(folder)
        .arg(".")
        .stdout(Stdio::piped())
        .spawn()
        .expect("tar is there");
    let mut buffer = vec![0; 1 << 20];
    let output = tar.stdout.as_mut().expect("it is a pipe");
    while output.read(&mut buffer).expect("it reads") > 0 {}
    assert!(tar.wait().expect("it ran").success());
}

fn compile(root: &Path) {
    for number in 0..100 {
        let include = root.join("include");
        run(
            "gcc",
            &[
                "-fsyntax-only".as_ref(),
                "-nostdinc".as_ref(),
                "-isystem".as_ref(),
                include.as_os_str(),
                "-isystem".as_ref(),
                include.join("x86_64-linux-gnu").as_os_str(),
                "-isystem".as_ref(),
                "/usr/lib/gcc/x86_64-linux-gnu/12/include".as_ref(),
                root.join(format!("c/{number}.c")).as_os_str(),
            ],
        );
    }
}

fn python(root: &Path) {
    let import_all = "
import importlib, os, sys
n = 0
for d, ds, fs in os.walk(sys.path[0]):
    ds[:] = [x for x in ds if x in ('json', 'email', 'xml', 'asyncio', 'concurrent', 'http', 'urllib', 'logging',
        'multiprocessing', 'unittest', 'encodings', 'importlib', 'collections', 'ctypes', 'dbm', 'html', 'parsers', 'dom', 'etree', 'sax', 'futures', 'mime')]
    for f in sorted(fs):
        if not f.endswith('.py') or f in ('antigravity.py', 'this.py', '__main__.py', 'idlelib.py', 'turtle.py'): continue
        m = os.path.relpath(os.path.join(d, f), sys.path[0])[:-3].replace('/', '.').removesuffix('.__init__')
        if m.startswith('encodings.mbcs') or m.startswith('encodings.oem'): continue
        try:
            importlib.import_module(m); n += 1
        except BaseException: pass
assert n > 250, n
";
    let mut python = Command::new("python3");
    python.args([
        "-S",
        "-c",
        &format!("import sys; sys.path.insert(0, {:?})\n{import_all}", root.join("python")),
    ]);
    python.env("PYTHONDONTWRITEBYTECODE", "1").env("PYTHONHOME", "").env_remove("PYTHONHOME");
    let status = python.stdout(Stdio::null()).stderr(Stdio::null()).status().expect("it runs");
    assert!(status.success(), "python3 failed");
}
