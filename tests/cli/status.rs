//! What `lazystore status` tells, and how it ends.

use std::{
    fs,
    io::Write as _,
    net::{TcpListener, TcpStream},
    os::unix::{
        fs::{MetadataExt as _, PermissionsExt as _},
        net::{UnixListener, UnixStream},
        process::CommandExt as _,
    },
    path::{Path, PathBuf},
    process::{Command, Output},
    thread,
    time::Duration,
};

use serde_json::Value;

use crate::{
    commands::{failed, text},
    scrape::address,
    support::{
        Mounted, PROGRAM, Running, can_mount, have_program, import, lazystore, run, sample_tree,
        wait_until, write,
    },
};

fn status() -> Command {
    let mut command = lazystore(Path::new("/nonexistent"));
    command.arg("status");
    command
}

fn json(output: &Output) -> Value {
    serde_json::from_slice(&output.stdout).unwrap_or_else(|_| panic!("{}", text(&output.stdout)))
}

/// Where sockets of mounts of root are.
const SOCKETS: &str = "/run/lazystore";

/// The socket that a process has, or would have, for what is mounted at `path`.
fn socket_of(path: &Path, process: u32) -> PathBuf {
    let device = fs::metadata(path).expect("it answers").dev();
    let (major, minor) = (rustix::fs::major(device), rustix::fs::minor(device));
    PathBuf::from(format!("{SOCKETS}/mount-{major}:{minor}-{process}.sock"))
}

/// The names of sockets of mounts, as far as `is_meant`.
fn sockets(is_meant: impl Fn(&str) -> bool) -> Vec<String> {
    let entries = fs::read_dir(SOCKETS).expect("there was a mount").flatten();
    let names = entries.map(|entry| entry.file_name().to_string_lossy().into_owned());
    names.filter(|name| is_meant(name)).collect()
}

#[test]
fn a_mount_is_found_by_its_directory() {
    if !can_mount() {
        return;
    }
    let folder = tempfile::tempdir().expect("a folder");
    let (store, tree) = (folder.path().join("store"), folder.path().join("tree"));
    sample_tree(&tree);
    let name = import(&store, &tree);
    // A name that the kernel's list of mounts does not show as it is.
    let mounted = Mounted::new(&mut lazystore(&store), &folder.path().join("a mount\\point"));
    let root = mounted.path.join(&name);
    fs::read(root.join("file-3000001")).expect("it reads");
    fs::read_dir(root.join("wide")).expect("it lists").count();

    let said = text(&run(status().arg(&mounted.path)).stdout);
    for part in ["mount, up", ": healthy", "lookup", "half in", "descriptors", "local: path_info"] {
        assert!(said.contains(part), "{part}: {said}");
    }
    // Also from below, and by a way that leads through a symlink.
    let link = folder.path().join("link");
    std::os::unix::fs::symlink(folder.path(), &link).expect("new");
    for path in [root.join("links"), link.join("a mount\\point")] {
        let report = json(&run(status().args(["--json", "--watch", "0"]).arg(path)));
        assert_eq!((&report["healthy"], &report["command"]), (&true.into(), &"mount".into()));
        assert_eq!(report["version"], env!("CARGO_PKG_VERSION"));
        assert!(report["inodes"].as_f64() >= Some(3.0), "{report}");
        assert!(report["read_bytes"]["file"].as_f64() >= Some(3_000_001.0), "{report}");
        assert_eq!(
            (&report["waiting"], &report["circuits_open"]),
            (&0.0.into(), &Value::Array(vec![]))
        );
        let requests = report["requests"].as_array().expect("several");
        let read = requests.iter().find(|requests| requests["name"] == "read");
        let read = read.unwrap_or_else(|| panic!("{report}"));
        assert!(read["count"].as_f64() >= Some(1.0) && read["errors"] == 0.0, "{read}");
        assert!(read["p50_seconds"].as_f64() <= read["p99_seconds"].as_f64(), "{read}");
    }

    let socket = socket_of(&mounted.path, mounted.running.child.id());
    assert_eq!(fs::metadata(&socket).expect("it is there").permissions().mode() & 0o777, 0o600);
    mounted.unmount();
    assert!(!socket.exists(), "its socket goes with it");
    let said =
        failed(&status().arg(folder.path().join("a mount\\point")).output().expect("it runs"), 1);
    assert!(said.contains("nothing of lazystore is mounted on"), "{said}");
}

