//! Services under a supervisor: what they tell it, and the sockets that it passes.

use std::{
    fs::{self, File},
    io::Read as _,
    net::{TcpListener, TcpStream, UdpSocket},
    os::{
        fd::{AsFd, AsRawFd as _},
        linux::net::SocketAddrExt as _,
        unix::net::{SocketAddr, UnixDatagram, UnixListener, UnixStream},
    },
    path::Path,
    process::Command,
    thread,
    time::Duration,
};

use rustix::process::Signal;

use crate::supervisor::{Supervisor, address_of};
use crate::support::{
    Mounted, PROGRAM, Running, can_mount, have_program, import, is_mounted, lazystore, noise,
    wait_until, write,
};

#[test]
fn a_daemon_tells_when_it_listens_and_how_it_is() {
    let dir = tempfile::tempdir().expect("a folder");
    let mut supervisor = Supervisor::at(&dir.path().join("notify"));
    let socket = dir.path().join("socket");
    let mut command = lazystore(&dir.path().join("store"));
    command.env("NOTIFY_SOCKET", dir.path().join("notify"));
    command.args(["daemon", "--drain=3", "--listen"]).arg(format!("unix:{}", socket.display()));
    let mut daemon = Running::start(&mut command);
    let ready = supervisor.wait_for("READY=1");
    // At this moment somebody can connect.
    let _client = UnixStream::connect(&socket).expect("it listens");
    assert_eq!(supervisor.messages.len(), 1, "{:?}", supervisor.messages);
    let status = format!("STATUS=listening on unix:{}; 0 connections", socket.display());
    assert!(ready.lines().any(|line| line == status), "{ready}");
    let mut client = UnixStream::connect(&socket).expect("it listens");
    // What decides for the kind of connection that it is.
    std::io::Write::write_all(&mut client, b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n").expect("it reads");
    supervisor.wait_for("; 1 connections");
    drop(client);
    supervisor.wait_for("; 0 connections");
    daemon.signal(Signal::TERM);
    let stopping = supervisor.wait_for("STOPPING=1");
    assert!(stopping.contains("EXTEND_TIMEOUT_USEC=13000000"), "{stopping}");
    assert!(daemon.wait(), "{:?}", daemon.log);
    let watchdog = supervisor.messages.iter().any(|message| message.contains("WATCHDOG"));
    assert!(!watchdog, "nobody asked for that: {:?}", supervisor.messages);
}

#[test]
fn a_supervisor_may_listen_under_an_abstract_name() {
    let dir = tempfile::tempdir().expect("a folder");
    let name = format!("lazystore-test-{}", std::process::id());
    let address = SocketAddr::from_abstract_name(&name).expect("a name");
    let mut supervisor = Supervisor::of(UnixDatagram::bind_addr(&address).expect("it is free"));
    let mut command = lazystore(&dir.path().join("store"));
    command.env("NOTIFY_SOCKET", format!("@{name}")).env("WATCHDOG_USEC", "200000");
    let mut serve = Running::start(command.args(["serve", "--listen=127.0.0.1:0"]));
    supervisor.wait_for("READY=1");
    supervisor.wait_for("WATCHDOG=1");
    supervisor.wait_for("WATCHDOG=1");
    // One that stands still is found out.
    serve.pause();
    while supervisor.take() {}
    thread::sleep(Duration::from_millis(400));
    assert!(!supervisor.take(), "{:?}", supervisor.messages);
    serve.signal(Signal::CONT);
    supervisor.wait_for("WATCHDOG=1");
    serve.signal(Signal::TERM);
    supervisor.wait_for("STOPPING=1");
    assert!(serve.wait(), "{:?}", serve.log);
}

#[test]
fn virtiofs_tells_when_guests_can_come() {
    let dir = tempfile::tempdir().expect("a folder");
    let mut supervisor = Supervisor::at(&dir.path().join("notify"));
    let socket = dir.path().join("guests");
    let mut command = lazystore(&dir.path().join("store"));
    command.env("NOTIFY_SOCKET", dir.path().join("notify")).env("WATCHDOG_USEC", "200000");
    let mut virtiofs = Running::start(command.arg("virtiofs").arg(&socket));
    supervisor.wait_for("READY=1");
    let guest = UnixStream::connect(&socket).expect("it listens");
    supervisor.wait_for("STATUS=waiting for guests; 1 connected");
    supervisor.wait_for("WATCHDOG=1");
    // A reload lets go of nobody.
    virtiofs.signal(Signal::HUP);
    supervisor.wait_for("RELOADING=1");
    supervisor.wait_for("READY=1\nSTATUS=waiting for guests; 1 connected");
    drop(guest);
    supervisor.wait_for("STATUS=waiting for guests; 0 connected");
    virtiofs.signal(Signal::TERM);
    supervisor.wait_for("STOPPING=1");
    assert!(virtiofs.wait(), "{:?}", virtiofs.log);
}

#[test]
fn a_mount_lives_while_its_remote_is_dead_and_says_so() {
    if !can_mount() {
        return;
    }
    let dir = tempfile::tempdir().expect("a folder");
    let store = dir.path().join("store");
    write(dir.path().join("file"), noise(1, 100_000), 0o644);
    let name = import(&store, &dir.path().join("file"));
    let mut far = Running::start(lazystore(&store).args(["daemon", "--listen=127.0.0.1:0"]));
    let address = address_of(&far.wait_for_line("listening"));

    let mut supervisor = Supervisor::at(&dir.path().join("notify"));
    let mut command = lazystore(Path::new("/nonexistent"));
    command.env("LAZYSTORE_STORE", format!("grpc+http://{address}?timeout=2"));
    command.env("NOTIFY_SOCKET", dir.path().join("notify")).env("WATCHDOG_USEC", "300000");
    let mountpoint = dir.path().join("mnt");
    fs::create_dir(&mountpoint).expect("new");
    let running = Running::start(command.arg("mount").arg(&mountpoint));
    let mut mounted = Mounted { running, path: mountpoint };
    let ready = supervisor.wait_for("READY=1");
    assert!(ready.contains(&format!("STATUS=serving {}", mounted.path.display())), "{ready}");
    // At this moment it answers.
    assert!(is_mounted(&mounted.path));
    fs::metadata(mounted.path.join(&name)).expect("it is there");

    // A remote that says nothing holds up readers, and nobody else.
    far.pause();
    let reader = {
        let file = mounted.path.join(&name);
        thread::spawn(move || fs::read(file).is_ok())
    };
    let status = supervisor.wait_for("out of reach: ");
    assert!(status.contains(&address), "{status}");
    for _ in 0..3 {
        supervisor.wait_for("WATCHDOG=1");
    }
    assert!(!reader.join().expect("no panic"), "nobody sent that");
    far.signal(Signal::CONT);
    let healed = supervisor.wait_for("STATUS=serving");
    assert!(!healed.contains("out of reach"), "{healed}");
    assert!(fs::read(mounted.path.join(&name)).expect("it is back") == noise(1, 100_000));

    mounted.running.signal(Signal::TERM);
    supervisor.wait_for("STOPPING=1");
    assert!(mounted.running.wait(), "{:?}", mounted.running.log);
}

#[test]
fn a_mount_that_others_are_mounted_over_is_not_thought_dead() {
    if !can_mount() {
        return;
    }
    let dir = tempfile::tempdir().expect("a folder");
    let mut supervisor = Supervisor::at(&dir.path().join("notify"));
    let mut command = lazystore(&dir.path().join("store"));
    command.env("NOTIFY_SOCKET", dir.path().join("notify")).env("WATCHDOG_USEC", "200000");
    let mounted = Mounted::new(&mut command, &dir.path().join("mnt"));
    supervisor.wait_for("WATCHDOG=1");
    let flags = rustix::mount::MountFlags::empty();
    rustix::mount::mount("tmpfs", &mounted.path, "tmpfs", flags, None).expect("it mounts");
    while supervisor.take() {}
    for _ in 0..3 {
        supervisor.wait_for("WATCHDOG=1");
    }
    let detach = rustix::mount::UnmountFlags::DETACH;
    rustix::mount::unmount(&mounted.path, detach).expect("it unmounts");
    mounted.unmount();
}

#[test]
fn a_supervisor_that_cannot_be_told_anything_does_no_harm() {
    let dir = tempfile::tempdir().expect("a folder");
    // Nobody takes what is sent here: soon there is no room.
    let silent = UnixDatagram::bind(dir.path().join("silent")).expect("new");
    let filler = UnixDatagram::unbound().expect("a socket");
    filler.set_nonblocking(true).expect("a socket");
    while filler.send_to(b"X", dir.path().join("silent")).is_ok() {}
    for address in [
        dir.path().join("silent").display().to_string(),
        dir.path().join("absent").display().to_string(),
        dir.path().display().to_string(),
        "relative".to_owned(),
        "vsock:2:1234".to_owned(),
        "@".to_owned(),
        format!("/{}", "long/".repeat(100)),
        String::new(),
    ] {
        let mut command = lazystore(&dir.path().join("store"));
        command.env("NOTIFY_SOCKET", &address).env("WATCHDOG_USEC", "-1");
        let mut daemon = Running::start(command.args(["daemon", "--listen=127.0.0.1:0"]));
        daemon.wait_for_line("listening");
        daemon.signal(Signal::TERM);
        assert!(daemon.wait(), "{address}: {:?}", daemon.log);
    }
    drop(silent);
}

#[test]
fn a_terminal_that_is_closed_ends_what_runs_there() {
    if !have_program("script") {
        return;
    }
    let dir = tempfile::tempdir().expect("a folder");
    let socket = dir.path().join("socket");
    let program = format!("exec {PROGRAM} --config none daemon --listen unix:{}", socket.display());
    let mut command = Command::new("script");
    command.args(["--quiet", "--command", &program, "/dev/null"]);
    command.env("LAZYSTORE_DIR", dir.path().join("store")).env("LAZYSTORE_CACHE_DIR", "none");
    let terminal = Running::start(&mut command);
    wait_until("the socket", || UnixStream::connect(&socket).is_ok());
    drop(terminal);
    // It takes its socket with it, as after any other signal to stop.
    wait_until("the end", || !socket.exists());
}

/// The program, with sockets passed as systemd does it: from descriptor 3 on.
fn passing(sockets: &[&dyn AsFd], setup: &str, store: &Path, args: &[&str]) -> Command {
    let mut script = String::new();
    for (index, socket) in sockets.iter().enumerate() {
        let socket = socket.as_fd();
        rustix::io::fcntl_setfd(socket, rustix::io::FdFlags::empty()).expect("it is open");
        script += &format!("exec {}<&{}; ", index + 3, socket.as_raw_fd());
    }
    script += &format!("export LISTEN_FDS={} LISTEN_PID=$$; {setup}; exec \"$@\"", sockets.len());
    let command = lazystore(store);
    let mut passing = Command::new("bash");
    passing.args(["-c", &script, "bash"]).arg(command.get_program()).args(args);
    for (name, value) in command.get_envs() {
        match value {
            Some(value) => passing.env(name, value),
            None => passing.env_remove(name),
        };
    }
    passing
}

/// Moves descriptors out of the way of the numbers that are passed.
fn high<T: From<std::os::fd::OwnedFd>>(socket: impl AsFd) -> T {
    rustix::io::fcntl_dupfd_cloexec(socket, 50).expect("there is room").into()
}

#[test]
fn sockets_are_used_and_called_by_their_names() {
    let dir = tempfile::tempdir().expect("a folder");
    let store = dir.path().join("store");
    let tcp: TcpListener = high(TcpListener::bind("127.0.0.1:0").expect("a port"));
    let unix: UnixListener = high(UnixListener::bind(dir.path().join("socket")).expect("a socket"));
    let mut command = passing(&[&tcp, &unix], "export LISTEN_FDNAMES=web:", &store, &["serve"]);
    let mut serve = Running::start(&mut command);
    serve.wait_for_line("socket 0 from systemd (web)");
    serve.wait_for_line("socket 1 from systemd");
    let mut answer = String::new();
    let mut client = TcpStream::connect(tcp.local_addr().expect("a port")).expect("it listens");
    let ask = b"GET /healthz HTTP/1.0\r\n\r\n";
    std::io::Write::write_all(&mut client, ask).expect("it reads");
    client.read_to_string(&mut answer).expect("text");
    assert!(answer.starts_with("HTTP/1.0 200"), "{answer}");
    let mut client = UnixStream::connect(dir.path().join("socket")).expect("it listens");
    std::io::Write::write_all(&mut client, ask).expect("it reads");
    answer.clear();
    client.read_to_string(&mut answer).expect("text");
    assert!(answer.starts_with("HTTP/1.0 200"), "{answer}");
    serve.signal(Signal::TERM);
    assert!(serve.wait(), "{:?}", serve.log);
}

/// Sockets, what is done before the program starts, its arguments, and what it says.
type Case<'a> = (&'a [&'a dyn AsFd], &'a str, &'a [&'a str], &'a str);

#[test]
fn sockets_that_cannot_be_used_are_told() {
    let dir = tempfile::tempdir().expect("a folder");
    let store = dir.path().join("store");
    let guests = dir.path().join("guests").display().to_string();
    let tcp: TcpListener = high(TcpListener::bind("127.0.0.1:0").expect("a port"));
    let udp: UdpSocket = high(UdpSocket::bind("127.0.0.1:0").expect("a port"));
    let datagrams: UnixDatagram = high(UnixDatagram::unbound().expect("a socket"));
    let connection: UnixStream = high(UnixStream::pair().expect("sockets").0);
    let unix: UnixListener = high(UnixListener::bind(dir.path().join("socket")).expect("a socket"));
    let other: UnixListener = high(UnixListener::bind(dir.path().join("other")).expect("a socket"));
    let file: File = high(File::open("/dev/null").expect("it is there"));
    let one = ["daemon"];
    let cases: [Case<'_>; 10] = [
        (&[&udp], ":", &one, "it is a UDP socket (ListenDatagram=)"),
        (&[&datagrams], ":", &one, "it is a unix datagram socket"),
        (&[&connection], ":", &one, "set Accept=no"),
        (&[&file], ":", &one, "no socket that listens"),
        (&[&tcp, &file], "export LISTEN_FDNAMES=a:b", &one, "socket 1 from systemd (b)"),
        (&[&tcp], "exec 3<&-", &one, "or not open"),
        (&[&tcp], "export LISTEN_FDS=65", &one, "at most 64"),
        (&[&tcp], "export LISTEN_FDS=many", &one, "is no number"),
        (&[&tcp], ":", &["virtiofs"], "machine monitors need a unix socket"),
        (&[&unix, &other], ":", &["virtiofs", &guests], "is one too many"),
    ];
    for (sockets, setup, args, expected) in cases {
        let output = passing(sockets, setup, &store, args).output().expect("it runs");
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(!output.status.success() && said.contains(expected), "{expected:?}: {said}");
    }
    // Those of another process are left alone.
    let args = ["daemon", "--listen=127.0.0.1:0"];
    let mut daemon = Running::start(&mut passing(&[&udp], "export LISTEN_PID=1", &store, &args));
    daemon.wait_for_line("for another process");
    daemon.wait_for_line("listening");
}

#[test]
fn a_daemon_starts_when_the_real_systemd_has_a_client_for_it() {
    if !have_program("systemd-socket-activate") {
        return;
    }
    let dir = tempfile::tempdir().expect("a folder");
    let store = dir.path().join("store");
    write(dir.path().join("file"), "x", 0o644);
    let name = import(&store, &dir.path().join("file"));
    let socket = dir.path().join("socket");
    let command = lazystore(&store);
    let mut activate = Command::new("systemd-socket-activate");
    activate.arg("--listen").arg(&socket).arg("--fdname=clients");
    activate.args(["--setenv=LAZYSTORE_CACHE_DIR=none"]);
    activate.arg(format!("--setenv=LAZYSTORE_DIR={}", store.display()));
    let mut activated = Running::start(activate.arg(command.get_program()).arg("daemon"));
    wait_until("the socket", || socket.exists());
    let mut client = lazystore(Path::new("/nonexistent"));
    client.env("LAZYSTORE_STORE", format!("grpc+unix://{}", socket.display()));
    let output = client.args(["cat", &format!("/nix/store/{name}")]).output().expect("it runs");
    assert_eq!(output.stdout, b"x", "{}", String::from_utf8_lossy(&output.stderr));
    activated.wait_for_line("socket 0 from systemd (clients)");
}
