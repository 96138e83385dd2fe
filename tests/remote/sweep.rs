//! Every call of a walk fails once, in every way: the right errno, nothing wrong remembered, recovery.

use std::{
    collections::BTreeMap,
    fs,
    io::{self, Read as _},
    ops::RangeInclusive,
    os::unix::fs::FileExt as _,
    path::{Path, PathBuf},
    sync::Arc,
    thread,
    time::Duration,
};

use lazystore::{
    castore::{Directory, Name, Node, SizeRule, SymlinkTarget},
    mount::{IoMode, Session, SessionOptions, mountpoint},
    nix::{Details, PathInfo, StorePath},
    render::RenderNar,
    service::{
        Stores,
        blob::{
            BlobService as _,
            backend::{LocalBlobs, MemoryBlobs},
            layer::{LazyBlobs, LazyOptions, VerifiedBlobs},
        },
        directory::{
            DirectoryService as _,
            backend::{LocalDirectories, MemoryDirectories},
            layer::{ArrivingDirectories, CachedDirectories, LruDirectories, VerifiedDirectories},
        },
        local::LocalStore,
        pathinfo::{
            PathInfoService as _,
            backend::{LocalPathInfos, MemoryPathInfos},
            layer::{
                AbsentPathInfos, CachedPathInfos, CoalescedPathInfos, LruPathInfos,
                VerifiedPathInfos,
            },
        },
    },
    vfs::{Options, Vfs},
};

use crate::{
    faults::{Fault, Faults},
    support::{can_mount, noise},
};

const NAME: &str = "00000000000000000000000000000000-tree";

/// Of this file some is read here and there before all of it. Its length in bytes.
const LONG: usize = (3 << 20) + 12_345;

/// What a walk sees.
type Seen = BTreeMap<PathBuf, Vec<u8>>;

/// A tree in memory: three levels, with files around the sizes where something changes, and one that is long.
async fn tree() -> (Stores, Seen) {
    let (blobs, directories) = (Arc::new(MemoryBlobs::new()), Arc::new(MemoryDirectories::new()));
    let path_infos = Arc::new(MemoryPathInfos::new());
    let mut seen = Seen::new();
    let mut below: Option<Arc<Directory>> = None;
    for (level, place) in ["a/b", "a", ""].into_iter().enumerate() {
        let mut builder = Directory::builder();
        let longest = if place.is_empty() { LONG } else { 300_000 };
        for (number, size) in [3_000, 70_000, longest].into_iter().enumerate() {
            let contents = noise((level * 3 + number) as u64, size);
            let mut writer = blobs.writer().await.expect("it stores");
            writer.write(contents.clone().into()).await.expect("it stores");
            let (digest, size) = writer.finish().await.expect("it stores");
            let name = format!("file-{number}");
            let node = Node::File { digest, size, executable: false };
            builder.add(Name::try_from(&*name).expect("legal"), node);
            seen.insert(Path::new(place).join(name), contents);
        }
        let target = SymlinkTarget::try_from(&b"file-0"[..]).expect("legal");
        builder.add(Name::try_from("link").expect("legal"), Node::Symlink { target });
        if let Some(below) = below {
            let name = if level == 1 { "b" } else { "a" };
            builder.add(Name::try_from(name).expect("legal"), below.node(SizeRule::Documented));
        }
        let directory = Arc::new(builder.build().expect("legal"));
        directories.put(directory.clone()).await.expect("it stores");
        below = Some(directory);
    }
    let store_path = StorePath::from_base_name(NAME.as_bytes()).expect("legal");
    let node = below.expect("three levels").node(SizeRule::Documented);
    let details = Details::References(Vec::new());
    path_infos.put(PathInfo { store_path, node, details }).await.expect("it stores");
    let nars = Arc::new(RenderNar { blobs: blobs.clone(), directories: directories.clone() });
    (Stores { blobs, directories, path_infos, nars }, seen)
}

/// The layers that an address of a server has over it, with `far` in its place.
fn stack(far: Stores, cache: Option<&Path>) -> Stores {
    let blobs = Arc::new(VerifiedBlobs::new("far", far.blobs));
    let directories = Arc::new(VerifiedDirectories::new("far", far.directories));
    let path_infos = Arc::new(VerifiedPathInfos::new("far", far.path_infos));
    let cached = match cache {
        None => Stores { blobs, directories, path_infos, nars: far.nars },
        Some(dir) => {
            let store = LocalStore::open(dir).expect("it opens");
            let near = Arc::new(LocalBlobs::new(store.clone()));
            let near_directories = Arc::new(LocalDirectories::new(store.clone()));
            let near_path_infos = Arc::new(LocalPathInfos::new(store.clone()));
            let options = LazyOptions::default();
            Stores {
                blobs: Arc::new(LazyBlobs::new(Some(near), Some(store), blobs, options)),
                directories: Arc::new(CachedDirectories::new(near_directories, directories)),
                path_infos: Arc::new(CachedPathInfos::new(near_path_infos, path_infos)),
                nars: far.nars,
            }
        }
    };
    let kept = Arc::new(LruDirectories::new(cached.directories, 1 << 20));
    let path_infos = Arc::new(CoalescedPathInfos::new(cached.path_infos));
    let path_infos = Arc::new(AbsentPathInfos::new(path_infos, Duration::from_secs(5)));
    Stores {
        directories: Arc::new(ArrivingDirectories::new(kept)),
        path_infos: Arc::new(LruPathInfos::new(path_infos, 100)),
        ..cached
    }
}

/// A mount in this process.
struct InProcess {
    dir: tempfile::TempDir,
    mountpoint: Option<mountpoint::Mountpoint>,
    session: Option<Session>,
}