/// The kernel gives a device number out again, so sockets of other processes may have the same one.
#[test]
fn a_mount_is_told_from_those_that_had_its_device_number_before() {
    if !can_mount() {
        return;
    }
    let folder = tempfile::tempdir().expect("a folder");
    let mounted =
        Mounted::new(&mut lazystore(&folder.path().join("store")), &folder.path().join("mnt"));
    // Of a process that was killed, and looks newer. Process numbers are smaller than that.
    let dead = socket_of(&mounted.path, (1 << 30) + 1);
    drop(UnixListener::bind(&dead).expect("it is free"));
    // Of a process that has not ended yet, and listens.
    let ending = socket_of(&mounted.path, 1 << 30);
    let served = UnixListener::bind(&ending).expect("it is free");
    let time = rustix::fs::Timespec { tv_sec: 1_000_000_000, tv_nsec: 0 };
    let times = rustix::fs::Timestamps { last_access: time, last_modification: time };
    let flags = rustix::fs::AtFlags::SYMLINK_NOFOLLOW;
    rustix::fs::utimensat(rustix::fs::CWD, &ending, &times, flags).expect("it is ours");

    let report = json(&run(status().args(["--json", "--watch", "0"]).arg(&mounted.path)));
    assert_eq!(report["command"], "mount");
    assert!(dead.exists() && ending.exists(), "who asks removes nothing");
    served.set_nonblocking(true).expect("it is a socket");
    while let Ok((mut socket, _)) = served.accept() {
        let said = std::io::Read::read(&mut socket, &mut [0]).expect("it is closed already");
        assert_eq!(said, 0, "it was not asked anything");
    }
    let own = socket_of(&mounted.path, mounted.running.child.id());
    mounted.unmount();
    assert!(!own.exists() && dead.exists() && ending.exists(), "others are left to theirs");
    fs::remove_file(dead).expect("it is there");
    fs::remove_file(ending).expect("it is there");
}

#[test]
fn mounts_that_come_and_go_at_once_are_all_found() {
    const ROUNDS: usize = 4;

    if !can_mount() {
        return;
    }
    let folder = tempfile::tempdir().expect("a folder");
    let one = |thread: usize, round: usize| {
        let place = folder.path().join(format!("{thread}-{round}"));
        let mut mounted = Mounted::new(&mut lazystore(&place.join("store")), &place.join("mnt"));
        let process = mounted.running.child.id();
        // By how much it was asked for it is told from all others.
        let lookups = 1 + thread * ROUNDS + round;
        for n in 0..lookups {
            let name = format!("00000000000000000000000000000000-{n}");
            fs::metadata(mounted.path.join(name)).expect_err("it is empty");
        }
        let report = json(&run(status().args(["--json", "--watch", "0"]).arg(&mounted.path)));
        let requests = report["requests"].as_array().expect("several");
        let lookup = requests.iter().find(|requests| requests["name"] == "lookup");
        let count = lookup.and_then(|lookup| lookup["count"].as_f64());
        assert_eq!(count, Some(lookups as f64), "{report}");
        match round % 3 {
            // Its number is another's before it knows that it has lost it.
            0 => {
                mounted.running.pause();
                let flags = rustix::mount::UnmountFlags::empty();
                rustix::mount::unmount(&mounted.path, flags).expect("nobody uses it");
                return (process, Some(mounted));
            }
            1 => drop(mounted),
            _ => {
                mounted.running.signal(rustix::process::Signal::TERM);
                assert!(mounted.running.wait(), "{}", mounted.running.log.join("\n"));
            }
        }
        (process, None)
    };
    let threads = 0..4;
    let processes: Vec<_> = thread::scope(|scope| {
        let rounds = |thread| (0..ROUNDS).map(|round| one(thread, round)).collect::<Vec<_>>();
        let threads = threads.map(|thread| scope.spawn(move || rounds(thread)));
        let threads: Vec<_> = threads.collect();
        threads.into_iter().flat_map(|thread| thread.join().expect("no panic")).collect()
    });
    for (process, mounted) in processes {
        let Some(mut mounted) = mounted else { continue };
        mounted.running.signal(rustix::process::Signal::CONT);
        assert!(mounted.running.wait(), "{}", mounted.running.log.join("\n"));
        let left = sockets(|name| name.ends_with(&format!("-{process}.sock")));
        assert!(left.is_empty(), "{left:?}");
    }
}

