//! What a real guest sees is what the host sees.

use std::{fs, os::unix::fs::symlink, path::Path, process::Command, thread, time::Duration};

use crate::{
    hostile::serve_from_afar,
    machine::{Machine, can_boot},
    support::{Mounted, Running, can_mount, import, lazystore, run},
};

/// How many small files the large tree has.
const FILES: usize = 20_000;

/// Each entry below the working directory: its name, inode number, size, mode, links, kind, time, owner, and blocks.
const LIST: &str = "find . -print0 | sort -z | xargs -0 stat -c '%n %i %s %f %h %F %Y %u:%g %b'";

/// Its contents.
const SUMS: &str = "find . -type f -print0 | sort -z | xargs -0 sha256sum";

/// Its symlinks.
const LINKS: &str = "find . -type l | sort | while read -r l; do readlink \"$l\"; done";

fn in_busybox(script: &str, at: &Path) -> Vec<String> {
    let output = run(Command::new("busybox").args(["sh", "-c", script]).current_dir(at));
    String::from_utf8_lossy(&output.stdout).lines().map(str::to_owned).collect()
}

fn make_trees(at: &Path) {
    let odd = at.join("odd");
    fs::create_dir_all(odd.join("dir with spaces/deep/deeper")).expect("new");
    let long = "n".repeat(255);
    for name in ["-rf", "\\back", "quote'\"", "ünïcödé", "$HOME", "*", ".hidden", long.as_str()]
    {
        fs::write(odd.join(name), name).expect("new");
    }
    fs::write(odd.join("empty"), "").expect("new");
    let big: Vec<u8> = (0..3_000_001_u32).flat_map(|n| n.to_le_bytes()).collect();
    fs::write(odd.join("dir with spaces/big"), big).expect("new");
    symlink("../odd/empty", odd.join("dir with spaces/link")).expect("new");
    symlink("nowhere", odd.join("dangling")).expect("new");
    fs::copy(which("busybox"), odd.join("busybox")).expect("a copy");
    let many = at.join("many");
    for number in 0..FILES {
        let folder = many.join(format!("{:03}", number / 100));
        if number % 100 == 0 {
            fs::create_dir_all(&folder).expect("new");
        }
        fs::write(folder.join(format!("file-{number}")), format!("{number}")).expect("new");
    }
}

fn which(name: &str) -> std::path::PathBuf {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path).map(|dir| dir.join(name)).find(|file| file.is_file()).expect(name)
}

#[test]
fn after_a_guest_that_was_killed_while_it_read_the_next_one_reads() {
    if !can_boot() {
        return;
    }
    let folder = tempfile::tempdir().expect("a folder");
    let (daemon, _server, socket, tree) = serve_from_afar(folder.path());
    let look = format!("ls {tree} >/dev/null; cat {tree}/3; echo; ");
    let mut guest = Machine::boot(&socket, 1, &format!("{look} read line; cat {tree}/big | wc -c"));
    guest.wait_for("contents 3");
    daemon.pause();
    guest.type_line("go on");
    thread::sleep(Duration::from_secs(1));
    guest.kill();
    daemon.signal(rustix::process::Signal::CONT);
    let said = Machine::boot(&socket, 1, &format!("{look} sha256sum <{tree}/big")).finish();
    let sum = in_busybox("sha256sum <tree/big", folder.path());
    assert_eq!(said, ["contents 3".to_owned(), sum[0].clone()]);
}

#[test]
fn a_guest_walks_reads_and_runs_what_the_host_does() {
    if !can_boot() || !can_mount() {
        return;
    }
    let folder = tempfile::tempdir().expect("a folder");
    let (store, socket) = (folder.path().join("store"), folder.path().join("socket"));
    let sources = folder.path().join("sources");
    make_trees(&sources);
    let odd = import(&store, &sources.join("odd"));
    let many = import(&store, &sources.join("many"));
    let mut server =
        Running::start(lazystore(&store).args(["virtiofs", "--list-root"]).arg(&socket));
    server.wait_for_line("waiting for guests");

    let script = format!(
        "ls -1; echo --\ncd /mnt/{odd}; {LIST}; echo --\n{SUMS}; echo --\n{LINKS}; echo --\n\
         cd /mnt/{many}; {LIST} | sha256sum; {SUMS} | sha256sum; echo --\n\
         cd /mnt/{odd}; ./busybox echo from the mount; cat /mnt/absent; echo x >empty; \
         mkdir new; rm empty; mv empty full; chmod 777 empty; ln empty more\n"
    );
    let said = Machine::boot(&socket, 2, &script).finish();
    let said: Vec<_> = said.split(|line| line == "--").collect();
    assert_eq!(said.len(), 6, "{said:?}");

    let mounted =
        Mounted::with(&mut lazystore(&store), &folder.path().join("mnt"), &["--list-root"]);
    let at = |name: &str| mounted.path.join(name);
    assert_eq!(said[0], in_busybox("ls -1", &mounted.path));
    assert_eq!(said[1], in_busybox(LIST, &at(&odd)));
    assert_eq!(said[2], in_busybox(SUMS, &at(&odd)));
    assert_eq!(said[3], in_busybox(LINKS, &at(&odd)));
    let sums = format!("{LIST} | sha256sum; {SUMS} | sha256sum");
    assert_eq!(said[4], in_busybox(&sums, &at(&many)));
    assert_eq!(said[5][0], "from the mount");
    mounted.unmount();

    server.signal(rustix::process::Signal::TERM);
    assert!(server.wait(), "{:?}", server.log);
    assert!(!socket.exists(), "the socket is gone");
}
