//! kill -9 at random moments: what had been printed stays whole, what had not stays invisible.

use std::{
    collections::BTreeSet,
    fs,
    io::{BufRead as _, BufReader},
    path::Path,
    process::{Child, Stdio},
    thread,
    time::Duration,
};

use crate::support::{
    Mounted, Running, assert_same, base_name, can_mount, is_mounted, lazystore, noise, run,
    wait_until, walk, write,
};

/// How often something is killed. The suite's time allows for some; set LAZYSTORE_CRASHES for more.
fn rounds() -> u64 {
    std::env::var("LAZYSTORE_CRASHES").ok().and_then(|count| count.parse().ok()).unwrap_or(12)
}

/// A delay that differs each round, up to `max` milliseconds.
fn delay(round: u64, max: u64) -> Duration {
    let random = u64::from(noise(round, 2)[0]) * 256 + u64::from(noise(round, 2)[1]);
    Duration::from_micros(random * max * 1000 / 65_536)
}

fn tree(path: &Path, seed: u64) {
    fs::create_dir_all(path.join("inner/most")).expect("new");
    for number in 0..200 {
        let contents = noise(seed * 1000 + number, (number * 97) as usize);
        write(
            path.join(["", "inner", "inner/most"][number as usize % 3]).join(number.to_string()),
            contents,
            0o644,
        );
    }
    write(path.join("large"), noise(seed, 3_000_000), 0o755);
}

/// The store paths that a process prints until it ends or is killed.
fn printed(child: &mut Child) -> thread::JoinHandle<Vec<String>> {
    let stdout = BufReader::new(child.stdout.take().expect("a pipe"));
    thread::spawn(move || {
        // A last line that was cut off is none.
        let lines = stdout.lines().map_while(Result::ok);
        lines.filter(|line| line.contains("-tree-")).map(|line| base_name(&line)).collect()
    })
}

#[test]
fn imports_that_are_killed_lose_nothing_and_show_nothing_half_done() {
    if !can_mount() {
        return;
    }
    let dir = tempfile::tempdir().expect("a folder");
    let store = dir.path().join("store");
    let trees: Vec<_> = (0..3).map(|seed| dir.path().join(format!("tree-{seed}"))).collect();
    for (seed, path) in trees.iter().enumerate() {
        tree(path, seed as u64);
    }
    let mut names = BTreeSet::new();
    for round in 0..rounds() {
        // Each alone, so that some are printed before the end.
        let path = &trees[round as usize % trees.len()];
        write(path.join("round"), round.to_string(), 0o644);
        let mut command = lazystore(&store);
        command.arg("import").arg(path).stdout(Stdio::piped()).stderr(Stdio::null());
        let mut child = command.spawn().expect("it runs");
        let lines = printed(&mut child);
        thread::sleep(delay(round, 250));
        child.kill().expect("ours");
        child.wait().expect("ours");
        names.extend(lines.join().expect("no panic"));
    }
    // Once undisturbed, so that there is something to compare with.
    for path in &trees {
        let output = run(lazystore(&store).arg("import").arg(path));
        names.insert(base_name(String::from_utf8_lossy(&output.stdout).trim()));
    }
    let path = dir.path().join("mnt");
    let mut command = lazystore(&store);
    let mut running = Running::start(command.args(["mount", "--list-root"]).arg(&path));
    running.wait_for_line("mounted;");
    let mounted = Mounted { running, path };
    let listed: BTreeSet<_> = fs::read_dir(&mounted.path)
        .expect("it lists")
        .map(|entry| entry.expect("it lists").file_name().into_string().expect("ASCII"))
        .collect();
    assert!(listed.is_superset(&names), "a path that was printed is gone");
    for name in &listed {
        let seed = name.rsplit('-').next().expect("a number").parse::<usize>().expect("a number");
        let mut found = walk(&mounted.path.join(name));
        // What the tree had besides that file has not changed between rounds.
        let mut expected = walk(&trees[seed]);
        for facts in [&mut found, &mut expected] {
            assert!(facts.remove(Path::new("round")).is_some());
        }
        assert_same(&expected, &found);
    }
    mounted.unmount();
    let staging = fs::read_dir(store.join("staging")).expect("there").count();
    assert_eq!(staging, 0, "left-overs were not tidied");
}

