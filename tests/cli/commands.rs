//! What commands print, and how they end.

use std::{fs, os::unix::net::UnixListener, path::Path, process::Output};

use crate::support::{Running, import, lazystore, noise, run, sample_tree, write};

pub fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

pub fn failed(output: &Output, code: i32) -> String {
    let said = text(&output.stderr);
    assert_eq!(output.status.code(), Some(code), "{said}");
    said
}

#[test]
fn every_command_has_help_with_an_example() {
    for command in [
        "mount",
        "daemon",
        "serve",
        "import",
        "ls",
        "cat",
        "stat",
        "status",
        "path-info",
        "nar",
        "fetch",
        "cache",
    ] {
        let help =
            text(&run(lazystore(Path::new("/nonexistent")).args([command, "--help"])).stdout);
        assert!(help.contains("Example"), "{command}: {help}");
        for option in ["--store", "--store-dir", "--log-level", "--progress", "LAZYSTORE_STORE"] {
            assert!(help.contains(option), "{command} does not tell of {option}");
        }
    }
}

#[test]
fn import_prints_store_paths_and_nothing_else() {
    let dir = tempfile::tempdir().expect("a folder");
    for name in ["one", "two"] {
        write(dir.path().join(name), name, 0o644);
    }
    let mut command = lazystore(&dir.path().join("store"));
    let output = run(command.arg("import").arg(dir.path().join("one")).arg(dir.path().join("two")));
    let printed = text(&output.stdout);
    let lines: Vec<_> = printed.lines().collect();
    assert_eq!(lines.len(), 2);
    assert!(lines[0].starts_with("/nix/store/") && lines[0].ends_with("-one"), "{printed}");
    assert!(lines[1].ends_with("-two"), "{printed}");
    assert_eq!(text(&output.stderr), "");
}

#[test]
fn import_reports_what_was_new() {
    let dir = tempfile::tempdir().expect("a folder");
    fs::create_dir(dir.path().join("tree")).expect("new");
    write(dir.path().join("tree/a"), noise(1, 1000), 0o644);
    write(dir.path().join("tree/b"), noise(2, 500), 0o644);
    let report = || {
        let mut command = lazystore(&dir.path().join("store"));
        command.args(["--log-level", "info", "import"]).arg(dir.path().join("tree"));
        text(&run(&mut command).stderr)
    };
    assert!(report().contains("files=2 bytes=1500 new_files=2 new_bytes=1500"));
    write(dir.path().join("tree/b"), noise(3, 501), 0o644);
    assert!(report().contains("files=2 bytes=1501 new_files=1 new_bytes=501"));
    assert!(report().contains("new_files=0 new_bytes=0"));
}

#[test]
fn what_a_store_cannot_hold_is_named_and_nothing_is_imported() {
    let dir = tempfile::tempdir().expect("a folder");
    let tree = dir.path().join("tree");
    fs::create_dir_all(tree.join("deep")).expect("new");
    write(tree.join("file"), "x", 0o644);
    let _socket = UnixListener::bind(tree.join("deep/socket")).expect("new");
    let store = dir.path().join("store");
    let output = lazystore(&store).arg("import").arg(&tree).output().expect("it runs");
    let said = failed(&output, 1);
    assert!(said.contains("deep/socket is a socket"), "{said}");
    assert_eq!(text(&output.stdout), "");

    fs::remove_file(tree.join("deep/socket")).expect("ours");
    let mkfifo = std::process::Command::new("mkfifo").arg(tree.join("fifo")).status();
    assert!(mkfifo.expect("coreutils are there").success());
    let said = failed(&lazystore(&store).arg("import").arg(&tree).output().expect("it runs"), 1);
    assert!(said.contains("fifo is a named pipe"), "{said}");

    let said =
        failed(&lazystore(&store).args(["import", "/nonexistent/x"]).output().expect("runs"), 1);
    assert!(said.contains("/nonexistent/x") && said.contains("No such file"), "{said}");
    write(dir.path().join("bad name"), "", 0o644);
    let mut command = lazystore(&store);
    let said =
        failed(&command.arg("import").arg(dir.path().join("bad name")).output().expect("runs"), 1);
    assert!(said.contains("--name"), "{said}");
    let mut command = lazystore(&store);
    run(command.args(["import", "--name", "good-name"]).arg(dir.path().join("bad name")));
}

