//! Several daemons over one bucket and one table: what is acknowledged stays, whoever is killed meanwhile.

use std::{
    net::TcpListener,
    path::Path,
    process::Command,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicU32, AtomicUsize, Ordering::Relaxed},
    },
    time::{Duration, Instant},
};

use bytes::Bytes;
use futures::TryStreamExt as _;
use lazystore::{
    castore::{Digest, Directory, Name, Node, SizeRule},
    nix::PathInfo,
    service::{
        Error, Result, Stores,
        blob::{backend::GrpcBlobs, layer::VerifiedBlobs, read_all},
        directory::backend::GrpcDirectories,
        grpc::{Dialect, GrpcAddress, GrpcChannel, GrpcOptions},
        pathinfo::backend::GrpcPathInfos,
    },
};
use tempfile::TempDir;

use crate::{
    bigtable::path_info,
    bigtable_emulator::{self, Emulator},
    s3::s3,
    stacks,
    support::{
        Mounted, Running, assert_same, can_mount, import, lazystore, noise, run, sample_tree, walk,
    },
};

const DAEMONS: usize = 3;
const WRITERS: u32 = 8;
const READERS: u32 = 8;
/// How long the daemons are shot at, unless `LAZYSTORE_FLEET_SECONDS` says otherwise.
const SECONDS: u64 = 20;
/// How long somebody pauses who was refused.
const PAUSE: Duration = Duration::from_millis(50);
/// How long a client tries a call.
const DEADLINE: Duration = Duration::from_secs(10);

/// One daemon over `blobs` and the table of an emulator.
pub fn daemon(dir: &Path, port: u16, blobs: &str, emulator: &Emulator) -> Running {
    let mut command = on_table(lazystore(dir), blobs, emulator);
    // Each must see at once what another has stored.
    command.args(["--absent-ttl", "0", "daemon"]).arg(format!("--listen=127.0.0.1:{port}"));
    let mut running = Running::start(&mut command);
    running.wait_for_line("listening");
    running
}

/// Makes a command use `blobs`, and the table for the rest.
fn on_table(mut command: Command, blobs: &str, emulator: &Emulator) -> Command {
    let table = bigtable_emulator::address();
    command
        .env("BIGTABLE_EMULATOR_HOST", emulator.address.to_string())
        .args(["--blob-service-addr", blobs])
        .args(["--directory-service-addr", &table])
        .args(["--path-info-service-addr", &table]);
    command
}

pub fn free_port() -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").expect("it binds");
    listener.local_addr().expect("it is bound").port()
}

/// A client of all daemons, which begins with one of them.
pub fn client(ports: &[u16], first: u32) -> Stores {
    let mut urls: Vec<_> = ports.iter().map(|port| format!("http://127.0.0.1:{port}")).collect();
    urls.rotate_left(first as usize % ports.len());
    let options =
        GrpcOptions { dialect: Some(Dialect::Tvix), deadline: DEADLINE, ..Default::default() };
    let channel = GrpcChannel::connect(&GrpcAddress::Several(urls), options).expect("an address");
    let path_infos = Arc::new(GrpcPathInfos::new(channel.clone()));
    Stores {
        blobs: Arc::new(VerifiedBlobs::new("fleet", Arc::new(GrpcBlobs::new(channel.clone())))),
        directories: Arc::new(GrpcDirectories::new(channel)),
        path_infos: path_infos.clone(),
        nars: path_infos,
    }
}

/// What one path has: everything follows from its number.
struct Thing {
    contents: Bytes,
    directories: [Arc<Directory>; 2],
    info: PathInfo,
}

impl Thing {
    fn new(number: u32) -> Self {
        let len = if number.is_multiple_of(16) { 700_000 } else { 100 + number as usize % 5000 };
        let contents = Bytes::from(noise(u64::from(number), len));
        let size = len as u64;
        let file = Node::File { digest: Digest::of(&contents), size, executable: false };
        let over = |name: &str, node| {
            let mut builder = Directory::builder();
            builder.add(Name::try_from(name).expect("legal"), node);
            Arc::new(builder.build().expect("legal"))
        };
        let inner = over("file", file);
        let root = over("inner", inner.node(SizeRule::Documented));
        let info = PathInfo { node: root.node(SizeRule::Documented), ..path_info(number) };
        Thing { contents, directories: [inner, root], info }
    }

