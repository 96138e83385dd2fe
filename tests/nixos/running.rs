//! The command lines of the units, run with the configuration files that go with them. systemd is not there to do it: its
//! sockets are those of `systemd-socket-activate`, and what it does when a service has died is done here.

use std::{
    fs,
    io::{Read as _, Write as _},
    net::TcpStream,
    os::unix::net::{UnixDatagram, UnixStream},
    path::Path,
    process::Command,
};

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

use super::evaluation::{Place, can_evaluate, settings, text};
use crate::support::{
    Mounted, Running, SOON, can_mount, have_program, import, is_mounted, noise, run, write,
};

/// A machine below a directory, in which everything is that would be in `/etc` and `/var`.
struct Machine {
    place: Place,
    evaluated: Value,
}

impl Machine {
    fn new(settings: impl FnOnce(&Path) -> String) -> Self {
        let place = Place::new();
        let mut evaluated = place.machine(&settings(place.path()));
        let root = place.path().display().to_string();
        let files = evaluated["files"].as_object_mut().expect("a set");
        for file in files.values_mut() {
            file["text"] = below(text(&file["text"]), &root).into();
        }
        place.write_files(&evaluated);
        Machine { place, evaluated }
    }

    /// What a setting of a unit runs.
    fn command(&self, unit: &str, setting: &str) -> Vec<String> {
        let root = self.place.path().display().to_string();
        let lines = settings(text(&self.evaluated["units"][unit]), setting);
        assert_eq!(lines.len(), 1, "{unit}: {lines:?}");
        assert!(!lines[0].contains(['"', '%', '$']), "this is for systemd to split: {}", lines[0]);
        let line = below(lines[0].trim_start_matches('-'), &root);
        line.split(' ').map(str::to_owned).collect()
    }

    /// A service behind its socket.
    fn behind_socket(&self, name: &str) -> Running {
        let sockets = text(&self.evaluated["units"][&format!("{name}.socket")]);
        let mut command = bare("systemd-socket-activate");
        for address in settings(sockets, "ListenStream") {
            command.arg(format!("--listen={address}"));
        }
        let mut running =
            Running::start(command.args(self.command(&format!("{name}.service"), "ExecStart")));
        running.wait_for_line("Listening on");
        running
    }
}

/// A command with nothing in its environment that could change it.
fn bare(program: &str) -> Command {
    let mut command = Command::new(program);
    command.env_clear().env("PATH", std::env::var_os("PATH").unwrap_or_default());
    command
}

fn below(text: &str, root: &str) -> String {
    ["/etc/lazystore", "/var/lib", "/var/cache"]
        .iter()
        .fold(text.to_owned(), |text, dir| text.replace(dir, &format!("{root}{}", rest(dir))))
}

/// Configuration files are where the stand-in puts them, at the top; directories keep their place.
fn rest(dir: &str) -> &str {
    if dir == "/etc/lazystore" { "" } else { dir }
}

fn fetch(address: &str, path: &str) -> String {
    let mut stream = TcpStream::connect(address).expect("systemd listens");
    write!(stream, "GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
        .expect("it takes it");
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).expect("it answers");
    String::from_utf8_lossy(&answer).into_owned()
}

/// Kills a mount with all that belongs to it, as systemd would.
fn kill_all(mounted: &mut Mounted) {
    let process = mounted.running.child.id();
    let children = fs::read_to_string(format!("/proc/{process}/task/{process}/children"));
    let mut others = children.expect("it runs");
    for task in fs::read_dir(format!("/proc/{process}/task")).expect("it runs").flatten() {
        others += &fs::read_to_string(task.path().join("children")).unwrap_or_default();
    }
    for other in others.split_whitespace() {
        let pid = other.parse().ok().and_then(Pid::from_raw).expect("a process");
        // It may be named twice.
        let _ = kill_process(pid, Signal::KILL);
    }
    mounted.running.signal(Signal::KILL);
    let _ = mounted.running.child.wait();
}

