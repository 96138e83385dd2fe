//! Beginning and end: signals, crashes, other users.

use std::{
    fs,
    io::{BufRead as _, BufReader, Write as _},
    os::unix::{fs::PermissionsExt as _, process::CommandExt as _},
    path::Path,
    process::{Command, Stdio},
    sync::mpsc,
    thread,
    time::Duration,
};

use lazystore::mount::{busy, mountpoint};
use rustix::{
    fs::{Mode, OFlags},
    process::Signal,
};

use crate::supervisor::Supervisor;
use crate::support::{
    Mounted, Running, SOON, can_mount, have_program, import, is_mounted, lazystore, wait_until,
    write,
};

#[test]
fn one_command_imports_and_mounts() {
    if !can_mount() {
        return;
    }
    let dir = tempfile::tempdir().expect("a temporary directory");
    write(dir.path().join("hello"), "hello\n", 0o644);
    // The mountpoint does not exist: it is made, and removed again.
    let mountpoint = dir.path().join("mnt");
    let mut command = lazystore(&dir.path().join("store"));
    command.arg("mount").arg("--import").arg(dir.path().join("hello")).arg(&mountpoint);
    let mut running = Running::start(&mut command);
    running.wait_for_line("mounted;");
    let entries: Vec<_> = fs::read_dir(&mountpoint).expect("it lists").flatten().collect();
    assert_eq!(entries.len(), 1);
    assert_eq!(fs::read(entries[0].path()).expect("it reads"), b"hello\n");
    // They hold the directory open.
    drop(entries);
    running.signal(Signal::INT);
    assert!(running.wait());
    assert!(!mountpoint.exists());
}

#[test]
fn an_unmount_by_somebody_else_ends_it_cleanly() {
    if !can_mount() {
        return;
    }
    let dir = tempfile::tempdir().expect("a temporary directory");
    let mut mounted =
        Mounted::new(&mut lazystore(&dir.path().join("store")), &dir.path().join("mnt"));
    rustix::mount::unmount(&mounted.path, rustix::mount::UnmountFlags::empty()).expect("unmounts");
    assert!(mounted.running.wait());
}

#[test]
fn a_mount_in_use_is_detached_and_its_users_are_named() {
    if !can_mount() {
        return;
    }
    let dir = tempfile::tempdir().expect("a temporary directory");
    let store = dir.path().join("store");
    fs::create_dir(dir.path().join("tree")).expect("new");
    write(dir.path().join("tree/file"), "still here", 0o644);
    let name = import(&store, &dir.path().join("tree"));
    let mut mounted = Mounted::new(&mut lazystore(&store), &dir.path().join("mnt"));
    let mut user = Command::new("sh")
        .args(["-c", "read line; cat file; read line"])
        .current_dir(mounted.path.join(&name))
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("there is a shell");
    mounted.running.signal(Signal::TERM);
    let line = mounted.running.wait_for_line("the mount is in use");
    assert!(line.contains(&format!("sh (pid {}, working directory)", user.id())), "{line}");
    mounted.running.wait_for_line("detached while in use");
    assert!(!is_mounted(&mounted.path));

    // Who was inside goes on as long as it is served.
    let mut stdin = user.stdin.take().expect("a pipe");
    stdin.write_all(b"go\n").expect("it reads");
    let mut stdout = BufReader::new(user.stdout.take().expect("a pipe"));
    let mut text = vec![0; 10];
    std::io::Read::read_exact(&mut stdout, &mut text).expect("it writes");
    assert_eq!(text, b"still here");
    drop(stdin);
    user.wait().expect("our child");
    assert!(mounted.running.wait(), "it ends once nobody uses it");
    assert_eq!(stdout.lines().count(), 0);
}

#[test]
fn a_killed_daemon_leaves_no_dead_mount() {
    if !can_mount() {
        return;
    }
    let dir = tempfile::tempdir().expect("a temporary directory");
    let mut mounted =
        Mounted::new(&mut lazystore(&dir.path().join("store")), &dir.path().join("mnt"));
    mounted.running.signal(Signal::KILL);
    mounted.running.wait();
    wait_until("the unmount", || !is_mounted(&mounted.path));
}

/// The processes whose arguments contain all of `words`.
fn find_processes(words: &[&str]) -> Vec<i32> {
    let mut found = Vec::new();
    for process in fs::read_dir("/proc").expect("proc is there").flatten() {
        let Ok(arguments) = fs::read(process.path().join("cmdline")) else { continue };
        let arguments = String::from_utf8_lossy(&arguments).into_owned();
        if words.iter().all(|word| arguments.contains(word))
            && let Some(pid) = process.file_name().to_str().and_then(|name| name.parse().ok())
        {
            found.push(pid);
        }
    }
    found
}

