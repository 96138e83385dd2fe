//! The units, started by the real systemd of this machine in a virtual one: what is in no other test, since a service manager
//! has to be process 1.

use std::{
    fs,
    os::unix::fs::{PermissionsExt as _, symlink},
    path::{Path, PathBuf},
    process::Command,
};

use super::evaluation::{can_evaluate, machine, module, nix, text};
use crate::{
    kernel::Kernel,
    support::{PROGRAM, have, have_program, run, write},
};

/// In the order in which they need each other.
const MODULES: &[&str] = &[
    "drivers/virtio/virtio_ring.ko",
    "drivers/virtio/virtio.ko",
    "drivers/virtio/virtio_pci_legacy_dev.ko",
    "drivers/virtio/virtio_pci_modern_dev.ko",
    "drivers/virtio/virtio_pci.ko",
    "drivers/block/virtio_blk.ko",
    "fs/fuse/fuse.ko",
    "fs/overlayfs/overlay.ko",
];

/// Programs of this machine that the other one has, beside systemd.
const PROGRAMS: &[&str] = &[
    "bash",
    "cat",
    "cmp",
    "findmnt",
    "grep",
    "head",
    "journalctl",
    "mkdir",
    "mount",
    "sh",
    "sleep",
    "stat",
    "systemctl",
    "systemd-sysusers",
    "systemd-tmpfiles",
    "umount",
];

/// What runs there. It says `OK` with a name behind it for each thing that is as it should be.
const CHECK: &str = include_str!("booted/check.sh");

/// What it has to say, in this order.
const SAID: &[&str] = &[
    "dynamic-user",
    "no-token",
    "mount",
    "contents",
    "status",
    "reload",
    "kill",
    "killed-comes-again",
    "stop-process",
    "hung-comes-again",
    "stop",
    "nothing-left",
    "overlay",
    "overlay-contents",
    "overlay-local",
    "overlay-write",
    "overlay-kill",
    "overlay-comes-again",
    "plain",
    "plain-contents",
    "binary-cache",
    "virtiofs",
    "none-failed",
];

/// A daemon that wants a token, and everything else with it: secrets are handed over by systemd. The watchdog is impatient.
const SETTINGS: &str = r#"
    sources.disk.address = "local:";
    sources.team = { address = "grpc+unix:///run/lazystore/daemon.sock"; tokenFile = "/etc/lazystore/token"; };
    daemon = { enable = true; store = "disk"; tokenFile = "/etc/lazystore/token"; };
    binaryCache = { enable = true; store = "team"; };
    mounts.team = {
      mountPoint = "/mnt/team"; store = "team"; loadCredentials = true; watchdog = 15; wantedBy = [ ];
    };
    mounts.store = {
      mountPoint = "/nix/.lazystore"; store = "team"; wantedBy = [ ];
      overlay.enable = true; overlay.tmpfs.enable = true;
    };
    virtiofs.guests.store = "team";
"#;

/// What starts the check once the machine is up, and switches it off afterwards.
const CHECK_SERVICE: &str = "[Unit]
Requires=basic.target sockets.target lazystore-daemon.socket lazystore-binary-cache.socket lazystore-virtiofs-guests.socket
After=basic.target sockets.target lazystore-daemon.socket lazystore-binary-cache.socket lazystore-virtiofs-guests.socket
[Service]
Type=oneshot
StandardOutput=tty
StandardError=tty
TTYPath=/dev/ttyS0
ExecStart=/usr/bin/bash /check
ExecStopPost=/usr/bin/systemctl poweroff -ff
";

const INIT: &str = "mount -t devtmpfs devtmpfs /dev
mount -t ext4 /dev/vda /new
exec switch_root /new /lib/systemd/systemd
";

fn program(name: &str) -> PathBuf {
    let path = std::env::var_os("PATH").unwrap_or_default();
    // Not what somebody has put in front of the machine's own.
    let dirs = [PathBuf::from("/usr/bin"), PathBuf::from("/bin")]
        .into_iter()
        .chain(std::env::split_paths(&path));
    dirs.map(|dir| dir.join(name))
        .find(|file| file.is_file())
        .unwrap_or_else(|| panic!("no {name}"))
}

