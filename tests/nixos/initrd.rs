//! Booting from a mount: what the unit of the initrd does is done here, without a kernel that boots, but with real mounts in a
//! namespace. What has to hold is that the process goes on serving when the root directory that it was started for becomes /,
//! and the initrd is gone.

use std::{fmt::Write as _, fs, path::Path, process::Command};

use super::evaluation::{Place, can_evaluate, settings, text};
use crate::support::{PROGRAM, Running, can_mount, have_program, import, lazystore, noise, write};

/// Where the stand-in has the program, and where it has files that would be in the store.
const PACKAGE: &str = "/nix/store/00000000000000000000000000000000-lazystore";
const FILES: &str = "/nix/store/00000000000000000000000000000000-files";

/// Before the units: an initrd in a tmpfs, whose programs are those of this machine, and a root directory in it.
const INITRD: &str = r#"
mount -t tmpfs none "$T"
mkdir -p "$T"/{usr,etc,proc,sys,dev,run,tmp,sysroot} "$T$PACKAGE/bin" "$T$FILES/closure-info"
for dir in bin lib lib64 sbin; do ln -s usr/$dir "$T/$dir"; done
mount --bind /usr "$T/usr"
mount --rbind /dev "$T/dev"
mount --rbind /sys "$T/sys"
mount -t proc none "$T/proc"
cp "$PROGRAM" "$T$PACKAGE/bin/lazystore"
cp "$CONFIG" "$T$FILES/lazystore-mount-boot.toml"
printf '%s\n' "$PACKAGE" "$FILES" > "$T$FILES/closure-info/store-paths"
echo 127.0.0.1 localhost > "$T/etc/hosts"
cat > "$T/inside" < "$INSIDE"
exec chroot "$T" /usr/bin/bash -e /inside
"#;

/// The libraries of this machine stand for those that a package of Nix brings along.
const ROOT: &str = "
mount -t tmpfs root /sysroot
mkdir -p /sysroot/usr && mount --bind /usr /sysroot/usr
for dir in bin lib lib64 sbin; do ln -s usr/$dir /sysroot/$dir; done
";

/// As systemd leaves an initrd: the new root is moved over the old one, and what was in that is deleted.
const LEAVE: &str = r#"
rm -r /nix /etc /inside
cd /sysroot
/usr/bin/mount --move . /
exec chroot . /usr/bin/bash -ex -c "$AFTERWARDS"
"#;

/// What a system that has booted finds.
const AFTERWARDS: &str = r#"
echo 3 > /proc/sys/vm/drop_caches
cat "/nix/store/$NAME/data" | cmp - /run/data
cmp "/nix/.lazystore/$NAME/later" /run/data
findmnt -no FSTYPE /nix/store | tail -n 1 | grep -qx overlay
findmnt -no FSTYPE /nix/.lazystore | grep -qx fuse.lazystore
echo new > /nix/store/new && test "$(cat /nix/.rw-store/store/new)" = new
# The program can be started again, and its cache is where it always was.
"$PACKAGE/bin/lazystore" --version > /dev/null
test -n "$(ls /var/cache/lazystore-mount-boot/disk)"
# systemd spares what has such a name.
tr '\0' '\n' < /proc/$(pgrep -f '^@lazystore mount')/cmdline | head -n 1 | grep -qx @lazystore
echo booted
"#;