#[test]
fn a_daemon_that_is_killed_loses_nothing_that_was_acknowledged() {
    let dir = tempfile::tempdir().expect("a folder");
    let store = dir.path().join("store");
    let socket = dir.path().join("socket");
    let path = dir.path().join("tree-0");
    tree(&path, 7);
    let mut names = BTreeSet::new();
    for round in 0..rounds() {
        write(path.join("round"), round.to_string(), 0o644);
        let mut daemon = Running::start(
            lazystore(&store).arg("daemon").arg(format!("--listen=unix:{}", socket.display())),
        );
        daemon.wait_for_line("listening");
        let mut command = lazystore(Path::new("/nonexistent"));
        command.env("LAZYSTORE_STORE", format!("grpc+unix://{}", socket.display()));
        command.arg("import").arg(&path).stdout(Stdio::piped()).stderr(Stdio::null());
        let mut client = command.spawn().expect("it runs");
        let lines = printed(&mut client);
        // The first round shows how long one takes.
        if round > 0 {
            thread::sleep(delay(round, 700));
            daemon.child.kill().expect("ours");
        }
        client.wait().expect("ours");
        names.extend(lines.join().expect("no panic"));
    }
    assert!(!names.is_empty());
    for name in names {
        for inner in ["large", "inner/most/2", "inner/199"] {
            let output = run(lazystore(&store).arg("cat").arg(format!("{name}/{inner}")));
            let expected = fs::read(path.join(inner)).expect("it reads");
            assert!(output.stdout == expected, "{name}/{inner}");
        }
    }
}

#[test]
fn a_mount_that_is_killed_comes_back_whole() {
    if !can_mount() {
        return;
    }
    let dir = tempfile::tempdir().expect("a folder");
    let store = dir.path().join("store");
    let path = dir.path().join("tree-0");
    tree(&path, 9);
    let output = run(lazystore(&store).arg("import").arg(&path));
    let name = base_name(String::from_utf8_lossy(&output.stdout).trim());
    let expected = walk(&path);
    for round in 0..rounds() / 2 {
        let mut mounted = Mounted::new(&mut lazystore(&store), &dir.path().join("mnt"));
        let image = mounted.path.join(&name);
        let reader = thread::spawn(move || {
            // It may see errors once the mount is dead, but never wrong bytes.
            std::panic::catch_unwind(|| walk(&image)).ok()
        });
        thread::sleep(delay(round, 60));
        mounted.running.child.kill().expect("ours");
        mounted.running.wait();
        if let Ok(Some(found)) = reader.join() {
            assert_same(&expected, &found);
        }
        wait_until("the unmount", || !is_mounted(&mounted.path));
    }
    let mounted = Mounted::new(&mut lazystore(&store), &dir.path().join("mnt"));
    assert_same(&expected, &walk(&mounted.path.join(&name)));
}

#[test]
fn a_mount_that_is_killed_while_its_cache_fills_leaves_only_what_is_right() {
    if !can_mount() {
        return;
    }
    let dir = tempfile::tempdir().expect("a folder");
    let (store, path) = (dir.path().join("store"), dir.path().join("tree-0"));
    tree(&path, 11);
    let output = run(lazystore(&store).arg("import").arg(&path));
    let name = base_name(String::from_utf8_lossy(&output.stdout).trim());
    let expected = walk(&path);
    let socket = dir.path().join("socket");
    let mut daemon = Running::start(
        lazystore(&store).arg("daemon").arg(format!("--listen=unix:{}", socket.display())),
    );
    daemon.wait_for_line("listening");
    let mount = || {
        let mut command = lazystore(Path::new("/nonexistent"));
        command.env("LAZYSTORE_STORE", format!("grpc+unix://{}", socket.display()));
        command.env("LAZYSTORE_CACHE_DIR", dir.path().join("cache"));
        Mounted::new(&mut command, &dir.path().join("mnt"))
    };
    for round in 0..rounds() {
        // From time to time from the beginning.
        if round % 4 == 0 && round > 0 {
            fs::remove_dir_all(dir.path().join("cache")).expect("ours");
        }
        let mut mounted = mount();
        let image = mounted.path.join(&name);
        let reader = thread::spawn(move || std::panic::catch_unwind(|| walk(&image)).ok());
        thread::sleep(delay(round, 250));
        mounted.running.child.kill().expect("ours");
        mounted.running.wait();
        if let Ok(Some(found)) = reader.join() {
            assert_same(&expected, &found);
        }
        wait_until("the unmount", || !is_mounted(&mounted.path));
    }
    let mounted = mount();
    assert_same(&expected, &walk(&mounted.path.join(&name)));
    mounted.unmount();
    // All of it is in the cache now.
    daemon.child.kill().expect("ours");
    daemon.wait();
    let mounted = mount();
    assert_same(&expected, &walk(&mounted.path.join(&name)));
}