#[test]
fn a_store_is_looked_into_without_mounting() {
    let dir = tempfile::tempdir().expect("a folder");
    let (tree, store) = (dir.path().join("tree"), dir.path().join("store"));
    sample_tree(&tree);
    let name = import(&store, &tree);
    let look =
        |command: &str, path: &str| text(&run(lazystore(&store).arg(command).arg(path)).stdout);
    let names = look("ls", &format!("/nix/store/{name}"));
    let mut expected: Vec<_> = fs::read_dir(&tree)
        .expect("it lists")
        .map(|entry| entry.expect("it lists").file_name().into_string().expect("ASCII"))
        .collect();
    expected.sort();
    assert_eq!(names.lines().collect::<Vec<_>>(), expected);
    assert_eq!(look("ls", &format!("{name}/empty/")), "");
    let long = text(&run(lazystore(&store).args(["ls", "-l"]).arg(format!("{name}/links"))).stdout);
    assert!(long.contains("up -> ../plain"), "{long}");
    assert_eq!(look("cat", &format!("{name}/plain")), "#!/bin/sh\necho twin\n");
    let big = run(lazystore(&store).arg("cat").arg(format!("{name}/file-3000001"))).stdout;
    assert_eq!(big, noise(3_000_001, 3_000_001));
    let stat = look("stat", &format!("{name}/executable"));
    assert!(stat.contains("executable file") && stat.contains("size:    20"), "{stat}");
    assert!(look("stat", &format!("{name}/links/up")).contains("target:  ../plain"));
}

#[test]
fn path_info_tells_what_is_known() {
    let dir = tempfile::tempdir().expect("a folder");
    let store = dir.path().join("store");
    write(dir.path().join("file"), "hello", 0o644);
    let name = import(&store, &dir.path().join("file"));
    let output = run(lazystore(&store).args(["path-info", "--json"]).arg(&name));
    let json: serde_json::Value = serde_json::from_slice(&output.stdout).expect("it is JSON");
    let info = &json[format!("/nix/store/{name}")];
    assert_eq!(info["narSize"], 120);
    assert!(info["narHash"].as_str().is_some_and(|hash| hash.starts_with("sha256-")));
    assert_eq!(info["references"], serde_json::json!([]));
    assert!(info["ca"].as_str().is_some_and(|ca| ca.starts_with("fixed:r:sha256:")), "{info}");
    assert_eq!(info["castore"]["size"], 5);
    let plain = text(&run(lazystore(&store).arg("path-info").arg(&name)).stdout);
    assert!(plain.contains(&format!("/nix/store/{name}")) && plain.contains("NAR size:   120"));
}

