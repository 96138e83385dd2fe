//! Where log lines go, and how they look there.

use std::{
    fs,
    io::{self, Read as _},
    os::{fd::AsFd as _, unix::fs::PermissionsExt as _},
    path::Path,
    process::{Command, Stdio},
};

use crate::{
    commands::text,
    support::{PROGRAM, can_mount, have, have_program, lazystore, write},
};

/// What `args` write to standard error if it is a stream that is said to go to journald.
fn to_the_journal(store: &Path, args: &[&str]) -> String {
    let (mut reader, writer) = io::pipe().expect("a pipe");
    let stat = rustix::fs::fstat(writer.as_fd()).expect("it is open");
    let mut command = lazystore(store);
    command.args(args).stdout(Stdio::null());
    command.env("JOURNAL_STREAM", format!("{}:{}", stat.st_dev, stat.st_ino)).stderr(writer);
    let mut child = command.spawn().expect("it runs");
    // Its end of the pipe is the last one then.
    drop(command);
    let mut said = String::new();
    reader.read_to_string(&mut said).expect("text");
    child.wait().expect("our child");
    said
}

#[test]
fn lines_for_journald_have_a_priority_and_no_time() {
    let dir = tempfile::tempdir().expect("a folder");
    let (store, file) = (dir.path().join("store"), dir.path().join("file"));
    write(&file, "x", 0o644);
    let import = ["--log-level=info", "import", file.to_str().expect("text")];
    let said = to_the_journal(&store, &import);
    assert!(said.starts_with("<6>imported "), "{said:?}");
    let said = to_the_journal(&store, &["cat", "/nix/store/nonsense"]);
    assert!(said.starts_with("<3>error: "), "{said:?}");
    // Whoever wants something else says so.
    let text_format = [&["--log-format=text"], &import[..]].concat();
    let said = to_the_journal(&store, &text_format);
    assert!(said.contains("INFO imported") && !said.contains("<6>"), "{said:?}");
    // Standard error that was redirected is not the stream that the variable names.
    let mut command = lazystore(&store);
    let output = command.args(import).env("JOURNAL_STREAM", "1:2").output().expect("it runs");
    let said = text(&output.stderr);
    assert!(said.contains("INFO imported") && !said.contains("<6>"), "{said:?}");
}

/// Runs in a mount namespace of its own, with a journald of its own. Prints what that has at the end.
const BESIDE_JOURNALD: &str = r#"
    mount -t tmpfs tmpfs /run
    mkdir -p /run/systemd/journal /run/log/journal /run/systemd/journald.conf.d
    printf '[Journal]\nStorage=volatile\nReadKMsg=no\nAudit=no\n' >/run/systemd/journald.conf.d/test.conf
    /lib/systemd/systemd-journald 2>/dev/null &
    trap "kill $!; wait $!" EXIT
    for _ in $(seq 600); do [ -S /run/systemd/journal/stdout ] && break; sleep 0.05; done
    systemd-cat -t test-of-lazystore "$@"
    journalctl --sync
    journalctl --directory /run/log/journal --identifier test-of-lazystore --output json
    exit 0
"#;

#[test]
fn a_real_journald_takes_the_priorities() {
    let journald = Path::new("/lib/systemd/systemd-journald").exists();
    if !can_mount() || !have("systemd-journald", journald) || !have_program("systemd-cat") {
        return;
    }
    let dir = tempfile::tempdir().expect("a folder");
    let service = dir.path().join("service");
    // As systemd starts a service: the variable names the stream.
    let script = format!(
        "#!/bin/sh\nexport JOURNAL_STREAM=$(stat -L -c %d:%i /proc/self/fd/2)\nexport LAZYSTORE_DIR=$1 LAZYSTORE_CACHE_DIR=none\n\
         {PROGRAM} --config none --log-level info import \"$2\"\n{PROGRAM} --config none cat /nix/store/nonsense\nexit 0\n"
    );
    fs::write(&service, script).expect("it writes");
    fs::set_permissions(&service, fs::Permissions::from_mode(0o755)).expect("ours");
    write(dir.path().join("file"), "x", 0o644);
    let mut command = Command::new("unshare");
    command.args(["--mount", "bash", "-euc", BESIDE_JOURNALD, "bash"]).arg(service);
    command.arg(dir.path().join("store")).arg(dir.path().join("file"));
    let output = command.output().expect("it runs");
    let (printed, said) = (text(&output.stdout), text(&output.stderr));
    let entries = printed.lines().filter_map(|line| serde_json::from_str(line).ok());
    let entries: Vec<serde_json::Value> = entries.collect();
    for (start, priority) in [("imported ", "6"), ("error: ", "3")] {
        let entry = entries.iter().find(|entry| {
            entry["MESSAGE"].as_str().is_some_and(|message| message.starts_with(start))
        });
        let entry = entry.unwrap_or_else(|| panic!("no {start:?} in {printed}; {said}"));
        assert_eq!(entry["PRIORITY"], priority, "{entry}");
    }
}

/// What `command` shows on a terminal.
fn on_a_terminal(command: &str, no_color: &str) -> String {
    let mut script = Command::new("script");
    script.args(["--quiet", "--return", "--command", command, "/dev/null"]).stdin(Stdio::null());
    script.env("NO_COLOR", no_color).env("TERM", "xterm").env("LAZYSTORE_CACHE_DIR", "none");
    text(&script.output().expect("it runs").stdout)
}

#[test]
fn there_are_colours_on_a_terminal_unless_nobody_wants_them() {
    if !have_program("script") {
        return;
    }
    let dir = tempfile::tempdir().expect("a folder");
    write(dir.path().join("file"), "x", 0o644);
    let at = dir.path().display();
    let import =
        format!("{PROGRAM} --config none --store-dir {at}/store --log-level info import {at}/file");
    let wrong = format!("{PROGRAM} mount --no-such-option");
    for (command, part) in [(&import, "imported"), (&wrong, "no-such-option")] {
        let coloured = on_a_terminal(command, "");
        assert!(coloured.contains(part) && coloured.contains("\x1b["), "{coloured:?}");
        let plain = on_a_terminal(command, "1");
        // A line of progress that is drawn moves the cursor; a colour ends with an m.
        let has_colour = plain.split("\x1b[").skip(1).any(|rest| {
            rest.trim_start_matches(|c: char| c.is_ascii_digit() || c == ';').starts_with('m')
        });
        assert!(plain.contains(part) && !has_colour, "{plain:?}");
    }
}

#[test]
fn names_in_errors_do_nothing_to_a_terminal() {
    let dir = tempfile::tempdir().expect("a folder");
    let mut command = lazystore(&dir.path().join("store"));
    let output = command.arg("import").arg(dir.path().join("x\u{1b}[2J\u{9b}1m")).output();
    let output = output.expect("it runs");
    let said = text(&output.stderr);
    assert!(!output.status.success() && said.contains("x\\u{1b}[2J\\u{9b}1m"), "{said:?}");
    assert!(said.chars().all(|c| c == '\n' || !c.is_control()), "{said:?}");
}
