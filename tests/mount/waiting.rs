//! Stores that are slow, or do not answer: nobody else waits, and who waits can be killed.

use std::{
    fs,
    io::Read as _,
    ops::Range,
    os::unix::process::ExitStatusExt as _,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use async_trait::async_trait;
use bytes::Bytes;
use lazystore::{
    castore::{ChunkList, Digest, Directory, Name, Node, SizeRule},
    mount::{IoMode, Session, SessionOptions, mountpoint},
    nix::{Details, PathInfo, StorePath, StorePathDigest},
    render::RenderNar,
    service::{
        Error, Result, Stores,
        blob::{BlobService, BlobStream, BlobWriter, LocalBlob, Put, backend::MemoryBlobs},
        directory::{DirectoryService as _, backend::MemoryDirectories},
        pathinfo::{PathInfoService, PathInfoStream, backend::MemoryPathInfos},
    },
    vfs::{Options, Vfs},
};
use rustix::process::{Pid, Signal, kill_process};

use crate::support::{
    Mounted, Running, can_mount, drop_kernel_caches, import, lazystore, noise, resident,
    wait_until, write,
};

/// Answers for some blobs only when it is told to.
#[derive(Debug)]
struct StallingBlobs {
    inner: MemoryBlobs,
    stalled: Digest,
    released: AtomicBool,
    fails: AtomicBool,
    waiting: AtomicUsize,
}

#[async_trait]
impl BlobService for StallingBlobs {
    async fn has(&self, digest: &Digest) -> Result<bool> {
        self.inner.has(digest).await
    }

    async fn read(&self, digest: &Digest, range: Range<u64>) -> Result<Option<BlobStream>> {
        if *digest == self.stalled {
            if self.fails.load(Ordering::SeqCst) {
                return Err(Error::unavailable("test", "it is broken"));
            }
            self.waiting.fetch_add(1, Ordering::SeqCst);
            while !self.released.load(Ordering::SeqCst) {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        }
        self.inner.read(digest, range).await
    }

    async fn chunks(&self, digest: &Digest) -> Result<Option<ChunkList>> {
        self.inner.chunks(digest).await
    }

    fn open_local(&self, digest: &Digest) -> Result<Option<LocalBlob>> {
        self.inner.open_local(digest)
    }

    async fn put(&self, contents: Bytes) -> Result<Put> {
        self.inner.put(contents).await
    }

    async fn writer(&self) -> Result<Box<dyn BlobWriter>> {
        self.inner.writer().await
    }

    async fn sync(&self) -> Result<()> {
        self.inner.sync().await
    }
}

const NAME: &str = "00000000000000000000000000000000-tree";
const STALLED_NAME: &str = "11111111111111111111111111111111-stalled";

/// Never answers for one store path.
#[derive(Debug)]
struct StallingPathInfos(MemoryPathInfos);

#[async_trait]
impl PathInfoService for StallingPathInfos {
    async fn get(&self, digest: &StorePathDigest) -> Result<Option<PathInfo>> {
        let stalled = StorePath::from_base_name(STALLED_NAME.as_bytes()).expect("legal");
        if *digest == stalled.digest() {
            std::future::pending::<()>().await;
        }
        self.0.get(digest).await
    }

    async fn put(&self, path_info: PathInfo) -> Result<PathInfo> {
        self.0.put(path_info).await
    }

    fn list(&self) -> PathInfoStream {
        self.0.list()
    }
}

/// A mount in this process with two files, one of which stalls.
struct Slow {
    blobs: Arc<StallingBlobs>,
    dir: PathBuf,
    mountpoint: Option<mountpoint::Mountpoint>,
    session: Option<Session>,
    _runtime: tokio::runtime::Runtime,
    _temporary: tempfile::TempDir,
}

impl Slow {
    fn new() -> Self {
        let temporary = tempfile::tempdir().expect("a temporary directory");
        let runtime = tokio::runtime::Runtime::new().expect("a runtime");
        let (slow, fast) = (noise(1, 50_000), noise(2, 50_000));
        let blobs = Arc::new(StallingBlobs {
            inner: MemoryBlobs::new(),
            stalled: Digest::of(&slow),
            released: AtomicBool::new(false),
            fails: AtomicBool::new(false),
            waiting: AtomicUsize::new(0),
        });
        let directories = Arc::new(MemoryDirectories::new());
        let path_infos = Arc::new(StallingPathInfos(MemoryPathInfos::new()));
        runtime.block_on(async {
            let mut builder = Directory::builder();
            for (name, contents) in [("slow", slow), ("fast", fast)] {
                let size = contents.len() as u64;
                let digest = blobs.put(contents.into()).await.expect("it stores").digest;
                let node = Node::File { digest, size, executable: false };
                builder.add(Name::try_from(name).expect("legal"), node);
            }
            let directory = Arc::new(builder.build().expect("legal"));
            directories.put(directory.clone()).await.expect("it stores");
            let store_path = StorePath::from_base_name(NAME.as_bytes()).expect("legal");
            let node = directory.node(SizeRule::Documented);
            let info = PathInfo { store_path, node, details: Details::References(Vec::new()) };
            path_infos.put(info).await.expect("it stores");
        });
        let nars = Arc::new(RenderNar { blobs: blobs.clone(), directories: directories.clone() });
        let stores = Stores { blobs: blobs.clone(), directories, path_infos, nars };
        let vfs = Arc::new(Vfs::new(&stores, Options { list_root: true, show_xattr: true }));
        let dir = temporary.path().to_owned();
        let (mountpoint, device, _) = mountpoint::mount(&dir, false).expect("it mounts");
        // Two threads: if the waiting ones took them, nothing else would be answered.
        let options = SessionOptions { threads: 2, io_mode: IoMode::Auto };
        let session = Session::start(device, vfs, runtime.handle(), options);
        Slow {
            blobs,
            dir: dir.join(NAME),
            mountpoint: Some(mountpoint),
            session: Some(session.expect("it starts")),
            _runtime: runtime,
            _temporary: temporary,
        }
    }
}

/// A process that uses something slow, and waits for it.
fn start_waiting(program: &str, path: PathBuf) -> Child {
    let mut command = Command::new(program);
    command.arg(path).stdout(Stdio::piped()).stderr(Stdio::null());
    let child = command.spawn().expect("coreutils are there");
    let status = PathBuf::from(format!("/proc/{}/wchan", child.id()));
    // Whatever the kernel calls it: for a request, or for a page that another one's request fills.
    wait_until("the wait", || {
        let place = fs::read_to_string(&status).unwrap_or_default();
        place.contains("folio") || place.contains("request_wait")
    });
    child
}

impl Drop for Slow {
    fn drop(&mut self) {
        if let Some(mountpoint) = self.mountpoint.take() {
            mountpoint.detach().expect("it detaches");
        }
        if let Some(session) = self.session.take() {
            session.join();
        }
    }
}

/// A server that is stopped, not dead: its sockets still take what is sent.
#[test]
fn who_waits_for_a_stopped_server_can_be_killed_and_the_mount_taken_down() {
    if !can_mount() {
        return;
    }
    let dir = tempfile::tempdir().expect("a temporary directory");
    let store = dir.path().join("store");
    write(dir.path().join("file"), noise(1, 100_000), 0o644);
    let name = import(&store, &dir.path().join("file"));
    let socket = dir.path().join("socket");
    let mut daemon = Running::start(
        lazystore(&store).arg("daemon").arg(format!("--listen=unix:{}", socket.display())),
    );
    daemon.wait_for_line("listening");
    let mut command = lazystore(Path::new("/nonexistent"));
    command.env("LAZYSTORE_STORE", format!("grpc+unix://{}", socket.display()));
    let mounted = Mounted::new(&mut command, &dir.path().join("mnt"));
    fs::metadata(mounted.path.join(&name)).expect("the server answers");
    daemon.signal(Signal::STOP);
    let absent = mounted.path.join(STALLED_NAME);
    for (program, path) in [("cat", mounted.path.join(&name)), ("stat", absent)] {
        let mut user = start_waiting(program, path);
        let start = Instant::now();
        kill_process(Pid::from_child(&user), Signal::KILL).expect("it runs");
        user.wait().expect("our child");
        assert!(start.elapsed() < Duration::from_secs(1), "{program}: {:?}", start.elapsed());
    }
    mounted.unmount();
    daemon.signal(Signal::CONT);
    daemon.signal(Signal::TERM);
    assert!(daemon.wait());
}

/// Linux does not interrupt reads that fill the page cache, but a killed reader does not wait for them.
#[test]
fn a_reader_that_waits_can_be_killed_within_a_second() {
    if !can_mount() {
        return;
    }
    let slow = Slow::new();
    for signal in [Signal::KILL, Signal::TERM, Signal::INT] {
        let mut reader = start_waiting("cat", slow.dir.join("slow"));
        let start = Instant::now();
        kill_process(Pid::from_child(&reader), signal).expect("it runs");
        let status = reader.wait().expect("our child");
        assert!(start.elapsed() < Duration::from_secs(1), "{:?}", start.elapsed());
        assert_eq!(status.signal(), Some(signal.as_raw()));
    }
}

/// A lookup is waited for by the process itself: here the kernel sends an interrupt, and must get an answer.
#[test]
fn a_lookup_that_waits_can_be_killed_within_a_second() {
    if !can_mount() {
        return;
    }
    let slow = Slow::new();
    for signal in [Signal::KILL, Signal::TERM, Signal::INT] {
        let path = slow.dir.with_file_name(STALLED_NAME);
        let mut reader = start_waiting("stat", path);
        let start = Instant::now();
        kill_process(Pid::from_child(&reader), signal).expect("it runs");
        let status = reader.wait().expect("our child");
        assert!(start.elapsed() < Duration::from_secs(1), "{:?}", start.elapsed());
        assert_eq!(status.signal(), Some(signal.as_raw()));
    }
    assert_eq!(fs::read(slow.dir.join("fast")).expect("others go on"), noise(2, 50_000));
}

#[test]
fn a_slow_fetch_blocks_no_other_request() {
    if !can_mount() {
        return;
    }
    let slow = Slow::new();
    let mut readers: Vec<_> = (0..8)
        .map(|_| {
            let mut command = Command::new("cat");
            command.arg(slow.dir.join("slow")).stdout(Stdio::piped());
            command.spawn().expect("there is a cat")
        })
        .collect();
    wait_until("a request", || slow.blobs.waiting.load(Ordering::SeqCst) > 0);
    let start = Instant::now();
    assert_eq!(fs::read(slow.dir.join("fast")).expect("it reads"), noise(2, 50_000));
    assert_eq!(fs::read_dir(&slow.dir).expect("it lists").count(), 2);
    assert!(fs::metadata(slow.dir.join("other")).is_err());
    assert!(start.elapsed() < Duration::from_secs(1), "{:?}", start.elapsed());
    for reader in &mut readers {
        assert!(reader.try_wait().expect("our child").is_none(), "it should still wait");
    }
    slow.blobs.released.store(true, Ordering::SeqCst);
    for mut reader in readers {
        let mut contents = Vec::new();
        reader.stdout.take().expect("a pipe").read_to_end(&mut contents).expect("it reads");
        assert_eq!(contents, noise(1, 50_000));
        assert!(reader.wait().expect("our child").success());
    }
}

#[test]
fn a_failure_is_reported_and_not_remembered() {
    if !can_mount() {
        return;
    }
    let slow = Slow::new();
    slow.blobs.fails.store(true, Ordering::SeqCst);
    slow.blobs.released.store(true, Ordering::SeqCst);
    for _ in 0..2 {
        let error = fs::read(slow.dir.join("slow")).expect_err("it is broken");
        assert_eq!(error.raw_os_error(), Some(libc::EHOSTUNREACH));
    }
    slow.blobs.fails.store(false, Ordering::SeqCst);
    assert_eq!(fs::read(slow.dir.join("slow")).expect("it has healed"), noise(1, 50_000));
}

/// `LAZYSTORE_LOOKUPS=1000000` drives a million of them through the kernel, which takes a minute.
#[test]
fn what_the_kernel_forgets_is_forgotten_here() {
    if !can_mount() {
        return;
    }
    let lookups =
        std::env::var("LAZYSTORE_LOOKUPS").map_or(20_000, |n| n.parse().expect("a number"));
    let dir = tempfile::tempdir().expect("a temporary directory");
    let (tree, store) = (dir.path().join("tree"), dir.path().join("store"));
    // Symlinks with different targets have different inodes, and cost no blobs.
    let link = |number: usize| format!("{}/{}", number / 1000, number % 1000);
    for number in 0..lookups {
        if number % 1000 == 0 {
            fs::create_dir_all(tree.join((number / 1000).to_string())).expect("new");
        }
        let target = format!("target-{number}");
        std::os::unix::fs::symlink(target, tree.join(link(number))).expect("new");
    }
    let name = import(&store, &tree);
    let mounted = Mounted::new(&mut lazystore(&store), &dir.path().join("mnt"));
    let known = || rustix::fs::statvfs(&mounted.path).expect("it tells").f_files;
    let resident = || resident(mounted.running.child.id());
    let before = resident();
    for number in 0..lookups {
        fs::symlink_metadata(mounted.path.join(&name).join(link(number))).expect("it is there");
    }
    assert!(known() >= lookups as u64, "{} inodes are known", known());
    let held = resident().saturating_sub(before);
    drop_kernel_caches();
    wait_until("the kernel forgets", || known() < 100);
    let left = resident().saturating_sub(before);
    eprintln!("{lookups} lookups: {} MiB held, {} MiB left", held >> 20, left >> 20);
    assert!(left <= 50 << 20, "{} MiB are left", left >> 20);
    // Far from it, what is kept of directories is less.
    assert!(held <= (50 << 20) + lookups * 200, "{} MiB are held", held >> 20);
    mounted.unmount();
}

#[test]
fn a_million_lookups_leave_no_memory_behind() {
    // The table is driven as the kernel drives it, without one.
    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    let directories = Arc::new(MemoryDirectories::new());
    let blobs = Arc::new(MemoryBlobs::new());
    let path_infos = Arc::new(MemoryPathInfos::new());
    let nars = Arc::new(RenderNar { blobs: blobs.clone(), directories: directories.clone() });
    let stores = Stores { blobs, directories, path_infos, nars };
    let vfs = Vfs::new(&stores, Options { list_root: false, show_xattr: true });
    let resident = || resident(std::process::id());
    let before = resident();
    let inos: Vec<_> = (0..1_000_000u64)
        .map(|number| {
            let digest = Digest::of(&number.to_le_bytes());
            let node = lazystore::vfs::NodeRef::File { digest, size: number, executable: false };
            vfs.remember(lazystore::vfs::Ino::ROOT, b"x", node).expect("it is known now").ino
        })
        .collect();
    let held = resident() - before - inos.len() * 8;
    assert!(held <= 200 << 20, "{} MiB for a million inodes", held >> 20);
    for ino in inos {
        vfs.forget(ino, 1);
    }
    let left = resident().saturating_sub(before);
    assert!(left <= 50 << 20, "{} MiB are left", left >> 20);
    drop(runtime);
}