/// What the units of the initrd run, as a script.
fn script(machine: &serde_json::Value) -> String {
    let units = &machine["initrd"];
    let service = text(&units["lazystore-mount-boot.service"]);
    let mut script = String::from(ROOT);
    let mount = |unit: &str| {
        let unit = text(&units[unit]);
        let one = |setting| settings(unit, setting)[0];
        format!(
            "mkdir -p {place}\nmount -t {} -o {} none {place}\n",
            one("Type"),
            one("Options"),
            place = one("Where")
        )
    };
    script += &mount("sysroot-nix-.rw\\x2dstore.mount");
    for line in settings(service, "ExecStartPre") {
        // What may fail begins with a dash.
        let (line, rest) = line.strip_prefix('-').map_or((line, ""), |line| (line, " || true"));
        writeln!(script, "{}{rest}", line.replace("$$", r"\$")).expect("a string");
    }
    let start =
        settings(service, "ExecStart")[0].strip_prefix('@').expect("it has a name of its own");
    let (program, rest) = start.split_once(' ').expect("it has arguments");
    let (name, arguments) = rest.split_once(' ').expect("it has arguments");
    let root = settings(service, "RootDirectory")[0];
    write!(
        script,
        "(exec chroot {root} /usr/bin/bash -c 'exec -a {name} {program} {arguments}') &
         for attempt in $(seq 1000); do findmnt {root}/nix/.lazystore > /dev/null && break; sleep 0.02; done
         findmnt {root}/nix/.lazystore > /dev/null
         cp /tmp/data {root}/run/data
         "
    )
    .expect("a string");
    script + &mount("sysroot-nix-store.mount") + LEAVE
}

fn boot(place: &Path, name: &str, script: &str) {
    let (inside, root) = (place.join("inside"), place.join("initrd"));
    fs::write(&inside, script).expect("it is ours");
    fs::create_dir(&root).expect("it is ours");
    let output =
        Command::new("unshare")
            .args([
                "--mount",
                "--propagation=private",
                "--pid",
                "--fork",
                "--kill-child",
                "--mount-proc",
            ])
            .args(["bash", "-e", "-c"])
            .arg(INITRD.replace(
                "cat > \"$T/inside\"",
                "cp \"$DATA\" \"$T/tmp/data\"; cat > \"$T/inside\"",
            ))
            .env("T", &root)
            .env("DATA", place.join("data"))
            .env("PROGRAM", PROGRAM)
            .env("CONFIG", place.join("config.toml"))
            .env("INSIDE", &inside)
            .env("PACKAGE", PACKAGE)
            .env("FILES", FILES)
            .env("NAME", name)
            .env("AFTERWARDS", AFTERWARDS)
            .output()
            .expect("unshare can be run");
    let said = String::from_utf8_lossy(&output.stderr);
    let is_booted = String::from_utf8_lossy(&output.stdout).trim_end().ends_with("booted");
    assert!(output.status.success() && is_booted, "{said}");
}

#[test]
fn a_mount_of_the_initrd_outlives_it() {
    if !can_evaluate() || !can_mount() || !have_program("unshare") || !have_program("pgrep") {
        return;
    }
    let place = Place::new();
    let dir = place.path();
    let [.., high, low] = std::process::id().to_be_bytes();
    let address = format!("127.78.{high}.{}:8000", low.clamp(1, 254));

    let tree = dir.join("tree");
    fs::create_dir(&tree).expect("it is ours");
    for file in [tree.join("data"), tree.join("later"), dir.join("data")] {
        write(file, noise(3, 200_000), 0o644);
    }
    let store = dir.join("store");
    let name = import(&store, &tree);
    let mut daemon = Running::start(lazystore(&store).args(["daemon", "--listen", &address]));
    daemon.wait_for_line("listening");

    let settings = format!(
        "sources.server.address = \"grpc+http://{address}\";
         mounts.boot = {{
           mountPoint = \"/nix/.lazystore\";
           initrd = {{ enable = true; network = false; }};
           overlay = {{ enable = true; tmpfs.enable = true; }};
         }};"
    );
    let machine = super::evaluation::machine(&settings);
    let expression = format!(
        "let s = import {}/tests/standin {{ }}; in {machine}",
        super::evaluation::module().display()
    );
    let output = super::evaluation::nix(&["--expr", &expression]);
    let machine: serde_json::Value =
        serde_json::from_slice(&output.stdout).expect("Nix writes JSON");
    fs::write(dir.join("config.toml"), text(&machine["files"]["lazystore-mount-boot"]["text"]))
        .expect("it is ours");
    boot(dir, &name, &script(&machine));
}
