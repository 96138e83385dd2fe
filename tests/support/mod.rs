//! What the test binaries share: trees to store, the program to run, and mounts that clean up after themselves.
#![allow(dead_code)] // Each binary uses its part.

use std::{
    collections::BTreeMap,
    ffi::{OsStr, OsString},
    fs,
    io::{BufRead as _, BufReader, Read as _},
    os::unix::{
        ffi::{OsStrExt as _, OsStringExt as _},
        fs::{MetadataExt as _, PermissionsExt as _, symlink},
    },
    path::{Path, PathBuf},
    process::{Child, Command, Output, Stdio},
    sync::mpsc,
    thread,
    time::{Duration, Instant},
};

/// The program under test.
pub const PROGRAM: &str = env!("CARGO_BIN_EXE_lazystore");

/// How long anything that should happen soon may take on a loaded machine.
pub const SOON: Duration = Duration::from_secs(30);

/// Whether a test that needs `what` may run. What is missing fails the test if `LAZYSTORE_REQUIRE=all` is set, as CI
/// sets it; else the test says that it is ignored. `LAZYSTORE_LACKING` names programs that cannot be had on a machine, with
/// spaces between: those may be missing even so.
pub fn have(what: &str, there: bool) -> bool {
    if !there {
        let required = std::env::var_os("LAZYSTORE_REQUIRE").is_some_and(|value| value == "all");
        let lacking = std::env::var("LAZYSTORE_LACKING").unwrap_or_default();
        let cannot_be_had = lacking.split(' ').any(|name| what.split(' ').next() == Some(name));
        assert!(!required || cannot_be_had, "{what} is missing, and LAZYSTORE_REQUIRE=all is set");
        eprintln!("IGNORED: {what} is missing");
    }
    there
}

/// Whether this process may mount.
pub fn can_mount() -> bool {
    have("/dev/fuse", Path::new("/dev/fuse").exists())
        && have("the right to mount (root)", rustix::process::geteuid().is_root())
}

/// Whether a program is on the PATH.
pub fn have_program(name: &str) -> bool {
    let path = std::env::var_os("PATH").unwrap_or_default();
    have(name, std::env::split_paths(&path).any(|dir| dir.join(name).is_file()))
}

/// Calls `ready` until it says so.
pub fn wait_until(what: &str, mut ready: impl FnMut() -> bool) {
    let start = Instant::now();
    while !ready() {
        assert!(start.elapsed() < SOON, "{what} did not happen within {SOON:?}");
        thread::sleep(Duration::from_millis(5));
    }
}

/// The program with its own store, quiet, and with nothing from the environment that could change it.
pub fn lazystore(store_dir: &Path) -> Command {
    let mut command = Command::new(PROGRAM);
    for variable in [
        "LAZYSTORE_STORE",
        "LAZYSTORE_METRICS",
        "LAZYSTORE_SLOW_LOG",
        "BLOB_SERVICE_ADDR",
        "DIRECTORY_SERVICE_ADDR",
        "PATH_INFO_SERVICE_ADDR",
        "RUST_LOG",
        "OTEL_EXPORTER_OTLP_ENDPOINT",
    ] {
        command.env_remove(variable);
    }
    command.env("LAZYSTORE_DIR", store_dir).env("LAZYSTORE_CACHE_DIR", "none");
    command
}

/// Runs to the end and expects success.
pub fn run(command: &mut Command) -> Output {
    let output = command.output().expect("the program can be run");
    assert!(
        output.status.success(),
        "{command:?}: {}\n{}",
        output.status,
        String::from_utf8_lossy(&output.stderr)
    );
    output
}

/// Imports `path` and returns the base name of its store path.
pub fn import(store_dir: &Path, path: &Path) -> String {
    let output = run(lazystore(store_dir).arg("import").arg(path));
    let printed = String::from_utf8(output.stdout).expect("a store path is ASCII");
    base_name(printed.trim_end())
}