#[test]
fn exit_codes_tell_absent_from_wrong() {
    let dir = tempfile::tempdir().expect("a folder");
    let store = dir.path().join("store");
    write(dir.path().join("file"), "hello", 0o644);
    let name = import(&store, &dir.path().join("file"));
    let end = |args: &[&str]| lazystore(&store).args(args).output().expect("it runs");
    let absent = "00000000000000000000000000000000-absent";
    for command in ["ls", "cat", "stat", "path-info", "fetch"] {
        assert!(failed(&end(&[command, absent]), 3).contains(absent));
        failed(&end(&[command, "no-store-path"]), 1);
        failed(&end(&[command]), 2);
    }
    failed(&end(&["ls", &format!("{name}/inner")]), 3);
    failed(&end(&["--log-level", "some[thing", "ls", absent]), 1);
    // What is configured is wrong, wherever it stands.
    failed(&end(&["--store", "ftp://x", "ls", absent]), 78);
    failed(&end(&["--config", "/nonexistent", "ls", absent]), 78);
    let file = dir.path().join("file");
    let file = file.to_str().expect("text");
    failed(&end(&["--config", file, "ls", absent]), 78);
    let listen = ["--listen=127.0.0.1:0"];
    for args in [
        ["daemon", "--auth-token-file", file].as_slice(),
        &["daemon", "--tls-cert", file, "--tls-key", file],
        &["serve", "--sign-key", file],
        &["serve", "--allow-upload", "--upload-token-file", file],
    ] {
        failed(&end(&[args, &listen].concat()), 78);
    }
    // Somebody is not there, for now.
    let nobody = ["--store", "grpc+http://127.0.0.1:1?timeout=1"];
    for command in [&["ls", absent][..], &["nar", "dump", absent]] {
        failed(&end(&[&nobody[..], command].concat()), 4);
    }
    failed(&end(&["--offline", "--store", "grpc+http://127.0.0.1:1", "ls", absent]), 4);
}

#[test]
fn a_dead_remote_is_named_within_its_bound() {
    let dir = tempfile::tempdir().expect("a folder");
    let mut command = lazystore(&dir.path().join("store"));
    command.args(["--store", "grpc+unix:///nonexistent/socket", "ls"]);
    let output = command.arg("00000000000000000000000000000000-x").output().expect("it runs");
    let said = failed(&output, 4);
    assert!(said.contains("grpc+unix:///nonexistent/socket is unavailable"), "{said}");
}

#[test]
fn the_daemon_serves_over_tcp_and_replaces_a_dead_socket() {
    let dir = tempfile::tempdir().expect("a folder");
    let store = dir.path().join("store");
    write(dir.path().join("file"), "over there", 0o644);
    let name = import(&store, &dir.path().join("file"));
    let socket = dir.path().join("socket");
    drop(UnixListener::bind(&socket).expect("new"));
    let mut command = lazystore(&store);
    command.args(["daemon", "--listen", "127.0.0.1:0", "--listen"]);
    let mut daemon = Running::start(command.arg(format!("unix:{}", socket.display())));
    let line = daemon.wait_for_line("listening address=127.0.0.1:");
    let port = line.rsplit(':').next().expect("it ends in the port").trim().to_owned();
    for address in
        [format!("grpc+http://127.0.0.1:{port}"), format!("grpc+unix://{}", socket.display())]
    {
        for dialect in ["", "?dialect=tvix", "?dialect=snix"] {
            let mut command = lazystore(Path::new("/nonexistent"));
            command.args(["--store", &format!("{address}{dialect}"), "cat"]).arg(&name);
            assert_eq!(text(&run(&mut command).stdout), "over there");
        }
    }
    daemon.signal(rustix::process::Signal::TERM);
    assert!(daemon.wait(), "{:?}", daemon.log);
    assert!(!socket.exists());
}

#[test]
fn logs_can_be_json() {
    let dir = tempfile::tempdir().expect("a folder");
    write(dir.path().join("file"), "x", 0o644);
    let mut command = lazystore(&dir.path().join("store"));
    command.args(["--log-format=json", "--log-level=info", "import"]).arg(dir.path().join("file"));
    let said = text(&run(&mut command).stderr);
    let line: serde_json::Value = serde_json::from_str(said.trim()).expect("one object");
    assert_eq!(line["fields"]["message"], "imported");
}

#[test]
fn a_list_without_store_paths_is_no_success() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    for text in ["", "[]", "{}"] {
        let list = dir.path().join("list");
        fs::write(&list, text).expect("it writes");
        let mut command = lazystore(&dir.path().join("store"));
        let output = command.arg("copy").arg(&list).output().expect("it runs");
        assert_eq!(output.status.code(), Some(1), "{text:?}");
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(said.contains("names no store paths"), "{text:?}: {said}");
    }
}