/// The name that the first process of a PID namespace would take, served by somebody else.
struct Taken {
    path: PathBuf,
    _listener: UnixListener,
}

impl Taken {
    fn new(minor: u32) -> Option<Self> {
        let path = PathBuf::from(format!("{SOCKETS}/mount-0:{minor}-1.sock"));
        if UnixStream::connect(&path).is_ok() {
            // By another test.
            return None;
        }
        let _ = fs::remove_file(&path);
        let listener = UnixListener::bind(&path).expect("it is free");
        Some(Taken { path, _listener: listener })
    }
}

impl Drop for Taken {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.path);
    }
}

/// In a PID namespace of its own a process is the first. Another may be, and may have the folder of sockets in common.
#[test]
fn a_mount_whose_name_is_taken_has_another() {
    if !can_mount() {
        return;
    }
    assert!(have_program("unshare"), "util-linux is everywhere");
    let folder = tempfile::tempdir().expect("a folder");
    // Whichever device number it will have.
    fs::create_dir_all(SOCKETS).expect("root may");
    let others: Vec<_> = (1..400).filter_map(Taken::new).collect();

    let path = folder.path().join("mnt");
    fs::create_dir(&path).expect("new");
    let store = folder.path().join("store");
    let mut command = Command::new("unshare");
    command.args(["--pid", "--fork", "--kill-child", PROGRAM, "mount"]).arg(&path);
    command.env("LAZYSTORE_DIR", &store).env("LAZYSTORE_CACHE_DIR", "none");
    let mut running = Running::start(&mut command);
    running.wait_for_line("mounted; Ctrl-C unmounts");
    let second = socket_of(&path, 1).with_extension("1.sock");
    assert!(second.exists(), "{second:?} in {:?}", sockets(|name| name.contains("-1.")));
    let report = json(&run(status().args(["--json", "--watch", "0"]).arg(&path)));
    assert_eq!(report["command"], "mount");
    rustix::mount::unmount(&path, rustix::mount::UnmountFlags::empty()).expect("nobody uses it");
    assert!(running.wait(), "{}", running.log.join("\n"));
    assert!(!second.exists() && others.iter().all(|other| other.path.exists()));
}

