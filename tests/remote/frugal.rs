//! How much is moved: what is read and little more, also by those that are killed again and again.

use std::{
    fs::{self, File},
    os::unix::fs::FileExt as _,
    path::Path,
    thread,
    time::Duration,
};

use crate::{
    far::Far,
    support::{Mounted, Running, can_mount, lazystore, noise, wait_until, write},
};

#[test]
fn up_to_a_bound_a_file_comes_whole() {
    if !can_mount() {
        return;
    }
    const LEN: u64 = 900_000;
    let (far, names) = Far::new(|sources| {
        write(sources.join("file"), noise(1, LEN as usize), 0o644);
    });
    for (bound, is_whole) in [("16K", false), ("1M", true)] {
        let mounted = far.mount_with("", bound, &["--fetch-whole-up-to", bound]);
        let path = mounted.path.join(&names[0]);
        fs::metadata(&path).expect("it is there");
        let received = far.proxy.received();
        let mut begin = [0; 4096];
        File::open(&path).and_then(|file| file.read_exact_at(&mut begin, 0)).expect("it reads");
        assert_eq!(begin[..], noise(1, LEN as usize)[..4096]);
        // Long enough for anything that should not come.
        thread::sleep(Duration::from_millis(300));
        let received = far.proxy.received() - received;
        assert_eq!(received > LEN, is_whole, "{bound}: {received}");
        assert!(is_whole || received < LEN / 2, "{received}");
        mounted.unmount();
    }
}

/// What has come is not fetched again, however often the mount is killed on the way.
#[test]
fn what_a_killed_mount_has_fetched_is_kept() {
    const ROUNDS: u64 = 12;
    /// What may be on its way or not yet checked when a mount is killed: a short file, or the read-ahead of a long one.
    const IN_FLIGHT_MAX: u64 = 6 << 20;
    if !can_mount() {
        return;
    }
    let lens: Vec<usize> = (0..60).map(|number| [5_000, 200_000, 1_500_000][number % 3]).collect();
    let (far, names) = Far::new(|sources| {
        fs::create_dir(sources.join("tree")).expect("new");
        for (number, len) in lens.iter().enumerate() {
            write(sources.join(format!("tree/{number:02}")), noise(number as u64, *len), 0o644);
        }
    });
    let total: u64 = lens.iter().map(|len| *len as u64).sum();
    let received = far.proxy.received();
    for round in 1..=ROUNDS {
        let mut mounted = far.mount_with("", "cache", &[]);
        let tree = mounted.path.join(&names[0]);
        // Each goes a little further than the one before.
        let until = far.proxy.received() + total / ROUNDS;
        let reader = thread::spawn({
            let lens = lens.clone();
            move || {
                for (number, len) in lens.into_iter().enumerate() {
                    // Killed, it fails; what it yields before that is right.
                    let Ok(contents) = fs::read(tree.join(format!("{number:02}"))) else { return };
                    assert!(contents == noise(number as u64, len), "file {number}");
                }
            }
        });
        wait_until("it gets on", || far.proxy.received() >= until || reader.is_finished());
        mounted.running.child.kill().expect("ours");
        mounted.running.wait();
        drop(mounted);
        reader.join().expect("all that was read was right");
        let received = far.proxy.received() - received;
        eprintln!("after {round} rounds: {received} bytes of {total}");
        assert!(received < total + round * IN_FLIGHT_MAX, "{received} in {round} rounds");
    }
    let mounted = far.mount_with("", "cache", &[]);
    for (number, len) in lens.iter().enumerate() {
        let path = mounted.path.join(&names[0]).join(format!("{number:02}"));
        assert!(fs::read(path).expect("it reads") == noise(number as u64, *len), "file {number}");
    }
    let received = far.proxy.received() - received;
    eprintln!("in the end: {received} bytes of {total}");
    assert!(received < total * 3 / 2, "{received} bytes for {total}");
    mounted.unmount();
}

/// A daemon whose store is another daemon's passes on parts of what it has in part.
#[test]
fn daemons_in_a_row_move_what_is_read() {
    if !can_mount() {
        return;
    }
    const LEN: usize = 24 << 20;
    let contents = noise(1, LEN);
    let (far, names) = Far::new(|sources| write(sources.join("file"), &contents, 0o644));
    let between = far.dir.path().join("socket");
    let mut daemon = lazystore(Path::new("/nonexistent"));
    daemon.env("LAZYSTORE_STORE", far.proxy.store(""));
    daemon.env("LAZYSTORE_CACHE_DIR", far.dir.path().join("between"));
    daemon.arg("daemon").arg(format!("--listen=unix:{}", between.display()));
    let mut daemon = Running::start(&mut daemon);
    daemon.wait_for_line("listening");
    let mount = |cache: &str| {
        let mut command = lazystore(Path::new("/nonexistent"));
        command.env("LAZYSTORE_STORE", format!("grpc+unix://{}", between.display()));
        command.env("LAZYSTORE_CACHE_DIR", far.dir.path().join(cache));
        Mounted::with(&mut command, &far.dir.path().join("mnt"), &[])
    };
    let read = |mounted: &Mounted, at: usize, len: usize| {
        let file = File::open(mounted.path.join(&names[0])).expect("it opens");
        let mut part = vec![0; len];
        file.read_exact_at(&mut part, at as u64).expect("it reads");
        assert!(part == contents[at..at + len], "at {at}");
    };
    let mounted = mount("first");
    let received = far.proxy.received();
    read(&mounted, 12 << 20, 1 << 20);
    thread::sleep(Duration::from_millis(300));
    let part = far.proxy.received() - received;
    assert!(part < 5 << 19, "{part} bytes for 1 MiB");
    mounted.unmount();
    // Another one finds that part in between, and the rest still far.
    let mounted = mount("second");
    let received = far.proxy.received();
    read(&mounted, 12 << 20, 1 << 19);
    thread::sleep(Duration::from_millis(300));
    let again = far.proxy.received() - received;
    assert!(again < 1 << 20, "{again} bytes for what is in between");
    read(&mounted, 0, LEN);
    let all = far.proxy.received() - received + part;
    assert!(all < LEN as u64 * 11 / 10, "{all} bytes for {LEN}");
    mounted.unmount();
}