/// Copies a program to a place below `root`, with the libraries that it needs.
fn add(root: &Path, file: &Path, to: &Path) {
    let copy = |from: &Path, to: &Path| {
        fs::create_dir_all(to.parent().expect("it is in a folder")).expect("it is ours");
        fs::copy(from, to).expect("it can be copied");
    };
    copy(file, to);
    let output = Command::new("ldd").arg(file).output().expect("ldd can be run");
    for library in String::from_utf8_lossy(&output.stdout)
        .split_whitespace()
        .filter(|word| word.starts_with('/'))
    {
        // /lib is a link to /usr/lib there as it is here.
        let to = root.join(library.trim_start_matches('/'));
        if !to.exists() {
            copy(Path::new(library), &to);
        }
    }
}

/// The files of the machine: systemd as it is here, the units of the module, and those for other distributions.
fn fill(root: &Path, units: &serde_json::Value) {
    for dir in [
        "dev",
        "proc",
        "sys",
        "run",
        "tmp",
        "mnt/plain",
        "nix/store/local",
        "etc/systemd/system",
        "usr/bin",
        "usr/lib",
        "usr/lib64",
        "usr/local/bin",
        "var",
    ] {
        fs::create_dir_all(root.join(dir)).expect("it is ours");
    }
    for dir in ["bin", "lib", "lib64"] {
        symlink(format!("usr/{dir}"), root.join(dir)).expect("it is ours");
    }
    run(Command::new("cp").args(["-a", "/lib/systemd"]).arg(root.join("usr/lib")));
    fs::create_dir_all(root.join("usr/lib/tmpfiles.d")).expect("it is ours");
    for name in PROGRAMS {
        add(root, &program(name), &root.join("usr/bin").join(name));
    }
    for entry in fs::read_dir("/lib/systemd").expect("systemd is here").flatten() {
        if entry.path().is_file() {
            add(root, &entry.path(), &root.join("usr/lib/systemd").join(entry.file_name()));
        }
    }
    add(root, Path::new(PROGRAM), &root.join("usr/local/bin/lazystore"));
    // What helps to debug it is most of it.
    let _ = Command::new("strip").arg(root.join("usr/local/bin/lazystore")).status();

    let etc = root.join("etc");
    let (system, own) = (etc.join("systemd/system"), etc.join("lazystore"));
    fs::create_dir(&own).expect("it is ours");
    for (name, unit) in units["units"].as_object().expect("a set") {
        fs::write(system.join(name), text(unit)).expect("it is ours");
    }
    for file in units["files"].as_object().expect("a set").values() {
        fs::write(root.join(text(&file["path"]).trim_start_matches('/')), text(&file["text"]))
            .expect("it is ours");
    }
    let template = "lazystore-mount@.service";
    fs::copy(module().join("systemd").join(template), system.join(template)).expect("it is there");
    fs::write(system.join("check.service"), CHECK_SERVICE).expect("it is ours");
    fs::write(root.join("check"), CHECK).expect("it is ours");
    fs::write(own.join("config.toml"), text(&units["people"])).expect("it is ours");
    write(own.join("token"), "a-secret-that-is-told-to-no-one\n", 0o600);
    let variables = "LAZYSTORE_STORE=team\nLAZYSTORE_ARGS=--list-root\n";
    fs::write(own.join("mount-mnt-plain.env"), variables).expect("it is ours");
    fs::write(root.join("nix/store/local/file"), "here").expect("it is ours");
    fs::write(etc.join("machine-id"), "").expect("it is ours");
    fs::write(
        etc.join("passwd"),
        "root:x:0:0:root:/:/bin/bash\nnobody:x:65534:65534::/:/bin/false\n",
    )
    .expect("it is ours");
    let mut groups = String::from("root:x:0:\ntty:x:5:\nnogroup:x:65534:\n");
    for (index, group) in units["groups"].as_array().expect("a list").iter().enumerate() {
        groups += &format!("{}:x:{}:\n", text(group), 900 + index);
    }
    fs::write(etc.join("group"), groups).expect("it is ours");
}

