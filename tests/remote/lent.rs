//! A daemon on this machine, which lends its files.

use std::{
    fs::{self, File},
    io::{self, Read as _, Write as _},
    os::unix::{
        fs::{FileExt as _, MetadataExt as _},
        net::{UnixListener, UnixStream},
    },
    path::{Path, PathBuf},
    process::Command,
    thread,
    time::{Duration, Instant},
};

use crate::support::{
    Mounted, Running, can_mount, drop_kernel_caches, import, lazystore, noise, run, write,
};

/// Long enough to be lent.
const LEN: usize = 5_000_000;

/// A daemon on a unix socket, whose store has one file.
struct Lender {
    dir: tempfile::TempDir,
    daemon: Running,
    name: String,
}

impl Lender {
    fn new() -> Self {
        let dir = tempfile::tempdir().expect("a temporary directory");
        write(dir.path().join("long"), noise(1, LEN), 0o644);
        let name = import(&dir.path().join("store"), &dir.path().join("long"));
        let mut command = lazystore(&dir.path().join("store"));
        command.arg("daemon").arg(format!("--listen=unix:{}", dir.path().join("socket").display()));
        let mut daemon = Running::start(&mut command);
        daemon.wait_for_line("listening");
        Lender { dir, daemon, name }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn mount(&self, socket: &str, cache: &str, args: &[&str]) -> Mounted {
        let mut command = lazystore(Path::new("/nonexistent"));
        command.env("LAZYSTORE_STORE", format!("grpc+unix://{}", self.path(socket).display()));
        let cache = match cache {
            "none" => PathBuf::from(cache),
            name => self.path(name),
        };
        command.env("LAZYSTORE_CACHE_DIR", cache);
        Mounted::with(&mut command, &self.path("mnt"), args)
    }
}

/// Reads the file, and looks whether what was read is kept by nobody but the daemon: only a file that it lends can be read
/// after it is gone, as the kernel's pages are dropped.
fn is_lent(mut lender: Lender, socket: &str, args: &[&str]) -> bool {
    let mounted = lender.mount(socket, "none", args);
    let path = mounted.path.join(&lender.name);
    let device = fs::metadata(&path).expect("it is there").dev();
    let (major, minor) = (rustix::fs::major(device), rustix::fs::minor(device));
    let ahead = fs::read_to_string(format!("/sys/class/bdi/{major}:{minor}/read_ahead_kb"));
    let ahead = ahead.expect("the kernel tells");
    let file = File::open(&path).expect("it is there");
    let mut begin = [0; 8192];
    file.read_exact_at(&mut begin, 2_000_001).expect("it reads");
    assert!(begin[..] == noise(1, LEN)[2_000_001..2_008_193]);
    assert!(fs::read(&path).expect("it reads") == noise(1, LEN));
    lender.daemon.child.kill().expect("ours");
    lender.daemon.wait();
    drop(file);
    drop_kernel_caches();
    let read = fs::read(path);
    mounted.unmount();
    let is_lent = read.is_ok_and(|read| {
        assert!(read == noise(1, LEN));
        true
    });
    // The kernel reads ahead as far as is good for what it reads.
    match args {
        ["--verify=strict"] => assert_eq!(ahead.trim(), "256"),
        _ => assert!(!is_lent || ahead.trim() == "2048", "{ahead}"),
    }
    is_lent
}

#[test]
fn a_file_that_is_lent_is_read_without_the_daemon() {
    if can_mount() {
        assert!(is_lent(Lender::new(), "socket", &["--io-mode=no-open"]));
        assert!(is_lent(Lender::new(), "socket", &[]));
    }
}

#[test]
fn who_is_strict_borrows_nothing() {
    if can_mount() {
        assert!(!is_lent(Lender::new(), "socket", &["--verify=strict"]));
    }
}

/// Who may change the file could change what is read, behind the back of every check.
#[test]
fn a_file_of_somebody_else_is_not_borrowed() {
    if can_mount() {
        let lender = Lender::new();
        run(Command::new("chown").args(["-R", "65534"]).arg(lender.path("store/blobs")));
        assert!(!is_lent(lender, "socket", &[]));
    }
}

/// With a cache, what was read is here after the daemon is gone, also for the next mount.
#[test]
fn who_keeps_what_it_reads_borrows_nothing() {
    if !can_mount() {
        return;
    }
    let mut lender = Lender::new();
    let mounted = lender.mount("socket", "cache", &[]);
    assert!(fs::read(mounted.path.join(&lender.name)).expect("it reads") == noise(1, LEN));
    mounted.unmount();
    lender.daemon.child.kill().expect("ours");
    lender.daemon.wait();
    let mounted = lender.mount("socket", "cache", &["--offline"]);
    assert!(fs::read(mounted.path.join(&lender.name)).expect("it reads") == noise(1, LEN));
    mounted.unmount();
}

/// Passes bytes on, as a container's proxy might, and no files. `holds` connections that would borrow: they are not
/// answered.
fn pass_bytes_on(listener: UnixListener, to: PathBuf, holds: bool) {
    for near in listener.incoming() {
        let Ok(mut near) = near else { return };
        let to = to.clone();
        thread::spawn(move || -> io::Result<()> {
            let mut first = [0];
            near.read_exact(&mut first)?;
            if holds && first == *b"l" {
                thread::sleep(Duration::from_secs(600));
            }
            let mut far = UnixStream::connect(to)?;
            far.write_all(&first)?;
            let (mut from, mut into) = (far.try_clone()?, near.try_clone()?);
            thread::spawn(move || io::copy(&mut from, &mut into));
            io::copy(&mut near, &mut far)?;
            Ok(())
        });
    }
}

#[test]
fn where_files_do_not_pass_bytes_do() {
    if !can_mount() {
        return;
    }
    for holds in [false, true] {
        let lender = Lender::new();
        let listener = UnixListener::bind(lender.path("between")).expect("it binds");
        let to = lender.path("socket");
        thread::spawn(move || pass_bytes_on(listener, to, holds));
        let begun = Instant::now();
        assert!(!is_lent(lender, "between", &["--io-mode=no-open"]));
        assert!(begun.elapsed() < Duration::from_secs(20), "{:?}", begun.elapsed());
    }
}

/// Whatever comes on the socket, others are served.
#[test]
fn strange_connections_keep_nobody_from_a_daemon() {
    let lender = Lender::new();
    let connect = || UnixStream::connect(lender.path("socket")).expect("it listens");
    let _silent: Vec<_> = (0..50).map(|_| connect()).collect();
    // Half a greeting, and one that is nearly right.
    let mut half = connect();
    half.write_all(b"lazystore").expect("it takes it");
    let mut wrong = connect();
    wrong.write_all(b"lazystore-sells\n").expect("it takes it");
    assert_eq!(wrong.read(&mut [0; 16]).expect("it ends"), 0, "it should be closed");
    // A blob that nobody has, and one that begins and never ends.
    let mut asking = connect();
    asking.write_all(b"lazystore-lends\n").expect("it takes it");
    let mut greeting = [0; 16];
    asking.read_exact(&mut greeting).expect("it greets");
    asking.write_all(&[7; 32]).expect("it takes it");
    let mut answer = [0; 40];
    asking.read_exact(&mut answer).expect("it answers");
    assert_eq!((&answer[..32], &answer[32..]), (&[7; 32][..], &[0xff; 8][..]));
    asking.write_all(&[7; 31]).expect("it takes it");
    let mut ls = lazystore(Path::new("/nonexistent"));
    ls.env("LAZYSTORE_STORE", format!("grpc+unix://{}", lender.path("socket").display()));
    let listed = run(ls.arg("stat").arg(format!("/nix/store/{}", lender.name)));
    assert!(String::from_utf8_lossy(&listed.stdout).contains("5000000"));
}