#[test]
fn a_dead_mount_is_cleaned_at_the_next_start() {
    if !can_mount() {
        return;
    }
    let dir = tempfile::tempdir().expect("a temporary directory");
    let store = dir.path().join("store");
    let mut mounted = Mounted::new(&mut lazystore(&store), &dir.path().join("mnt"));
    let path = mounted.path.clone();
    // First the process that would clean up, then the one that serves.
    let watchdogs = find_processes(&["unmount-when-orphaned", path.to_str().expect("UTF-8")]);
    assert_eq!(watchdogs.len(), 1);
    let watchdog = rustix::process::Pid::from_raw(watchdogs[0]).expect("a pid");
    rustix::process::kill_process(watchdog, Signal::KILL).expect("it runs");
    mounted.running.signal(Signal::KILL);
    mounted.running.wait();
    // What the kernel remembers, such as attributes, it still tells.
    let dead = rustix::fs::statvfs(&path).err();
    assert_eq!(dead, Some(rustix::io::Errno::NOTCONN));

    let mut command = lazystore(&store);
    let mut running = Running::start(command.arg("mount").arg(&path));
    running.wait_for_line("detached a dead mount");
    running.wait_for_line("mounted;");
    fs::read_dir(&path).expect("it is served again");
    running.signal(Signal::TERM);
    assert!(running.wait());
}

/// A process that waits for the filesystem that it serves itself could not be killed.
#[test]
fn a_mount_that_is_watched_can_be_killed_at_any_moment() {
    if !can_mount() {
        return;
    }
    let dir = tempfile::tempdir().expect("a temporary directory");
    let [store, mnt, socket] = ["store", "mnt", "notify"].map(|name| dir.path().join(name));
    let mut supervisor = Supervisor::at(&socket);
    for round in 0..10 {
        let mut command = lazystore(&store);
        command.env("NOTIFY_SOCKET", &socket).env("WATCHDOG_USEC", "20000");
        let mut mounted = Mounted::new(&mut command, &mnt);
        supervisor.wait_for("WATCHDOG=1");
        // Others ask for it, again and again.
        let path = mounted.path.to_str().expect("UTF-8").to_owned();
        wait_until("a question", || !find_processes(&["ask-mount", &path]).is_empty());
        thread::sleep(Duration::from_millis(round));
        mounted.running.signal(Signal::KILL);
        mounted.running.wait();
        wait_until("cleaning up", || !is_mounted(&mounted.path));
        wait_until("the end of questions", || find_processes(&["ask-mount", &path]).is_empty());
    }
}

#[test]
fn a_mount_that_nobody_serves_does_not_seem_alive() {
    if !can_mount() {
        return;
    }
    let dir = tempfile::tempdir().expect("a temporary directory");
    let mounted = mountpoint::mount(dir.path(), false).expect("root may mount");
    let (mountpoint, device, _) = mounted;
    let probe = mountpoint.probe();
    let (tell, told) = mpsc::channel();
    let asking = thread::spawn(move || tell.send(probe.ask().is_ok()));
    let silence = told.recv_timeout(Duration::from_secs(1));
    assert_eq!(silence, Err(mpsc::RecvTimeoutError::Timeout));
    // Once nobody can serve it any more, that is said.
    drop(device);
    assert_eq!(told.recv_timeout(SOON), Ok(false));
    asking.join().expect("no panic").expect("somebody listens");
    mountpoint.detach().expect("root may");
}

/// As the process does that serves it, and may not wait for itself.
#[test]
fn a_mount_is_ended_without_being_asked_anything() {
    if !can_mount() {
        return;
    }
    let dir = tempfile::tempdir().expect("a temporary directory");
    let (mountpoint, device, _) = mountpoint::mount(dir.path(), false).expect("root may mount");
    let pinned = rustix::fs::open(dir.path(), OFlags::PATH, Mode::empty()).expect("it is there");
    let mut user = Command::new("sleep").arg("600").stdin(pinned).spawn().expect("it runs");
    let (tell, told) = mpsc::channel();
    let ending = thread::spawn(move || {
        let users = busy::users(mountpoint.device());
        let seen = (mountpoint.is_attached(), users, mountpoint.unmount());
        mountpoint.detach().expect("root may");
        tell.send((seen, mountpoint.is_attached())).expect("somebody listens");
    });
    let ended = told.recv_timeout(SOON);
    // Whoever waits for an answer gets an error now.
    drop(device);
    ending.join().expect("no panic");
    user.kill().expect("it is ours");
    user.wait().expect("it is ours");
    let ((was_attached, users, unmounted), is_attached) = ended.expect("nobody was waited for");
    assert!(was_attached && !is_attached);
    assert!(matches!(unmounted, Err(mountpoint::Error::Busy(_))), "{unmounted:?}");
    let users = users.expect("proc is there");
    let [found] = users.as_slice() else { panic!("{users:?}") };
    assert_eq!((found.pid, found.command.as_str(), found.how), (user.id(), "sleep", "open file"));
}