#[test]
fn a_user_who_is_not_root_asks_a_mount_of_their_own() {
    const NOBODY: u32 = 65_534;

    if !can_mount() || !have_program("fusermount3") {
        return;
    }
    let folder = tempfile::tempdir().expect("a folder");
    fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o755)).expect("ours");
    // As udev sets it everywhere; a container may lack udev.
    fs::set_permissions("/dev/fuse", fs::Permissions::from_mode(0o666)).expect("root may");
    let [home, program] = ["home", "lazystore"].map(|name| folder.path().join(name));
    fs::create_dir(&home).expect("new");
    std::os::unix::fs::chown(&home, Some(NOBODY), Some(NOBODY)).expect("root may");
    // Where the build directory is may be closed to others.
    fs::copy(PROGRAM, &program).expect("it can be copied");
    let (path, runtime) = (home.join("mnt"), home.join("run"));
    let of_user = |arg: &str| {
        let mut command = Command::new(&program);
        command.uid(NOBODY).gid(NOBODY).current_dir("/").env("XDG_RUNTIME_DIR", &runtime);
        command.env("LAZYSTORE_DIR", home.join("store")).arg(arg).arg(&path);
        command
    };
    let mut running = Running::start(&mut of_user("mount"));
    running.wait_for_line("mounted; Ctrl-C unmounts");

    assert_eq!(json(&run(of_user("status").args(["--json", "--watch", "0"])))["command"], "mount");
    let process = running.child.id();
    let sockets: Vec<_> = fs::read_dir(runtime.join("lazystore")).expect("new").flatten().collect();
    let [socket] = sockets.as_slice() else { panic!("{sockets:?}") };
    let name = socket.file_name().to_string_lossy().into_owned();
    assert!(name.starts_with("mount-0:") && name.ends_with(&format!("-{process}.sock")), "{name}");
    let modes = [runtime.join("lazystore"), socket.path()]
        .map(|path| fs::metadata(path).expect("it is there").permissions().mode() & 0o777);
    assert_eq!(modes, [0o700, 0o600]);
    // Others are told where it is looked for.
    let mut stranger = of_user("status");
    stranger.env_remove("XDG_RUNTIME_DIR");
    let said = failed(&stranger.output().expect("it runs"), 1);
    assert!(said.contains("it has no socket in /run/user/65534/lazystore: "), "{said}");

    running.signal(rustix::process::Signal::TERM);
    assert!(running.wait(), "{}", running.log.join("\n"));
    assert!(!socket.path().exists());
}

#[test]
fn a_mount_that_does_not_answer_does_not_hang_whoever_asks() {
    if !can_mount() {
        return;
    }
    let folder = tempfile::tempdir().expect("a folder");
    let mounted =
        Mounted::new(&mut lazystore(&folder.path().join("store")), &folder.path().join("mnt"));
    mounted.running.pause();
    let output = status().arg(&mounted.path).output().expect("it runs");
    let said = failed(&output, 1);
    assert!(said.contains("no answer within"), "{said}");
    mounted.running.signal(rustix::process::Signal::CONT);
    run(status().args(["--watch", "0"]).arg(&mounted.path));
    mounted.unmount();
}

#[test]
fn servers_are_asked_where_they_tell_metrics() {
    let folder = tempfile::tempdir().expect("a folder");
    let (store, file) = (folder.path().join("store"), folder.path().join("file"));
    write(&file, "contents", 0o644);
    import(&store, &file);
    let socket = folder.path().join("metrics.sock");
    let metrics = format!("127.0.0.1:0,unix:{}", socket.display());
    let mut daemon = lazystore(&store);
    daemon.args(["daemon", "--listen", "127.0.0.1:0", "--metrics", &metrics]);
    let mut daemon = Running::start(&mut daemon);
    let (tcp, _) = (address(&mut daemon), address(&mut daemon));
    let line = daemon.wait_for_line("listening");
    let listening = line.split("address=").nth(1).and_then(|rest| rest.split(' ').next());
    let grpc = format!("grpc+http://{}", listening.expect("it is told").trim_matches('"'));

    let said = text(&run(status().arg(&grpc)).stdout);
    assert!(said.contains("answers, dialect"), "{said}");
    assert_eq!(json(&run(status().args(["--json", &grpc])))["healthy"], true);

    let url = format!("http://{tcp}/");
    let unix = format!("unix:{}", socket.display());
    for target in [&tcp, &url, &unix, &socket.display().to_string()] {
        let report = json(&run(status().args(["--json", "--watch", "0.01", target])));
        assert_eq!((&report["healthy"], &report["command"]), (&true.into(), &"daemon".into()));
        let requests = report["requests"].as_array().expect("several");
        let get = requests.iter().find(|requests| requests["name"] == "PathInfoService/Get");
        let get = get.unwrap_or_else(|| panic!("{report}"));
        assert!(get["count"].as_f64() >= Some(2.0) && get["errors"] == 0.0, "{get}");
    }
    let said = text(&run(status().arg(&tcp)).stdout);
    assert!(said.contains("daemon, up") && said.contains("PathInfoService/Get"), "{said}");

    daemon.signal(rustix::process::Signal::TERM);
    assert!(daemon.wait());
    for target in [&tcp, &unix, &grpc] {
        let said = failed(&status().arg(target).output().expect("it runs"), 1);
        assert!(said.contains("is it running") || said.contains("does it run"), "{said}");
    }
}

