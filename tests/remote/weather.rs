//! Whatever becomes of the network or the server: an error in time, nobody who cannot be killed, and recovery.

use std::{
    fs, io,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use rustix::process::{Pid, Signal, kill_process};

use crate::{
    far::{ABSENT_NAME, Far},
    proxy::Weather,
    support::{Mounted, can_mount, noise, resident, wait_until, write},
};

/// How long an answer may take in these tests.
const TIMEOUT: Duration = Duration::from_secs(2);
/// How much longer its reader may wait on a loaded machine.
const SLACK: Duration = Duration::from_millis(1500);
const OPTIONS: &str = "?timeout=2";

/// A tree of two files, and one that is not read until later.
fn two_files(sources: &Path) {
    let tree = sources.join("tree");
    fs::create_dir_all(tree.join("inner")).expect("new");
    write(tree.join("first"), noise(1, 100_000), 0o644);
    write(tree.join("second"), noise(2, 3_000_000), 0o644);
    write(tree.join("third"), noise(3, 300_000), 0o644);
    write(sources.join("zzz"), "never seen before", 0o644);
}

fn errno<T>(result: io::Result<T>) -> Option<i32> {
    result.err().and_then(|error| error.raw_os_error())
}

/// Reads until it works: the circuit may be open for some seconds.
fn read_once_healed(path: &Path) -> Vec<u8> {
    let mut contents = Vec::new();
    wait_until("recovery", || fs::read(path).map(|read| contents = read).is_ok());
    contents
}

#[test]
fn errors_tell_what_is_the_matter() {
    if !can_mount() {
        return;
    }
    let (far, names) = Far::new(two_files);
    let mounted = far.mount_with(OPTIONS, "cache", &[]);
    let tree = mounted.path.join(&names[0]);
    assert_eq!(fs::read(tree.join("first")).expect("it works"), noise(1, 100_000));
    let absent = mounted.path.join(ABSENT_NAME);
    assert_eq!(errno(fs::metadata(&absent)), Some(libc::ENOENT));
    far.proxy.weather(Weather::Down);
    assert_eq!(errno(fs::read(tree.join("second"))), Some(libc::EHOSTUNREACH));
    assert_eq!(errno(fs::metadata(mounted.path.join(&names[1]))), Some(libc::EHOSTUNREACH));
    assert_eq!(fs::read(tree.join("first")).expect("the cache has it"), noise(1, 100_000));
    far.proxy.weather(Weather::Fair);
    assert_eq!(read_once_healed(&tree.join("second")), noise(2, 3_000_000));
    assert!(fs::metadata(mounted.path.join(&names[1])).is_ok());
    mounted.unmount();
}

#[test]
fn offline_only_what_is_here_is_there() {
    if !can_mount() {
        return;
    }
    let (far, names) = Far::new(two_files);
    let mounted = far.mount_with(OPTIONS, "cache", &[]);
    assert!(fs::read(mounted.path.join(&names[0]).join("first")).is_ok());
    mounted.unmount();
    far.proxy.weather(Weather::Stalled);
    let connections = far.proxy.connections();
    let mounted = far.mount_with(OPTIONS, "cache", &["--offline"]);
    let tree = mounted.path.join(&names[0]);
    let began = Instant::now();
    assert_eq!(fs::read(tree.join("first")).expect("it is here"), noise(1, 100_000));
    assert_eq!(errno(fs::read(tree.join("second"))), Some(libc::ENETUNREACH));
    assert_eq!(errno(fs::metadata(mounted.path.join(&names[1]))), Some(libc::ENETUNREACH));
    assert!(began.elapsed() < SLACK, "{:?}", began.elapsed());
    assert_eq!(far.proxy.connections(), connections, "nobody was called");
    mounted.unmount();
}

/// What can be the matter with a server, and how that ends.
#[derive(Debug, Clone, Copy)]
enum Trouble {
    /// The process does not run.
    Stopped,
    /// Nothing passes.
    Stalled,
    /// One byte a second.
    Trickling,
    /// The process is gone, and its host answers that.
    Dead,
}

impl Trouble {
    fn begin(self, far: &mut Far) {
        match self {
            Trouble::Stopped => far.daemon.signal(Signal::STOP),
            Trouble::Stalled => far.proxy.weather(Weather::Stalled),
            Trouble::Trickling => far.proxy.weather(Weather::Trickle(1)),
            Trouble::Dead => {
                far.daemon.signal(Signal::KILL);
                assert!(!far.daemon.wait());
            }
        }
    }

    fn end(self, far: &mut Far) {
        match self {
            Trouble::Stopped => far.daemon.signal(Signal::CONT),
            Trouble::Stalled | Trouble::Trickling => far.proxy.weather(Weather::Fair),
            Trouble::Dead => far.serve_again(),
        }
    }
}

fn each_reader_has_its_error_in_time(trouble: Trouble) {
    if !can_mount() {
        return;
    }
    let (mut far, names) = Far::new(two_files);
    let mounted = far.mount(OPTIONS);
    let tree = mounted.path.join(&names[0]);
    assert!(fs::read(tree.join("first")).is_ok());
    trouble.begin(&mut far);
    let absent = mounted.path.join(ABSENT_NAME);
    let paths = [tree.join("second"), tree.join("third"), mounted.path.join(&names[1]), absent];

    // Whoever has enough of waiting can go.
    if !matches!(trouble, Trouble::Dead) {
        for (program, path) in [("cat", &paths[0]), ("stat", &paths[3])] {
            let mut command = Command::new(program);
            command.arg(path).stdout(Stdio::null()).stderr(Stdio::null());
            let mut user = command.spawn().expect("coreutils are there");
            thread::sleep(Duration::from_millis(300));
            assert!(user.try_wait().expect("our child").is_none(), "{program} should wait");
            let began = Instant::now();
            kill_process(Pid::from_child(&user), Signal::INT).expect("it runs");
            user.wait().expect("our child");
            assert!(began.elapsed() < Duration::from_secs(1), "{:?}", began.elapsed());
        }
    }
    let readers: Vec<_> =
        paths.iter().cloned().map(|path| thread::spawn(move || fail(&path))).collect();
    for (reader, path) in readers.into_iter().zip(&paths) {
        let (errno, took) = reader.join().expect("no panic");
        let right = [Some(libc::EHOSTUNREACH), Some(libc::ETIMEDOUT)].contains(&errno);
        assert!(right, "{path:?}: {errno:?}");
        assert!(took < TIMEOUT + SLACK, "{path:?}: {took:?}");
    }
    trouble.end(&mut far);
    assert_eq!(read_once_healed(&tree.join("second")), noise(2, 3_000_000));
    assert_eq!(fs::read(tree.join("third")).expect("healed"), noise(3, 300_000));
    assert_eq!(errno(fs::metadata(&paths[3])), Some(libc::ENOENT));
    assert!(fs::read(&paths[2]).is_ok());
    mounted.unmount();
}

/// What becomes of a read that should fail, and how long that takes.
fn fail(path: &PathBuf) -> (Option<i32>, Duration) {
    let began = Instant::now();
    let errno = errno(fs::read(path));
    (errno, began.elapsed())
}

#[test]
fn a_stopped_server_is_an_error_in_time() {
    each_reader_has_its_error_in_time(Trouble::Stopped);
}

#[test]
fn a_network_that_stalls_is_an_error_in_time() {
    each_reader_has_its_error_in_time(Trouble::Stalled);
}

#[test]
fn a_server_that_sends_a_byte_a_second_is_an_error_in_time() {
    each_reader_has_its_error_in_time(Trouble::Trickling);
}

#[test]
fn a_dead_server_is_an_error_in_time() {
    each_reader_has_its_error_in_time(Trouble::Dead);
}

#[test]
fn a_remote_that_dies_under_fifty_readers_lets_all_go_and_is_taken_back() {
    if !can_mount() {
        return;
    }
    let (far, names) = Far::new(|sources| {
        let tree = sources.join("tree");
        fs::create_dir(&tree).expect("new");
        for number in 0..50 {
            write(tree.join(number.to_string()), noise(number, 400_000), 0o644);
        }
    });
    let mounted = far.mount(OPTIONS);
    let tree = mounted.path.join(&names[0]);
    assert_eq!(fs::read_dir(&tree).expect("it lists").count(), 50);
    let process = mounted.running.child.id();
    let (threads_before, memory_before) = (threads(process), resident(process));
    // All of them have begun, and none is done.
    far.proxy.weather(Weather::Trickle(2000));
    let readers: Vec<_> = (0..50)
        .map(|number| {
            let path = tree.join(number.to_string());
            thread::spawn(move || fail(&path))
        })
        .collect();
    thread::sleep(Duration::from_millis(200));
    far.proxy.weather(Weather::Stalled);
    for reader in readers {
        let (errno, took) = reader.join().expect("no panic");
        assert!([Some(libc::EHOSTUNREACH), Some(libc::ETIMEDOUT)].contains(&errno), "{errno:?}");
        assert!(took < TIMEOUT + SLACK + Duration::from_millis(200), "{took:?}");
    }
    let memory = resident(process).saturating_sub(memory_before);
    assert!(memory < 64 << 20, "{} MiB are not back", memory >> 20);
    // Those for the disk come and go.
    wait_until("the threads are back", || threads(process) <= threads_before);
    far.proxy.weather(Weather::Fair);
    read_once_healed(&tree.join("0"));
    for number in 0..50 {
        let contents = fs::read(tree.join(number.to_string())).expect("healed");
        assert_eq!(contents, noise(number, 400_000));
    }
    far.proxy.weather(Weather::Stalled);
    unmount_under_a_reader_that_waits(mounted);
}

/// How many threads a process has.
fn threads(process: u32) -> usize {
    fs::read_dir(format!("/proc/{process}/task")).expect("it runs").count()
}

fn unmount_under_a_reader_that_waits(mounted: Mounted) {
    let absent = mounted.path.join(ABSENT_NAME);
    let waiting = thread::spawn(move || fs::metadata(absent).is_err());
    thread::sleep(Duration::from_millis(100));
    let began = Instant::now();
    mounted.unmount();
    // Its reader keeps it busy until it has its error.
    assert!(began.elapsed() < TIMEOUT + SLACK, "{:?}", began.elapsed());
    assert!(waiting.join().expect("no panic"));
}

#[test]
fn a_mount_begins_while_its_remote_is_away_and_heals() {
    if !can_mount() {
        return;
    }
    let (far, names) = Far::new(two_files);
    far.proxy.weather(Weather::Down);
    let mounted = far.mount(OPTIONS);
    let path = mounted.path.join(&names[1]);
    assert_eq!(errno(fs::read(&path)), Some(libc::EHOSTUNREACH));
    far.proxy.weather(Weather::Fair);
    assert_eq!(read_once_healed(&path), b"never seen before");
    mounted.unmount();
}

#[test]
fn connections_that_are_cut_are_made_again_without_an_error() {
    if !can_mount() {
        return;
    }
    let (far, names) = Far::new(two_files);
    let mounted = far.mount("?timeout=10");
    let tree = mounted.path.join(&names[0]);
    for name in ["first", "third"] {
        far.proxy.cut();
        assert!(fs::read(tree.join(name)).is_ok());
    }
    far.proxy.cut();
    assert!(fs::read(mounted.path.join(&names[1])).is_ok());
    mounted.unmount();
}