pub fn base_name(store_path: &str) -> String {
    store_path.strip_prefix("/nix/store/").expect("a store path").to_owned()
}

/// A child process that is killed when the test ends, however it ends.
pub struct Running {
    pub child: Child,
    lines: mpsc::Receiver<String>,
    pub log: Vec<String>,
}

impl Running {
    pub fn start(command: &mut Command) -> Self {
        let mut child = command
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .expect("the program can be run");
        let stderr = BufReader::new(child.stderr.take().expect("it is a pipe"));
        let (send, lines) = mpsc::channel();
        thread::spawn(move || {
            stderr.lines().map_while(Result::ok).try_for_each(|line| send.send(line))
        });
        Running { child, lines, log: Vec::new() }
    }

    /// Waits for a log line that contains `text`, and returns it.
    pub fn wait_for_line(&mut self, text: &str) -> String {
        let deadline = Instant::now() + SOON;
        while let Ok(line) =
            self.lines.recv_timeout(deadline.saturating_duration_since(Instant::now()))
        {
            self.log.push(line.clone());
            if line.contains(text) {
                return line;
            }
        }
        panic!("no line with {text:?}; it said:\n{}", self.log.join("\n"));
    }

    pub fn signal(&self, signal: rustix::process::Signal) {
        let pid = rustix::process::Pid::from_child(&self.child);
        rustix::process::kill_process(pid, signal).expect("it runs");
    }

    /// Stops it as it is, and waits until none of its threads runs any more.
    pub fn pause(&self) {
        self.signal(rustix::process::Signal::STOP);
        let tasks = format!("/proc/{}/task", self.child.id());
        wait_until("it stands still", || {
            let mut tasks = fs::read_dir(&tasks).expect("it is there").flatten();
            tasks.all(|task| {
                let stat = fs::read_to_string(task.path().join("stat")).unwrap_or_default();
                stat.rsplit(')').next().is_some_and(|rest| rest.trim_start().starts_with('T'))
            })
        });
    }

