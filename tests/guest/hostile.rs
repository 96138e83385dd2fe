//! Guests that send what they like, take back what they gave, and vanish.

use std::{
    fs,
    os::{fd::AsRawFd as _, unix::net::UnixListener},
    path::{Path, PathBuf},
    process::Command,
    time::{Duration, Instant},
};

use crate::{
    frontend::{
        BUFFER_LEN, BUFFERS, Descriptor, Guest, INDIRECT, MEMORY_LEN, NEXT, PRIORITY, QUEUE_LEN,
        REQUESTS, WRITE, encode, message, parse, read_message,
    },
    support::{Running, import, lazystore, wait_until},
};

const TREE_FILES: usize = 50;

struct Served {
    running: Running,
    socket: PathBuf,
    tree: String,
    _folder: tempfile::TempDir,
}

/// A small tree, served to guests.
fn serve() -> Served {
    let folder = tempfile::tempdir().expect("a folder");
    let (store, socket) = (folder.path().join("store"), folder.path().join("socket"));
    let tree = import(&store, &make_tree(folder.path()));
    let mut running = Running::start(lazystore(&store).arg("virtiofs").arg(&socket));
    running.wait_for_line("waiting for guests");
    Served { running, socket, tree, _folder: folder }
}

pub fn make_tree(folder: &Path) -> PathBuf {
    let tree = folder.join("tree");
    fs::create_dir(&tree).expect("new");
    fs::write(tree.join("big"), vec![7; 3_000_000]).expect("new");
    for number in 0..TREE_FILES {
        fs::write(tree.join(format!("{number}")), format!("contents {number}")).expect("new");
    }
    tree
}

impl Served {
    /// A well-behaved guest gets what it asks for.
    fn check(&self) {
        let mut guest = Guest::connect(&self.socket);
        guest.greet();
        let (tree, _) = guest.lookup(1, &self.tree).expect("it is there");
        for number in [3, 48] {
            let (file, size) = guest.lookup(tree, &format!("{number}")).expect("it is there");
            let contents = guest.ask(&read_message(9, file, 0, 4096), 8192).expect("it is read");
            assert_eq!(contents, format!("contents {number}").into_bytes());
            assert_eq!(size, contents.len() as u64);
        }
        let (big, _) = guest.lookup(tree, "big").expect("it is there");
        assert_eq!(guest.ask(&read_message(9, big, 2_999_990, 4096), 8192), Ok(vec![7; 10]));
        assert_eq!(guest.lookup(tree, "absent").map(|(ino, _)| ino), Ok(0), "known as absent");
        assert_eq!(guest.lookup(1, "absent"), Err(libc::ENOENT));
    }

    fn count(&self, what: &str) -> usize {
        let path = format!("/proc/{}/{what}", self.running.child.id());
        fs::read_dir(path).expect("it runs").count()
    }

    /// The memory that it holds, in bytes.
    fn memory(&self) -> u64 {
        let status = fs::read_to_string(format!("/proc/{}/status", self.running.child.id()));
        let status = status.expect("it runs");
        let line = status.lines().find(|line| line.starts_with("RssAnon:")).expect("a line");
        let kib = line.split_ascii_whitespace().nth(1).and_then(|kib| kib.parse::<u64>().ok());
        kib.expect("a number") << 10
    }
}

/// A generator that needs no more than its seed.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    fn below(&mut self, end: u64) -> u64 {
        self.next() % end
    }

    fn one_of<T: Copy>(&mut self, choices: &[T]) -> T {
        choices[self.below(choices.len() as u64) as usize]
    }
}

/// A message whose parts are mostly right.
fn odd_message(random: &mut Random, known: &[u64]) -> Vec<u8> {
    let opcode = match random.below(8) {
        0 => random.next() as u32,
        _ => random.below(54) as u32,
    };
    let nodeid = match random.below(4) {
        0 => random.next(),
        _ => random.one_of(known),
    };
    let mut fields = vec![0; random.one_of(&[0, 4, 8, 16, 40, 64, 300, 5000])];
    for _ in 0..random.below(10) {
        if !fields.is_empty() {
            let at = random.below(fields.len() as u64) as usize;
            fields[at] = random.one_of(&[0, 1, 0xff, b'.', b'/', b'3', random.0 as u8]);
        }
    }
    let mut message = message(opcode, random.below(50), nodeid, &fields);
    if random.below(8) == 0 {
        message[random.below(40) as usize] ^= random.next() as u8;
    }
    if random.below(16) == 0 {
        message.truncate(random.below(60) as usize);
    }
    message
}

