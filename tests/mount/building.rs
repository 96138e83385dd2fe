//! The real Nix builds over a mount, and reads no more than it needs.

use std::{fs, path::Path, process::Command};

use crate::support::{
    Mounted, Running, can_mount, files, have_program, import, lazystore, noise, run, write,
};

/// How long each file of the data is, in bytes, and how many there are.
const FILE_LEN: usize = 3 << 20;
const FILES: u64 = 8;

/// Runs `script` with a /nix of its own, which is the folder `nix`; nobody else sees what is mounted meanwhile.
fn with_nix(nix: &Path, script: &str) -> String {
    fs::create_dir_all(nix.join("store")).expect("new");
    fs::create_dir_all("/nix").expect("a place to mount on");
    let mut command = Command::new("unshare");
    command.args(["-m", "sh", "-euc"]);
    command.arg(format!("mount --bind {} /nix\n{script}", nix.display()));
    command.env("NIX_CONFIG", "build-users-group =\nsandbox = false\nsubstituters =");
    command.env("HOME", nix).env_remove("NIX_REMOTE").env_remove("NIX_PATH");
    String::from_utf8(run(&mut command).stdout).expect("UTF-8")
}

/// Writes a derivation that reads one file of `data` to `file`; the script that builds it and tells its path, its hash
/// and what it refers to.
fn build(file: &Path, tools: &str, data: &str) -> String {
    let expression = format!(
        "let tools = builtins.storePath \"/nix/store/{tools}\"; in derivation {{
           name = \"built\"; system = builtins.currentSystem; builder = \"${{tools}}/bin/sh\";
           data = builtins.storePath \"/nix/store/{data}\";
           args = [ \"-euc\" \"${{tools}}/bin/busybox mkdir $out
             ${{tools}}/bin/busybox sha256sum < $data/3 > $out/sum; echo $data > $out/reference\" ];
         }}"
    );
    write(file, expression, 0o644);
    format!(
        "out=$(nix-build --no-out-link {} 2>&1) || {{ echo \"$out\" >&2; exit 1; }}\n\
         out=/nix/store/${{out##*/}}\n\
         echo $out $(nix-store -q --hash $out) $(nix-store -q --references $out)\n",
        file.display()
    )
}