impl InProcess {
    fn new(stores: &Stores, runtime: &tokio::runtime::Runtime) -> Self {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let vfs = Arc::new(Vfs::new(stores, Options { list_root: false, show_xattr: false }));
        let (mountpoint, device, _) = mountpoint::mount(dir.path(), false).expect("it mounts");
        let options = SessionOptions { threads: 2, io_mode: IoMode::Auto };
        let session = Session::start(device, vfs, runtime.handle(), options);
        let session = Some(session.expect("it starts"));
        InProcess { dir, mountpoint: Some(mountpoint), session }
    }
}

impl Drop for InProcess {
    fn drop(&mut self) {
        if let Some(mountpoint) = self.mountpoint.take() {
            mountpoint.detach().expect("it detaches");
        }
        if let Some(session) = self.session.take() {
            session.join();
        }
    }
}

/// Reads everything, up to the first error.
fn walk(root: &Path, inner: &Path, seen: &mut Seen) -> io::Result<()> {
    for entry in fs::read_dir(root.join(inner))? {
        let entry = entry?;
        let place = inner.join(entry.file_name());
        let kind = entry.file_type()?;
        if kind.is_dir() {
            walk(root, &place, seen)?;
        } else if kind.is_symlink() {
            assert_eq!(fs::read_link(entry.path())?, Path::new("file-0"));
        } else {
            seen.insert(place, read(&entry.path())?);
        }
    }
    Ok(())
}

/// Reads a file; of a long one first some from the middle, the end and the beginning.
fn read(path: &Path) -> io::Result<Vec<u8>> {
    const PART: usize = 70_000;
    let file = fs::File::open(path)?;
    let mut parts = Vec::new();
    if file.metadata()?.len() == LONG as u64 {
        for at in [LONG / 2, LONG - PART, 0] {
            let mut part = vec![0; PART];
            file.read_exact_at(&mut part, at as u64)?;
            parts.push((at, part));
        }
    }
    let mut all = Vec::new();
    (&file).read_to_end(&mut all)?;
    for (at, part) in parts {
        assert!(all[at..at + PART] == part, "{} is two things at {at}", path.display());
    }
    Ok(all)
}

/// Strikes call 1, 2, 3, … of a cold walk each in turn, in a mount of its own, until a walk passes untouched.
fn sweep(fault: Fault, with_cache: bool, calls: impl Fn(usize) -> RangeInclusive<usize>) {
    if !can_mount() {
        return;
    }
    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    let _context = runtime.enter();
    let (truth, expected) = runtime.block_on(tree());
    let expected_errno = match fault {
        Fault::Failed => Some(libc::EHOSTUNREACH),
        Fault::Wrong | Fault::Truncated | Fault::Reordered => Some(libc::EIO),
        Fault::Delayed(_) | Fault::Stalled => None,
    };
    let mut errors = 0;
    for call in 1.. {
        let cache = with_cache.then(|| tempfile::tempdir().expect("a temporary directory"));
        let faults = Arc::<Faults>::default();
        let stores = stack(faults.around(&truth), cache.as_ref().map(|cache| cache.path()));
        let mounted = InProcess::new(&stores, &runtime);
        let root = mounted.dir.path().join(NAME);
        faults.strike(calls(call), fault);
        let healing = (fault == Fault::Stalled).then(|| {
            let faults = faults.clone();
            thread::spawn(move || {
                thread::sleep(Duration::from_millis(50));
                faults.heal();
            })
        });
        let mut seen = Seen::new();
        let walked = walk(&root, Path::new(""), &mut seen);
        let asked = faults.calls();
        match walked {
            Ok(()) => assert!(seen == expected, "call {call}: something else was read"),
            Err(error) => {
                errors += 1;
                assert_eq!(error.raw_os_error(), expected_errno, "call {call}: {error}");
                let right =
                    seen.iter().all(|(place, contents)| expected.get(place) == Some(contents));
                assert!(right, "call {call}: something wrong was read before the error");
            }
        }
        if let Some(healing) = healing {
            healing.join().expect("no panic");
        }
        faults.heal();
        let mut seen = Seen::new();
        walk(&root, Path::new(""), &mut seen)
            .unwrap_or_else(|e| panic!("call {call}: not healed: {e}"));
        assert!(seen == expected, "call {call}: something wrong was remembered");
        if asked < call {
            assert!(call > 8, "only {asked} calls: nothing was swept");
            break;
        }
    }
    assert_eq!(errors > 0, expected_errno.is_some(), "{errors} errors");
}

/// The kernel reads again by itself what it has failed to read ahead, so one failure alone may not be seen.
fn sweep_both_ways(fault: Fault) {
    for with_cache in [false, true] {
        sweep(fault, with_cache, |call| call..=usize::MAX);
    }
    if fault != Fault::Reordered {
        sweep(fault, true, |call| call..=call);
    }
}

#[test]
fn a_store_that_fails_at_any_call() {
    sweep_both_ways(Fault::Failed);
}

#[test]
fn a_store_that_lies_at_any_call() {
    sweep_both_ways(Fault::Wrong);
}

#[test]
fn a_store_that_stops_halfway_at_any_call() {
    sweep_both_ways(Fault::Truncated);
}

#[test]
fn a_store_that_mixes_up_at_any_call() {
    sweep_both_ways(Fault::Reordered);
}

#[test]
fn a_store_that_stalls_at_any_call() {
    sweep_both_ways(Fault::Stalled);
}

#[test]
fn a_store_that_is_slow_at_any_call() {
    sweep_both_ways(Fault::Delayed(Duration::from_millis(20)));
}