fn odd_descriptor(random: &mut Random) -> Descriptor {
    let address = match random.below(8) {
        0 => random.next(),
        1 => MEMORY_LEN - random.below(64),
        2 => u64::MAX - random.below(64),
        _ => BUFFERS + random.below(16) * BUFFER_LEN,
    };
    let len = match random.below(4) {
        0 => random.next() as u32,
        1 => u32::MAX,
        _ => random.below(2 * BUFFER_LEN) as u32,
    };
    let flags = random.one_of(&[0, NEXT, WRITE, NEXT | WRITE, INDIRECT, INDIRECT | NEXT, 0xffff]);
    (address, len, flags, random.below(70) as u16)
}

/// Does a hundred odd things.
fn misbehave(guest: &mut Guest, random: &mut Random, known: &[u64]) {
    for _ in 0..100 {
        let queue = random.one_of(&[PRIORITY, REQUESTS, REQUESTS, REQUESTS]);
        match random.below(10) {
            0..=5 => {
                let message = odd_message(random, known);
                let room = random.one_of(&[0, 8, 16, 17, 100, 4096, 100_000]);
                guest.send(queue, random.below(32) as u16, &message, room);
            }
            6 | 7 => {
                for _ in 0..5 {
                    let index = random.below(u64::from(QUEUE_LEN)) as u16;
                    guest.describe(queue, index, odd_descriptor(random));
                }
                guest.offer(queue, random.below(80) as u16);
            }
            8 => {
                // A table elsewhere, that may point to itself or be cut short.
                let table = BUFFERS + 20 * BUFFER_LEN;
                for entry in 0..8 {
                    let (address, len, flags, next) = odd_descriptor(random);
                    guest.write(table + 16 * entry, &encode(address, len, flags, next % 9));
                }
                let len = random.one_of(&[128, 16, 0, 120, u32::MAX]);
                guest.describe(queue, 0, (table, len, INDIRECT, 0));
                guest.offer(queue, 0);
            }
            _ => guest.publish(queue, random.next() as u16),
        }
    }
}

#[test]
fn no_descriptor_and_no_message_does_any_harm() {
    let served = serve();
    served.check();
    std::thread::sleep(Duration::from_millis(500));
    let threads = served.count("task");
    let limit = std::env::var("LAZYSTORE_FUZZ_SECONDS").ok().and_then(|text| text.parse().ok());
    let limit = Duration::from_secs(limit.unwrap_or(8));
    let (start, mut guests) = (Instant::now(), 0);
    while start.elapsed() < limit {
        guests += 1;
        let mut random = Random(guests);
        let mut guest = Guest::connect(&served.socket);
        guest.greet();
        let (tree, _) = guest.lookup(1, &served.tree).expect("it is there");
        let (file, _) = guest.lookup(tree, "big").expect("it is there");
        for _ in 0..20 {
            misbehave(&mut guest, &mut random, &[1, tree, file]);
        }
        drop(guest);
        if guests % 8 == 0 {
            served.check();
        }
    }
    served.check();
    wait_until("no thread of theirs is left", || served.count("task") == threads);
    let memory = served.memory();
    eprintln!("{guests} guests did 2,000 odd things each; {} MiB are held", memory >> 20);
    assert!(memory < 200 << 20, "{memory} bytes are held");
}

