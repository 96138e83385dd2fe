//! Archives that are on their way when those who wait for them, or the mount, go away.

use std::{
    process::{Command, Stdio},
    time::{Duration, Instant},
};

use lazystore::nix::Compression;

use crate::{
    made_cache::{Made, address, file_archive, serve_info},
    support::{Mounted, can_mount, lazystore, noise, wait_until},
    web::{HttpServer, Trouble},
};

/// What should be at once, on a loaded machine.
const AT_ONCE: Duration = Duration::from_secs(5);

fn mounted(folder: &tempfile::TempDir, server: &HttpServer) -> Mounted {
    let mut command = lazystore(&folder.path().join("store"));
    command.env("LAZYSTORE_CACHE_DIR", folder.path().join("cache"));
    command.args(["--store", &format!("{}&timeout=600", address(server))]);
    Mounted::new(&mut command, &folder.path().join("mount"))
}

#[test]
fn who_waits_for_an_archive_can_be_killed_and_the_mount_taken_down() {
    if !can_mount() {
        return;
    }
    let (folder, server) = (tempfile::tempdir().expect("a folder"), HttpServer::new());
    serve_info(&server);
    let made = Made::new("stalled", &file_archive(&noise(1, 1 << 20)), Compression::Zstd);
    made.serve(&server);
    server.trouble(made.told.archive.url.as_str(), Trouble::Stall(1 << 19));
    let mounted = mounted(&folder, &server);
    let path = mounted.path.join(made.told.store_path.to_string());
    let mut reader = Command::new("cat");
    let reader = reader.arg(path).stdout(Stdio::null()).stderr(Stdio::null()).spawn();
    let mut reader = reader.expect("it runs");
    wait_until("the archive is asked for", || server.asked("nar/") == 1);
    let began = Instant::now();
    reader.kill().expect("it is ours");
    reader.wait().expect("it ends");
    assert!(began.elapsed() < AT_ONCE, "{:?}", began.elapsed());
    let began = Instant::now();
    mounted.unmount();
    assert!(began.elapsed() < AT_ONCE, "{:?}", began.elapsed());
}

#[test]
fn an_archive_arrives_to_its_end_also_if_nobody_waits_any_more() {
    if !can_mount() {
        return;
    }
    let (folder, server) = (tempfile::tempdir().expect("a folder"), HttpServer::new());
    serve_info(&server);
    // Some 2 seconds.
    let made = Made::new("slow", &file_archive(&noise(1, 400)), Compression::None);
    made.serve(&server);
    let archive = made.told.archive.url.to_string();
    server.trouble(&archive, Trouble::Trickle(Duration::from_millis(4)));
    let mounted = mounted(&folder, &server);
    let path = mounted.path.join(made.told.store_path.to_string());
    for _ in 0..3 {
        let mut reader = Command::new("cat");
        let reader = reader.arg(&path).stdout(Stdio::null()).stderr(Stdio::null()).spawn();
        let mut reader = reader.expect("it runs");
        wait_until("the archive is asked for", || server.asked(&archive) > 0);
        reader.kill().expect("it is ours");
        reader.wait().expect("it ends");
    }
    assert_eq!(std::fs::read(&path).expect("it comes"), noise(1, 400));
    assert_eq!(server.asked(&archive), 1);
    mounted.unmount();
}