#[test]
fn a_far_store_that_is_out_of_reach_is_unhealthy() {
    if !can_mount() {
        return;
    }
    let folder = tempfile::tempdir().expect("a folder");
    let taken = TcpListener::bind("127.0.0.1:0").expect("a port");
    let far = taken.local_addr().expect("it is bound");
    drop(taken);
    let mut command = lazystore(&folder.path().join("store"));
    command.env("LAZYSTORE_STORE", format!("grpc+http://{far}?timeout=1&attempts=1"));
    let mounted = Mounted::new(&mut command, &folder.path().join("mnt"));
    let name = "00000000000000000000000000000000-absent";
    let mut output = None;
    wait_until("it is unhealthy", || {
        fs::metadata(mounted.path.join(name)).expect_err("nobody answers");
        let now = status().args(["--json", "--watch", "0"]).arg(&mounted.path).output();
        let now = now.expect("it runs");
        let is_unhealthy = !now.status.success();
        output = Some(now);
        is_unhealthy
    });
    let output = output.expect("it ran");
    let said = failed(&output, 1);
    assert!(said.contains("out of reach: ") && said.contains(&far.to_string()), "{said}");
    let report = json(&output);
    assert_eq!(report["healthy"], false);
    let away = report["circuits_open"].as_array().expect("one");
    assert!(
        away.len() == 1 && away[0].as_str().is_some_and(|name| name.contains(&far.to_string()))
    );
    mounted.unmount();
}

#[test]
fn whatever_else_answers_is_told_as_such() {
    let answer_with = |answer: &'static str| {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let address = listener.local_addr().expect("it is bound").to_string();
        std::thread::spawn(move || {
            for socket in listener.incoming().flatten() {
                let mut socket: TcpStream = socket;
                let _ = socket.set_read_timeout(Some(Duration::from_millis(50)));
                let _ = std::io::Read::read(&mut socket, &mut [0; 4096]);
                let _ = socket.write_all(answer.as_bytes());
            }
        });
        address
    };
    for (answer, reason) in [
        (
            "HTTP/1.1 200 OK\r\nContent-Length: 13\r\n\r\nup 1\nother 2\n",
            "not the numbers of lazystore",
        ),
        ("HTTP/1.1 200 OK\r\nContent-Length: 7\r\n\r\n<html>\n", "no number for Prometheus"),
        ("HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n", "404"),
        (
            "HTTP/1.1 302 Found\r\nLocation: http://127.0.0.1:1/\r\nContent-Length: 0\r\n\r\n",
            "no numbers",
        ),
        ("SSH-2.0-x\r\n", "cannot ask"),
    ] {
        let address = answer_with(answer);
        let output = status().args(["--watch", "0", &address]).output().expect("it runs");
        let said = failed(&output, 1);
        assert!(said.contains(reason), "{reason}: {said}");
    }
    for (target, reason) in [("/proc", "name a mountpoint"), ("grpc+nonsense", "cannot understand")]
    {
        let said = failed(&status().arg(target).output().expect("it runs"), 1);
        assert!(said.contains(reason), "{said}");
    }
    failed(&status().output().expect("it runs"), 2);
}