#[test]
fn guests_that_vanish_leave_nothing_behind() {
    let served = serve();
    served.check();
    let counts = |served: &Served| (served.count("fd"), served.count("task"));
    // What is there once for all guests is there now, and the first one is gone.
    std::thread::sleep(Duration::from_millis(500));
    let before = counts(&served);
    for _ in 0..20 {
        let mut guest = Guest::connect(&served.socket);
        guest.greet();
        let (tree, _) = guest.lookup(1, &served.tree).expect("it is there");
        let (file, _) = guest.lookup(tree, "big").expect("it is there");
        for slot in 0..16 {
            guest.send(REQUESTS, slot, &read_message(u64::from(slot), file, 0, 100_000), 110_000);
        }
    }
    std::thread::sleep(Duration::from_secs(2));
    let fd = std::process::Command::new("ls")
        .arg("-l")
        .arg(format!("/proc/{}/fd", served.running.child.id()))
        .output()
        .expect("x");
    eprintln!("{before:?} {:?} {}", counts(&served), String::from_utf8_lossy(&fd.stdout));
    wait_until("all is let go of", || counts(&served) == before);
    served.check();
}

#[test]
fn a_reply_that_has_no_room_is_an_error() {
    let served = serve();
    let mut guest = Guest::connect(&served.socket);
    guest.greet();
    let (tree, _) = guest.lookup(1, &served.tree).expect("it is there");
    let (file, _) = guest.lookup(tree, "big").expect("it is there");
    // A read is cut to its room, as one that ends early is.
    assert_eq!(guest.ask(&read_message(5, file, 0, 4096), 116), Ok(vec![7; 100]));
    let name = b"3\0";
    assert_eq!(guest.ask(&message(1, 6, tree, name), 100), Err(libc::EIO));
    guest.send(REQUESTS, 1, &message(1, 7, tree, name), 15);
    let (slot, reply) = guest.receive(REQUESTS, crate::support::SOON).expect("it comes back");
    assert_eq!((slot, reply.len()), (1, 0));
}

#[test]
fn a_guest_is_shown_what_it_may_see_and_what_it_reads_is_logged() {
    let folder = tempfile::tempdir().expect("a folder");
    let (store, socket) = (folder.path().join("store"), folder.path().join("socket"));
    let shown = import(&store, &make_tree(folder.path()));
    let secret = folder.path().join("secret");
    fs::write(&secret, "hidden").expect("new");
    let hidden = import(&store, &secret);
    let log = folder.path().join("log");
    let mut command = lazystore(&store);
    command.args(["virtiofs", "--list-root", "--only", &shown, "--access-log"]).arg(&log);
    let mut running = Running::start(command.arg("--").arg(&socket));
    running.wait_for_line("waiting for guests");
    let mut guest = Guest::connect(&socket);
    guest.greet();
    assert_eq!(guest.lookup(1, &hidden), Err(libc::ENOENT));
    let (tree, _) = guest.lookup(1, &shown).expect("it is visible");
    let (file, _) = guest.lookup(tree, "3").expect("it is there");
    let contents = guest.ask(&read_message(4, file, 0, 4096), 8192).expect("it is read");
    assert_eq!(contents, b"contents 3");
    // READDIR of the root.
    let listing = guest.ask(&list_message(5, 1), 8192).expect("it is listed");
    let listing = String::from_utf8_lossy(&listing);
    assert!(listing.contains(&shown) && !listing.contains(&hidden), "{listing}");
    drop(guest);
    running.signal(rustix::process::Signal::TERM);
    assert!(running.wait(), "{:?}", running.log);
    let log = fs::read_to_string(log).expect("it is written");
    assert!(log.contains(&shown) && !log.contains(&hidden), "{log}");
}

#[test]
fn a_socket_that_systemd_passes_is_served() {
    let folder = tempfile::tempdir().expect("a folder");
    let (store, socket) = (folder.path().join("store"), folder.path().join("socket"));
    let tree = import(&store, &make_tree(folder.path()));
    let listener = UnixListener::bind(&socket).expect("a socket");
    rustix::io::fcntl_setfd(&listener, rustix::io::FdFlags::empty()).expect("it is open");
    let pass =
        format!("exec 3<&{}; export LISTEN_FDS=1 LISTEN_PID=$$; exec \"$@\"", listener.as_raw_fd());
    let command = lazystore(&store);
    let mut passing = Command::new("bash");
    passing.args(["-c", &pass, "bash"]).arg(command.get_program()).arg("virtiofs");
    for (name, value) in command.get_envs() {
        match value {
            Some(value) => passing.env(name, value),
            None => passing.env_remove(name),
        };
    }
    let mut running = Running::start(&mut passing);
    running.wait_for_line("waiting for guests");
    let mut guest = Guest::connect(&socket);
    guest.greet();
    guest.lookup(1, &tree).expect("it is there");
    drop(guest);
    running.signal(rustix::process::Signal::TERM);
    assert!(running.wait(), "{:?}", running.log);
    assert!(socket.exists(), "it is not ours to remove");
}