#[test]
fn nix_builds_the_same_over_a_mount_and_fetches_only_what_it_reads() {
    let programs = ["nix-build", "unshare", "busybox"].iter().all(|program| have_program(program));
    if !can_mount() || !programs {
        return;
    }
    let dir = tempfile::tempdir().expect("a temporary directory");
    let (tools, data) = (dir.path().join("tools"), dir.path().join("data"));
    fs::create_dir_all(tools.join("bin")).expect("new");
    let busybox = run(Command::new("sh").args(["-c", "command -v busybox"])).stdout;
    let busybox = String::from_utf8(busybox).expect("UTF-8");
    for name in ["sh", "busybox"] {
        fs::copy(busybox.trim_end(), tools.join("bin").join(name)).expect("it copies");
    }
    fs::create_dir(&data).expect("new");
    for number in 0..FILES {
        write(data.join(number.to_string()), noise(number, FILE_LEN), 0o644);
    }

    // Without a mount: the inputs are all there.
    let add = format!("nix-store --add {} {} >/dev/null\n", tools.display(), data.display());
    let store = dir.path().join("store");
    let (tools, data) = (import(&store, &tools), import(&store, &data));
    let build = build(&dir.path().join("built.nix"), &tools, &data);
    let plain = with_nix(&dir.path().join("plain"), &(add + &build));
    assert!(plain.contains("-built sha256:") && plain.contains(&data), "{plain}");

    // With one: they are far away.
    let socket = format!("unix:{}", dir.path().join("socket").display());
    let mut daemon = Running::start(lazystore(&store).args(["daemon", "--listen", &socket]));
    daemon.wait_for_line("listening");
    let cache = dir.path().join("cache");
    let mut command = lazystore(Path::new("/nonexistent"));
    let address = format!("grpc+unix://{}", dir.path().join("socket").display());
    command.env("LAZYSTORE_STORE", &address).env("LAZYSTORE_CACHE_DIR", &cache);
    let log = dir.path().join("log").display().to_string();
    let args = ["--access-log", &log, "--closure-of", &tools, &data, "--"];
    let mounted = Mounted::with(&mut command, &dir.path().join("mnt"), &args);
    let registration = dir.path().join("registration");
    let mut command = lazystore(Path::new("/nonexistent"));
    command.env("LAZYSTORE_STORE", &address).args(["registration", "--closure", &tools, &data]);
    fs::write(&registration, run(&mut command).stdout).expect("it writes");
    let disk = dir.path().join("disk");
    fs::create_dir(&disk).expect("new");
    let overlay = format!(
        "mount -t tmpfs tmpfs {disk}\nmkdir {disk}/upper {disk}/work\n\
         mount -t overlay overlay -o lowerdir={},upperdir={disk}/upper,workdir={disk}/work /nix/store\n\
         nix-store --load-db < {}\n",
        mounted.path.display(),
        registration.display(),
        disk = disk.display(),
    );
    let over = with_nix(&dir.path().join("over"), &(overlay + &build));
    assert_eq!(over, plain);
    mounted.unmount();
    let report = run(lazystore(&store).args(["access-report", &log])).stdout;
    let report = String::from_utf8(report).expect("ASCII");
    for read in [&tools, &data] {
        assert!(report.lines().any(|line| line.ends_with(&format!("  {read}"))), "{report}");
    }
    assert!(report.contains("  busybox\n") && report.contains("\n0 inputs of which"), "{report}");
    let text = fs::read_to_string(&log).expect("it is there");
    let file = |number| text.contains(&format!("\"{data}/{number}\""));
    assert!(file(3) && !file(4), "only what was read is told of");

    let inputs = FILE_LEN as u64 * FILES;
    let fetched: u64 =
        files(&cache).iter().filter_map(|file| fs::metadata(file).ok()).map(|m| m.len()).sum();
    assert!(fetched >= FILE_LEN as u64 && fetched < inputs / 2, "{fetched} of {inputs} bytes");
}

#[test]
fn nix_takes_a_registration_for_what_it_has() {
    if !have_program("nix-store") || !can_mount() {
        return;
    }
    let dir = tempfile::tempdir().expect("a temporary directory");
    let store = dir.path().join("store");
    let names: Vec<_> = (0..3)
        .map(|number| {
            write(dir.path().join(number.to_string()), number.to_string(), 0o644);
            import(&store, &dir.path().join(number.to_string()))
        })
        .collect();
    let registration = dir.path().join("registration");
    let output = run(lazystore(&store).arg("registration").args(&names).arg(&names[0])).stdout;
    fs::write(&registration, &output).expect("it writes");
    let script = format!("nix-store --load-db < {}\nnix-store --dump-db", registration.display());
    let dumped = with_nix(&dir.path().join("nix"), &script);
    // In whatever order Nix has them.
    let sorted = |text: &str| {
        let mut lines: Vec<_> = text.lines().map(str::to_owned).collect();
        lines.sort();
        lines
    };
    assert_eq!(sorted(&dumped), sorted(&String::from_utf8(output).expect("UTF-8")));
    let closure = run(lazystore(&store).arg("closure").args(&names)).stdout;
    let mut expected: Vec<_> = names.iter().map(|name| format!("/nix/store/{name}\n")).collect();
    expected.sort();
    assert_eq!(String::from_utf8(closure).expect("UTF-8"), expected.concat());
    let absent = "00000000000000000000000000000000-absent";
    for command in ["closure", "registration"] {
        let output = lazystore(&store).args([command, absent]).output().expect("it runs");
        assert_eq!(output.status.code(), Some(3), "{output:?}");
    }
}
