//! The access log, written by a mount and summed up by the program.

use std::{
    fs, io,
    path::{Path, PathBuf},
    process::Command,
    thread,
    time::Duration,
};

use rustix::process::Signal;

use crate::support::{
    Mounted, Running, can_mount, import, lazystore, noise, run, wait_until, write,
};

const LEN: usize = 300_000;

/// Three store paths with one file each, a daemon that has them, and a mount of it that writes a log.
struct Fixture {
    dir: tempfile::TempDir,
    names: Vec<String>,
    mounted: Option<Mounted>,
    _daemon: Running,
}

impl Fixture {
    fn new() -> Self {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let store = dir.path().join("store");
        let names: Vec<_> = (0..3)
            .map(|number| {
                let tree = dir.path().join(format!("tree-{number}"));
                fs::create_dir(&tree).expect("new");
                write(tree.join("file"), noise(number, LEN), 0o644);
                import(&store, &tree)
            })
            .collect();
        let socket = dir.path().join("socket").display().to_string();
        let listen = format!("unix:{socket}");
        let mut daemon = Running::start(lazystore(&store).args(["daemon", "--listen", &listen]));
        daemon.wait_for_line("listening");
        let mut command = lazystore(Path::new("/nonexistent"));
        command.env("LAZYSTORE_STORE", format!("grpc+unix://{socket}"));
        command.env("LAZYSTORE_CACHE_DIR", dir.path().join("cache"));
        let log = dir.path().join("log").display().to_string();
        let mut args = vec!["--access-log", &log, "--io-mode=no-open", "--only"];
        args.extend(names.iter().map(String::as_str));
        args.push("--");
        let mounted = Some(Mounted::with(&mut command, &dir.path().join("mnt"), &args));
        Fixture { dir, names, mounted, _daemon: daemon }
    }

    fn file(&self, number: usize) -> PathBuf {
        self.dir.path().join("mnt").join(&self.names[number]).join("file")
    }

    fn log(&self) -> PathBuf {
        self.dir.path().join("log")
    }

    fn report(&self) -> String {
        let output = run(lazystore(Path::new("/nonexistent")).arg("access-report").arg(self.log()));
        String::from_utf8(output.stdout).expect("ASCII")
    }
}

#[test]
fn a_report_tells_who_read_what_and_which_inputs_nobody_touched() {
    if !can_mount() {
        return;
    }
    let mut fixture = Fixture::new();
    for number in [0, 1] {
        run(Command::new("cat").arg(fixture.file(number)));
    }
    // Again: the kernel has kept it.
    run(Command::new("md5sum").arg(fixture.file(0)));
    // From here, by a program whose name is hostile.
    crate::support::drop_kernel_caches();
    let hostile = fixture.dir.path().join("\x1b[31m\"\n");
    fs::copy("/bin/cat", &hostile).expect("it copies");
    run(Command::new(&hostile).arg(fixture.file(0)));
    fixture.mounted.take().expect("it is there").unmount();
    let report = fixture.report();
    let line = |end: &str| {
        let line = report.lines().find(|line| line.ends_with(end));
        let fields = line.unwrap_or_else(|| panic!("no {end} in {report}")).split_whitespace();
        fields.filter_map(|field| field.parse().ok()).collect::<Vec<usize>>()
    };
    assert_eq!(line(&fixture.names[0])[0], 1);
    assert!(line(&fixture.names[0])[1] >= 2 * LEN, "{report}");
    assert_eq!(line(&fixture.names[1]), [1, LEN, LEN], "{report}");
    assert_eq!(line("  cat")[..2], [2, 2 * LEN], "{report}");
    assert_eq!(line(r#"  \x1b[31m\"\n"#)[2], 0, "what is here is not fetched: {report}");
    assert!(!report.contains("md5sum") && !report.contains('\x1b'), "{report}");
    let untouched = format!("1 inputs of which nothing was read\n  {}\n", fixture.names[2]);
    assert!(report.contains(&untouched), "{report}");
}

#[test]
fn a_mount_that_is_killed_loses_at_most_the_last_second_of_its_log() {
    if !can_mount() {
        return;
    }
    let mut fixture = Fixture::new();
    assert_eq!(fs::read(fixture.file(0)).expect("it reads").len(), LEN);
    let has = |text: &str| fs::read_to_string(fixture.log()).expect("it is there").contains(text);
    wait_until("the second to pass", || has(&format!("{}/file", fixture.names[0])));
    thread::sleep(Duration::from_millis(100));
    fixture.mounted.as_ref().expect("it is there").running.signal(Signal::KILL);
    drop(fixture.mounted.take());
    let report = fixture.report();
    assert!(report.starts_with(&format!("1 files, {LEN} bytes read")), "{report}");
}

#[test]
fn a_log_that_cannot_be_begun_is_told_before_anything_is_mounted() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let mnt = dir.path().join("mnt");
    let mut command = lazystore(&dir.path().join("store"));
    let output = command.args(["mount", "--access-log", "/nonexistent/log"]).arg(&mnt).output();
    let output = output.expect("it runs");
    assert!(!output.status.success());
    assert!(String::from_utf8_lossy(&output.stderr).contains("/nonexistent/log"));
    assert_eq!(fs::metadata(&mnt).expect_err("not made").kind(), io::ErrorKind::NotFound);
}