/// The message to list a directory from its beginning.
fn list_message(unique: u64, ino: u64) -> Vec<u8> {
    let mut message = read_message(unique, ino, 0, 4096);
    message[4..8].copy_from_slice(&28_u32.to_ne_bytes());
    message
}

/// A store whose daemon stands still: what is asked of it waits.
pub fn serve_from_afar(folder: &Path) -> (Running, Running, PathBuf, String) {
    let (store, socket) = (folder.join("store"), folder.join("socket"));
    let tree = import(&store, &make_tree(folder));
    let far = folder.join("far");
    let listen = format!("unix:{}", far.display());
    let mut daemon = Running::start(lazystore(&store).args(["daemon", "--listen", &listen]));
    daemon.wait_for_line("listening");
    let mut served = lazystore(&folder.join("none"));
    served.args(["--store", &format!("grpc+unix://{}?timeout=20", far.display()), "--cache-dir"]);
    served.arg(folder.join("cache")).arg("virtiofs").arg(&socket);
    let mut running = Running::start(&mut served);
    running.wait_for_line("waiting for guests");
    (daemon, running, socket, tree)
}

#[test]
fn who_waits_for_a_far_store_can_be_interrupted_stopped_and_killed() {
    let folder = tempfile::tempdir().expect("a folder");
    let (daemon, running, socket, tree) = serve_from_afar(folder.path());
    let mut guest = Guest::connect(&socket);
    guest.greet();
    let (tree, _) = guest.lookup(1, &tree).expect("it is there");
    let (small, _) = guest.lookup(tree, "3").expect("it is there");
    let (big, _) = guest.lookup(tree, "big").expect("it is there");
    let contents = guest.ask(&read_message(4, small, 0, 4096), 8192).expect("it is read");
    assert_eq!(contents, b"contents 3");
    daemon.pause();

    guest.send(REQUESTS, 1, &read_message(77, big, 0, 100_000), 110_000);
    assert!(guest.receive(REQUESTS, Duration::from_millis(300)).is_none(), "it waits");
    // What is at hand is served meanwhile.
    guest.send(REQUESTS, 2, &read_message(78, small, 0, 4096), 8192);
    let (slot, reply) = guest.receive(REQUESTS, crate::support::SOON).expect("it is here");
    assert_eq!((slot, parse(&reply)), (2, Ok(contents)));
    guest.send(PRIORITY, 0, &message(36, 79, 0, &77_u64.to_ne_bytes()), 0);
    let (slot, reply) = guest.receive(REQUESTS, Duration::from_secs(2)).expect("it is interrupted");
    assert_eq!((slot, parse(&reply)), (1, Err(libc::EINTR)));

    // A monitor that pauses its guest gets every request back.
    guest.send(REQUESTS, 3, &read_message(80, big, 200_000, 100_000), 110_000);
    assert!(guest.receive(REQUESTS, Duration::from_millis(300)).is_none(), "it waits");
    assert_eq!(guest.stop(REQUESTS), 8, "as many as were offered");
    let (slot, reply) = guest.receive(REQUESTS, Duration::ZERO).expect("it came back before");
    assert_eq!((slot, parse(&reply)), (3, Err(libc::EINTR)));
    drop(guest);

    // One that is gone in the middle of a read is not waited for.
    let mut guest = Guest::connect(&socket);
    guest.greet();
    guest.send(REQUESTS, 1, &message(1, 81, 1, b"00000000000000000000000000000000-x\0"), 4096);
    assert!(guest.receive(REQUESTS, Duration::from_millis(300)).is_none(), "it waits");
    drop(guest);
    running.signal(rustix::process::Signal::TERM);
    let (start, mut running) = (Instant::now(), running);
    assert!(running.wait(), "{:?}", running.log);
    assert!(start.elapsed() < Duration::from_secs(5), "{:?}", start.elapsed());
    daemon.signal(rustix::process::Signal::CONT);
}
