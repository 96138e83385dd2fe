//! What `lazystore status` tells, and how it ends.

use std::{
    fs,
    io::Write as _,
    net::{TcpListener, TcpStream},
    os::unix::fs::{MetadataExt as _, PermissionsExt as _},
    path::{Path, PathBuf},
    process::{Command, Output},
    time::Duration,
};

use serde_json::Value;

use crate::{
    commands::{failed, text},
    scrape::address,
    support::{
        Mounted, Running, can_mount, import, lazystore, run, sample_tree, wait_until, write,
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

fn socket_of(mounted: &Mounted) -> PathBuf {
    let device = fs::metadata(&mounted.path).expect("it answers").dev();
    let (major, minor) = (rustix::fs::major(device), rustix::fs::minor(device));
    PathBuf::from(format!("/run/lazystore/mount-{major}:{minor}.sock"))
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

    let socket = socket_of(&mounted);
    assert_eq!(fs::metadata(&socket).expect("it is there").permissions().mode() & 0o777, 0o600);
    mounted.unmount();
    assert!(!socket.exists(), "its socket goes with it");
    let said =
        failed(&status().arg(folder.path().join("a mount\\point")).output().expect("it runs"), 1);
    assert!(said.contains("nothing of lazystore is mounted on"), "{said}");
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