    async fn put(&self, stores: &Stores) -> Result<()> {
        stores.blobs.put(self.contents.clone()).await?;
        let mut putter = stores.directories.put_closure().await?;
        for directory in &self.directories {
            putter.put(directory.clone()).await?;
        }
        putter.finish().await?;
        stores.path_infos.put(self.info.clone()).await.map(drop)
    }

    /// Reads it all. `false` if something of it is absent.
    async fn is_there(&self, stores: &Stores) -> Result<bool> {
        match stores.path_infos.get(&self.info.store_path.digest()).await? {
            Some(info) => assert_eq!(info, self.info, "read wrong"),
            None => return Ok(false),
        }
        let [inner, root] = &self.directories;
        let Some(closure) = stores.directories.get_closure(&root.digest()).await? else {
            return Ok(false);
        };
        let closure: Vec<_> = closure.try_collect().await?;
        assert_eq!(closure, [root.clone(), inner.clone()], "read wrong");
        let digest = Digest::of(&self.contents);
        let Some(contents) = read_all(&*stores.blobs, &digest, self.contents.len()).await? else {
            return Ok(false);
        };
        assert!(contents == self.contents, "read wrong");
        Ok(true)
    }
}

/// Where the daemons are down that is all right; everything else is not.
fn must_be_weather(error: &Error) {
    let is_weather = matches!(error, Error::Unavailable { .. } | Error::TimedOut { .. });
    assert!(is_weather, "no weather: {error}");
}

#[derive(Default)]
struct Run {
    over: AtomicBool,
    /// The numbers of the things that were acknowledged.
    acknowledged: Mutex<Vec<u32>>,
    next: AtomicU32,
    reads: AtomicUsize,
    failures: AtomicUsize,
}

impl Run {
    async fn write(&self, stores: Stores) {
        while !self.over.load(Relaxed) {
            let number = self.next.fetch_add(1, Relaxed);
            let thing = Thing::new(number);
            // It may be known as absent before it is there.
            let early = stores.path_infos.get(&thing.info.store_path.digest()).await;
            assert!(early.is_err() || early.is_ok_and(|found| found.is_none()), "out of nowhere");
            while !self.over.load(Relaxed) {
                match thing.put(&stores).await {
                    Ok(()) => {
                        self.acknowledged.lock().expect("no panic").push(number);
                        break;
                    }
                    Err(error) => {
                        must_be_weather(&error);
                        self.failures.fetch_add(1, Relaxed);
                        // Who is refused at once must let others run, those that look for a daemon among them.
                        tokio::time::sleep(PAUSE).await;
                    }
                }
            }
        }
    }

    async fn read(&self, stores: Stores, mut turn: usize) {
        while !self.over.load(Relaxed) {
            let number = {
                let acknowledged = self.acknowledged.lock().expect("no panic");
                // The last one, and any other, in turn.
                let len = acknowledged.len();
                let index = if turn.is_multiple_of(2) {
                    len.wrapping_sub(1)
                } else {
                    turn * 7919 % len.max(1)
                };
                acknowledged.get(index).copied()
            };
            turn += 1;
            let Some(number) = number else {
                tokio::time::sleep(Duration::from_millis(20)).await;
                continue;
            };
            match Thing::new(number).is_there(&stores).await {
                Ok(true) => drop(self.reads.fetch_add(1, Relaxed)),
                Ok(false) => panic!("{number} was acknowledged, and is lost"),
                Err(error) => {
                    must_be_weather(&error);
                    tokio::time::sleep(PAUSE).await;
                }
            }
        }
    }
}

/// Kills daemons and starts them again until it is over. Returns how many died.
fn shoot(daemons: &mut [Option<Running>], start: impl Fn(usize) -> Running, end: Instant) -> usize {
    let (mut dead, mut dice) = (0, 1_u64);
    while Instant::now() < end {
        dice = dice.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        let random = (dice >> 33) as usize;
        std::thread::sleep(Duration::from_millis(100 + random as u64 % 700));
        let index = random / 1000 % daemons.len();
        // Dropping it is SIGKILL. It stays away until it is drawn again, so that two or all may be away.
        match daemons[index].take() {
            Some(running) => {
                drop(running);
                dead += 1;
            }
            None => daemons[index] = Some(start(index)),
        }
    }
    dead
}