    /// Waits for the end. Returns whether it was a success.
    pub fn wait(&mut self) -> bool {
        let start = Instant::now();
        loop {
            if let Some(status) = self.child.try_wait().expect("it is our child") {
                self.log.extend(self.lines.iter());
                return status.success();
            }
            assert!(start.elapsed() < SOON, "it did not end; it said:\n{}", self.log.join("\n"));
            thread::sleep(Duration::from_millis(5));
        }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A mount by the program.
pub struct Mounted {
    pub running: Running,
    pub path: PathBuf,
}

impl Mounted {
    /// Runs `lazystore mount`, and waits until it is there.
    pub fn new(command: &mut Command, path: &Path) -> Self {
        Self::with(command, path, &[])
    }

    /// The same with more arguments.
    pub fn with(command: &mut Command, path: &Path, args: &[&str]) -> Self {
        fs::create_dir_all(path).expect("a mountpoint can be made");
        let mut running = Running::start(command.arg("mount").args(args).arg(path));
        running.wait_for_line("mounted; Ctrl-C unmounts");
        Mounted { running, path: path.to_owned() }
    }

    /// Ends it by SIGTERM and expects a clean end.
    pub fn unmount(mut self) {
        self.running.signal(rustix::process::Signal::TERM);
        assert!(self.running.wait(), "it said:\n{}", self.running.log.join("\n"));
        assert!(!is_mounted(&self.path));
    }
}

impl Drop for Mounted {
    fn drop(&mut self) {
        let _ = self.running.child.kill();
        let _ = self.running.child.wait();
        let flags = rustix::mount::UnmountFlags::DETACH;
        let _ = rustix::mount::unmount(&self.path, flags);
    }
}

/// Whether something is mounted exactly there.
pub fn is_mounted(path: &Path) -> bool {
    let mounts = fs::read_to_string("/proc/self/mountinfo").expect("proc is there");
    mounts.lines().any(|line| line.split(' ').nth(4) == path.to_str())
}

/// Drops the kernel's dentries, inodes and pages. Needs root.
pub fn drop_kernel_caches() {
    rustix::fs::sync();
    fs::write("/proc/sys/vm/drop_caches", "3").expect("root may drop caches");
}

/// The resident memory of a process, in bytes.
pub fn resident(process: u32) -> usize {
    let status = fs::read_to_string(format!("/proc/{process}/statm")).expect("it runs");
    let pages = status.split(' ').nth(1).and_then(|pages| pages.parse::<usize>().ok());
    pages.expect("a number") * 4096
}

/// What must be the same in a tree and in its image.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Facts {
    Directory,
    File { executable: bool, size: u64, digest: blake3::Hash },
    Symlink(OsString),
}

/// Everything below `root`, by its path from there.
pub fn walk(root: &Path) -> BTreeMap<PathBuf, Facts> {
    let mut found = BTreeMap::new();
    let mut todo = vec![PathBuf::new()];
    while let Some(inner) = todo.pop() {
        let path = if inner.as_os_str().is_empty() { root.to_owned() } else { root.join(&inner) };
        let metadata = fs::symlink_metadata(&path).unwrap_or_else(|e| panic!("{path:?}: {e}"));
        let facts = if metadata.is_symlink() {
            Facts::Symlink(fs::read_link(&path).expect("it is a symlink").into_os_string())
        } else if metadata.is_dir() {
            for entry in fs::read_dir(&path).unwrap_or_else(|e| panic!("{path:?}: {e}")) {
                let entry = entry.unwrap_or_else(|e| panic!("{path:?}: {e}"));
                todo.push(inner.join(entry.file_name()));
            }
            Facts::Directory
        } else {
            let mut hasher = blake3::Hasher::new();
            let mut file = fs::File::open(&path).unwrap_or_else(|e| panic!("{path:?}: {e}"));
            let mut buffer = vec![0; 1 << 20];
            let mut size = 0;
            loop {
                let len = file.read(&mut buffer).unwrap_or_else(|e| panic!("{path:?}: {e}"));
                if len == 0 {
                    break;
                }
                hasher.update(&buffer[..len]);
                size += len as u64;
            }
            assert_eq!(size, metadata.len(), "{path:?}");
            Facts::File {
                executable: metadata.mode() & 0o100 != 0,
                size,
                digest: hasher.finalize(),
            }
        };
        assert!(found.insert(inner, facts).is_none(), "{path:?} is listed twice");
    }
    found
}

/// Compares without printing a whole tree.
pub fn assert_same(expected: &BTreeMap<PathBuf, Facts>, got: &BTreeMap<PathBuf, Facts>) {
    for (path, facts) in expected {
        assert_eq!(got.get(path), Some(facts), "{path:?}");
    }
    let extra: Vec<_> = got.keys().filter(|path| !expected.contains_key(*path)).take(3).collect();
    assert!(extra.is_empty(), "{extra:?} should not be there");
}

pub fn write(path: impl AsRef<Path>, contents: impl AsRef<[u8]>, mode: u32) {
    fs::write(&path, contents).expect("a file can be written");
    fs::set_permissions(&path, fs::Permissions::from_mode(mode)).expect("its mode can be set");
}

/// Bytes that do not compress and never repeat between seeds.
pub fn noise(seed: u64, len: usize) -> Vec<u8> {
    let mut bytes = vec![0; len];
    blake3::Hasher::new().update(&seed.to_le_bytes()).finalize_xof().fill(&mut bytes);
    bytes
}

/// A tree with one of everything: odd names, twins, empty things, links of all kinds, deep and wide directories, and
/// files around the sizes where something changes.
pub fn sample_tree(root: &Path) {
    fs::create_dir(root).expect("the tree can be made");
    for len in [0, 1, 4095, 4096, 4097, 65_536, 131_073, 1 << 20, (1 << 20) + 1, 3_000_001] {
        write(root.join(format!("file-{len}")), noise(len as u64, len), 0o644);
    }
    write(root.join("plain"), "#!/bin/sh\necho twin\n", 0o644);
    write(root.join("executable"), "#!/bin/sh\necho twin\n", 0o755);
    write(root.join("only-group-may-execute"), "g", 0o654);
    fs::create_dir(root.join("empty")).expect("new");

    let odd = root.join("odd names");
    fs::create_dir(&odd).expect("new");
    let mut names: Vec<Vec<u8>> = vec![
        b" ".into(),
        b"-rf".into(),
        b"new\nline".into(),
        b"tab\t".into(),
        b"\\".into(),
        b"*?[]{}".into(),
        b"quote\"'".into(),
        "gr\u{fc}n \u{1f41a}".into(),
        vec![0xff, 0xfe, 0x80],
        vec![b'x'; 255],
        b"...".into(),
        b".hidden".into(),
        b"{".into(),
        b"~".into(),
        b"#".into(),
        b"A".into(),
        b"a".into(),
    ];
    names.push((1..=254).filter(|byte| *byte != b'/').collect());
    for name in names {
        write(odd.join(OsStr::from_bytes(&name)), &name, 0o644);
    }

    let links = root.join("links");
    fs::create_dir(&links).expect("new");
    for (name, target) in
        [("dangling", "nowhere"), ("up", "../plain"), ("self", "self"), ("absolute", "/nix/store")]
    {
        symlink(target, links.join(name)).expect("a link can be made");
    }
    symlink(OsString::from_vec(vec![b't'; 4095]), links.join("long")).expect("a link can be made");
    symlink(OsString::from_vec(vec![0xff, b'/', 0x80]), links.join("odd"))
        .expect("a link can be made");

    // The same directory twice: two places.
    for place in ["twin-a", "twin-b"] {
        fs::create_dir_all(root.join(place).join("inner")).expect("new");
        write(root.join(place).join("inner/file"), "same", 0o644);
    }
    let deep: PathBuf = (0..100).map(|level| level.to_string()).collect();
    fs::create_dir_all(root.join("deep").join(&deep)).expect("new");
    write(root.join("deep").join(&deep).join("bottom"), "here", 0o644);

    let wide = root.join("wide");
    fs::create_dir(&wide).expect("new");
    for number in 0..3000 {
        write(wide.join(format!("entry-{number}")), number.to_string(), 0o644);
    }
}

/// A disk of its own, small enough to fill. Needs the right to mount.
pub struct SmallDisk(tempfile::TempDir);

impl SmallDisk {
    /// In memory.
    pub fn new(options: &std::ffi::CStr) -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let flags = rustix::mount::MountFlags::empty();
        rustix::mount::mount("tmpfs", folder.path(), "tmpfs", flags, options).expect("it mounts");
        SmallDisk(folder)
    }

    /// An ext4 in the file `image`, of so many bytes. Needs `mkfs.ext4` and `mount`.
    pub fn ext4(image: &Path, len: u64) -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        fs::File::create(image).and_then(|file| file.set_len(len)).expect("it can be made");
        run(Command::new("mkfs.ext4").args(["-q", "-F"]).arg(image));
        run(Command::new("mount").args(["-o", "loop"]).arg(image).arg(folder.path()));
        SmallDisk(folder)
    }

    pub fn folder(&self) -> &tempfile::TempDir {
        &self.0
    }

    pub fn path(&self) -> &Path {
        self.0.path()
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        let detach = rustix::mount::UnmountFlags::DETACH;
        rustix::mount::unmount(self.0.path(), detach).expect("it unmounts");
    }
}

/// The regular files below `folder`, as far as it can be read. Looks at no file.
pub fn files(folder: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut todo = vec![folder.to_owned()];
    while let Some(folder) = todo.pop() {
        for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
            match entry.file_type() {
                Ok(kind) if kind.is_dir() => todo.push(entry.path()),
                Ok(kind) if kind.is_file() => found.push(entry.path()),
                _ => {}
            }
        }
    }
    found
}