#[test]
fn mounting_on_nothing_or_on_a_file_says_so() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    write(dir.path().join("file"), "", 0o644);
    for (mountpoint, reason) in
        [("file", "it has to be a directory"), ("missing/parent", "cannot create the directory")]
    {
        let mut command = lazystore(&dir.path().join("store"));
        let output =
            command.arg("mount").arg(dir.path().join(mountpoint)).output().expect("it runs");
        assert_eq!(output.status.code(), Some(1), "{mountpoint}");
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(said.contains(reason) && said.contains(mountpoint), "{said}");
    }
}

const NOBODY: u32 = 65_534;

fn reads_as_nobody(path: &Path) -> bool {
    let mut command = Command::new("cat");
    command.arg(path).uid(NOBODY).gid(NOBODY).stdout(Stdio::null()).stderr(Stdio::null());
    command.status().expect("there is a cat").success()
}

#[test]
fn other_users_may_enter_only_if_allowed() {
    if !can_mount() {
        return;
    }
    let dir = tempfile::tempdir().expect("a temporary directory");
    fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o755)).expect("ours");
    let store = dir.path().join("store");
    write(dir.path().join("file"), "x", 0o644);
    let name = import(&store, &dir.path().join("file"));
    let mounted = Mounted::new(&mut lazystore(&store), &dir.path().join("mnt"));
    assert!(!reads_as_nobody(&mounted.path.join(&name)));
    mounted.unmount();

    let path = dir.path().join("mnt");
    let mut command = lazystore(&store);
    let mut running = Running::start(command.arg("mount").arg("--allow-other").arg(&path));
    running.wait_for_line("mounted;");
    let mounted = Mounted { running, path };
    assert!(reads_as_nobody(&mounted.path.join(&name)));
}

#[test]
fn a_user_who_is_not_root_mounts_through_fusermount3() {
    if !can_mount() || !have_program("fusermount3") {
        return;
    }
    let dir = tempfile::tempdir().expect("a temporary directory");
    fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o755)).expect("ours");
    let home = dir.path().join("home");
    fs::create_dir(&home).expect("new");
    std::os::unix::fs::chown(&home, Some(NOBODY), Some(NOBODY)).expect("root may");
    // As udev sets it everywhere; a container may lack udev.
    fs::set_permissions("/dev/fuse", fs::Permissions::from_mode(0o666)).expect("root may");
    // Where the build directory is may be closed to others.
    let program = dir.path().join("lazystore");
    fs::copy(crate::support::PROGRAM, &program).expect("it can be copied");
    write(dir.path().join("file"), "mine", 0o644);

    let mut command = Command::new(&program);
    command.env("LAZYSTORE_DIR", home.join("store")).uid(NOBODY).gid(NOBODY).current_dir("/");
    command.arg("mount").arg("--import").arg(dir.path().join("file")).arg(home.join("mnt"));
    let mut running = Running::start(&mut command);
    running.wait_for_line("mounted;");
    let output = Command::new("sh")
        .args(["-c", "cat \"$1\"/*", "sh"])
        .arg(home.join("mnt"))
        .uid(NOBODY)
        .gid(NOBODY)
        .output()
        .expect("there is a shell");
    assert_eq!(output.stdout, b"mine");
    // One who uses it is told of, and does not keep it there.
    let mut user = Command::new("sleep");
    user.arg("600").current_dir(home.join("mnt")).uid(NOBODY).gid(NOBODY);
    let mut user = user.spawn().expect("it runs");
    running.signal(Signal::TERM);
    let line = running.wait_for_line("the mount is in use");
    assert!(line.contains(&format!("sleep (pid {}, working directory)", user.id())), "{line}");
    running.wait_for_line("detached while in use");
    user.kill().expect("it is ours");
    user.wait().expect("it is ours");
    assert!(running.wait(), "it said:\n{}", running.log.join("\n"));
    assert!(!is_mounted(&home.join("mnt")));
}