#[test]
fn daemons_that_are_killed_under_load_lose_nothing_that_was_acknowledged() {
    let (Some(emulator), Some(s3)) = (Emulator::start(), s3()) else { return };
    let seconds = std::env::var("LAZYSTORE_FLEET_SECONDS").ok().and_then(|s| s.parse().ok());
    let seconds = seconds.unwrap_or(SECONDS);
    let end = Instant::now() + Duration::from_secs(seconds);
    let folder = TempDir::new().expect("a folder");
    let ports: Vec<u16> = (0..DAEMONS).map(|_| free_port()).collect();
    let blobs = s3.store();
    let start = |index: usize| daemon(folder.path(), ports[index], &blobs, &emulator);
    let mut daemons: Vec<_> = (0..DAEMONS).map(|index| Some(start(index))).collect();

    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    let state = Arc::<Run>::default();
    let mut tasks = Vec::new();
    runtime.block_on(async {
        for number in 0..WRITERS {
            let (state, stores) = (state.clone(), client(&ports, number));
            tasks.push(tokio::spawn(async move { state.write(stores).await }));
        }
        for number in 0..READERS {
            let (state, stores) = (state.clone(), client(&ports, number));
            tasks.push(tokio::spawn(async move { state.read(stores, number as usize).await }));
        }
    });
    let dead = shoot(&mut daemons, start, end);
    state.over.store(true, Relaxed);
    for (index, daemon) in daemons.iter_mut().enumerate() {
        daemon.get_or_insert_with(|| start(index));
    }
    runtime.block_on(async {
        for task in tasks {
            task.await.expect("nobody read anything wrong, and nothing was lost");
        }
        let stores = client(&ports, 0);
        let acknowledged = state.acknowledged.lock().expect("no panic").clone();
        for number in &acknowledged {
            let is_there = Thing::new(*number).is_there(&stores).await;
            assert!(is_there.expect("all daemons run"), "{number} was acknowledged, and is lost");
        }
        let listed: Vec<_> = stacks::bigtable(emulator.options())
            .path_infos
            .list()
            .try_collect()
            .await
            .expect("it lists");
        let (writes, reads) = (acknowledged.len(), state.reads.load(Relaxed));
        let failures = state.failures.load(Relaxed);
        eprintln!(
            "{dead} daemons killed, {writes} paths acknowledged ({} in the table), {failures} puts failed, {reads} reads",
            listed.len()
        );
        assert!(listed.len() >= writes);
        // It went on to the end, and not only at first.
        let least = seconds as usize / 2;
        assert!(dead >= least / 2 && writes >= least && reads >= least, "too little happened");
    });
}

#[test]
fn a_tree_is_imported_through_a_daemon_over_a_table_and_mounted() {
    let Some(emulator) = Emulator::start() else { return };
    if !can_mount() {
        return;
    }
    let folder = TempDir::new().expect("a folder");
    let path = |name: &str| folder.path().join(name);
    sample_tree(&path("tree"));
    let port = free_port();
    let blobs = format!("local://{}", path("blobs").display());
    let _daemon = daemon(&path("state"), port, &blobs, &emulator);
    let through = |dir: &str| {
        let mut command = lazystore(&path(dir));
        command.env("LAZYSTORE_STORE", format!("grpc+http://127.0.0.1:{port}"));
        command
    };
    let output = run(through("client").arg("import").arg(path("tree")));
    let printed = String::from_utf8(output.stdout).expect("a store path is ASCII");
    let name = printed.trim_end().strip_prefix("/nix/store/").expect("a store path").to_owned();
    // The same store path as a store of its own computes.
    assert_eq!(name, import(&path("local"), &path("tree")));

    let expected = walk(&path("tree"));
    let mounted = Mounted::new(&mut through("mount"), &path("through"));
    assert_same(&expected, &walk(&mounted.path.join(&name)));
    mounted.unmount();
    // And without a daemon.
    let mut command = on_table(lazystore(&path("direct")), &blobs, &emulator);
    let mounted = Mounted::new(&mut command, &path("beside"));
    assert_same(&expected, &walk(&mounted.path.join(&name)));
    mounted.unmount();
}