/// An initramfs that only finds the disk.
fn initramfs(dir: &Path, kernel: &Kernel) -> PathBuf {
    let root = dir.join("initramfs");
    for dir in ["bin", "dev", "lib", "new"] {
        fs::create_dir_all(root.join(dir)).expect("it is ours");
    }
    fs::copy(program("busybox"), root.join("bin/busybox")).expect("it can be copied");
    symlink("busybox", root.join("bin/sh")).expect("it is ours");
    let mut init = String::from("#!/bin/sh\n/bin/busybox --install -s /bin\nexport PATH=/bin\n");
    for module in MODULES {
        let name = Path::new(module).file_name().expect("a file");
        fs::copy(kernel.modules.join(module), root.join("lib").join(name)).expect("a copy");
        init += &format!("insmod /lib/{}\n", name.display());
    }
    fs::write(root.join("init"), init + INIT).expect("it is ours");
    fs::set_permissions(root.join("init"), fs::Permissions::from_mode(0o755)).expect("it is ours");
    let pack = "find . | cpio -o -H newc --quiet | gzip -1 >../initramfs.gz";
    run(Command::new("sh").args(["-c", pack]).current_dir(&root));
    dir.join("initramfs.gz")
}

/// Boots, and returns what the machine said until it was switched off.
fn boot(dir: &Path, kernel: &Kernel) -> String {
    let disk = dir.join("disk");
    run(Command::new("mke2fs")
        .args(["-q", "-t", "ext4", "-d"])
        .arg(dir.join("root"))
        .arg(&disk)
        .arg("400M"));
    let output = Command::new("timeout")
        .args(["--kill-after=5", "420", "qemu-system-x86_64"])
        .args(["-accel", "tcg,thread=multi", "-cpu", "max", "-smp", "2", "-m", "512", "-machine", "q35"])
        .args(["-nodefaults", "-no-user-config", "-display", "none", "-no-reboot", "-serial", "stdio"])
        .arg("-kernel")
        .arg(&kernel.image)
        .arg("-initrd")
        .arg(initramfs(dir, kernel))
        .arg("-drive")
        .arg(format!("file={},if=virtio,format=raw", disk.display()))
        .arg("-append")
        .arg(
            "console=ttyS0 quiet loglevel=3 panic=-1 mitigations=off nokaslr random.trust_cpu=on \
             systemd.unit=check.service systemd.log_target=console systemd.show_status=0 systemd.log_level=notice",
        )
        .stdin(std::process::Stdio::null())
        .output()
        .expect("qemu can be run");
    String::from_utf8_lossy(&output.stdout).replace('\r', "")
        + &String::from_utf8_lossy(&output.stderr)
}

#[test]
fn systemd_starts_watches_and_restarts_the_units() {
    let programs = ["qemu-system-x86_64", "busybox", "cpio", "gzip", "mke2fs", "systemd-analyze"];
    if !can_evaluate() || !programs.iter().all(|name| have_program(name)) {
        return;
    }
    let kernel = Kernel::find(MODULES);
    if !have("a kernel for guests (linux-image-cloud-amd64)", kernel.is_some()) {
        return;
    }
    let kernel = kernel.expect("it was found");
    let dir = tempfile::tempdir().expect("a temporary directory");
    let expression = format!(
        "let s = import {}/tests/standin {{ root = \"/etc/lazystore\"; program = \"/usr/local\"; }}; in {}",
        module().display(),
        machine(SETTINGS)
    );
    let output = nix(&["--expr", &expression]);
    let units = serde_json::from_slice(&output.stdout)
        .unwrap_or_else(|_| panic!("{}", String::from_utf8_lossy(&output.stderr)));
    fill(&dir.path().join("root"), &units);
    let log = boot(dir.path(), &kernel);
    let said: Vec<_> = log.lines().filter_map(|line| line.strip_prefix("OK ")).collect();
    assert_eq!(said, SAID, "the machine said:\n{log}");
}