#[test]
fn the_units_do_what_they_are_for() {
    let programs = can_evaluate() && have_program("systemd-socket-activate");
    if !programs || !can_mount() {
        return;
    }
    // An address that no other test has.
    let [.., high, low] = std::process::id().to_be_bytes();
    let address = format!("127.77.{high}.{}:8080", low.clamp(1, 254));
    let machine = Machine::new(|root| {
        let root = root.display();
        format!(
            "daemon = {{ enable = true; listen = [ \"{root}/daemon.sock\" ]; }};
             binaryCache = {{ enable = true; listen = [ \"{address}\" ]; }};
             mounts.m = {{ mountPoint = \"{root}/mnt\"; listRoot = true; }};
             virtiofs.v.socket = \"{root}/virtiofs.sock\";"
        )
    });
    let root = machine.place.path();

    // The store of the daemon, with something in it.
    let tree = root.join("tree");
    fs::create_dir(&tree).expect("it is ours");
    write(tree.join("data"), noise(7, 300_000), 0o644);
    fs::create_dir_all(root.join("var/lib/lazystore")).expect("it is ours");
    let name = import(&root.join("var/lib/lazystore"), &tree);

    let _daemon = machine.behind_socket("lazystore-daemon");
    let mount = machine.command("lazystore-mount-m.service", "ExecStart");
    let place = root.join("mnt");
    // Type=notify: systemd waits for a word.
    let socket = root.join("notify");
    let supervisor = UnixDatagram::bind(&socket).expect("it is ours");
    supervisor.set_read_timeout(Some(SOON)).expect("it is a socket");
    let start = || {
        let mut command = bare(&mount[0]);
        let mut running = Running::start(command.args(&mount[1..]).env("NOTIFY_SOCKET", &socket));
        let (mut message, ready) = ([0; 2048], b"READY=1\n");
        while !message.starts_with(ready) {
            supervisor.recv(&mut message).expect("it says that it is ready");
        }
        running.wait_for_line("mounted; Ctrl-C unmounts");
        Mounted { running, path: place.clone() }
    };
    let mut mounted = start();
    let data = place.join(&name).join("data");
    assert!(fs::read(&data).expect("it is there") == noise(7, 300_000));

    // Dead, it is still attached; what runs after a stop takes it away, and the next start finds nothing in its way.
    kill_all(&mut mounted);
    assert!(is_mounted(&place) && rustix::fs::statfs(&place).is_err());
    let stop_post = machine.command("lazystore-mount-m.service", "ExecStopPost");
    run(bare(&stop_post[0]).args(&stop_post[1..]));
    assert!(!is_mounted(&place));
    let mounted = start();
    assert!(fs::read(&data).expect("it is there") == noise(7, 300_000));
    // A mount that lives is not its business.
    run(bare(&stop_post[0]).args(&stop_post[1..]));
    assert!(is_mounted(&place));
    mounted.unmount();

    let _cache = machine.behind_socket("lazystore-binary-cache");
    assert!(fetch(&address, "/nix-cache-info").contains("Priority: 30"));
    let narinfo = fetch(&address, &format!("/{}.narinfo", &name[..32]));
    assert!(narinfo.contains(&format!("StorePath: /nix/store/{name}")), "{narinfo}");

    let mut guests = machine.behind_socket("lazystore-virtiofs-v");
    let _guest = UnixStream::connect(root.join("virtiofs.sock")).expect("systemd listens");
    guests.wait_for_line("waiting for guests");
}

/// What NixOS does with each configuration file when a system is built, with the files that have the most in them.
#[test]
fn the_program_accepts_what_the_module_writes() {
    if !can_evaluate() {
        return;
    }
    let place = Place::new();
    let machine = place.machine(super::units::ALL);
    place.write_files(&machine);
    for file in machine["files"].as_object().expect("a set").values() {
        let (check, target) = (text(&file["checkPhase"]), text(&file["path"]));
        assert!(check.contains("config check"), "{check}");
        let check = |target: &str| {
            let mut command = bare("bash");
            command.args(["-e", "-c", check]).env("target", target).current_dir(place.path());
            command.output().expect("bash can be run")
        };
        let output = check(target);
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        // It is looked at.
        let broken = place.path().join("broken.toml");
        fs::write(&broken, text(&file["text"]).replace("read = [", "reads = ["))
            .expect("it is ours");
        assert!(!check(broken.to_str().expect("UTF-8")).status.success());
    }
}
