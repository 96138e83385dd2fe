//! How fast archives are hashed and taken in, each beside what it would cost at best, in one run.
//!
//! `cargo bench --bench nar [-- [--runs N] [--dir DIR] [WORK]...]`. Prints for each kind of work how fast ours is and
//! its speed by that of the yardstick: medians of paired runs, with all files in memory.
//!
//! * *hash*: the NAR hash of a tree in a local store, by `sha256sum` over the same archive, and by `openssl`, which
//!   uses the processor's instructions for that as we do;
//! * *ingest*: an archive into an empty local store, by copying it to the same disk and hashing it on the way; or, if it
//!   is compressed, by decompressing it and doing nothing with what comes.

#[path = "../tests/support/mod.rs"]
mod support;

use std::{
    fs::{self, File},
    io::{self, Read, Write},
    path::{Path, PathBuf},
    process::{Command, Stdio},
    sync::Arc,
    thread,
    time::Instant,
};

use lazystore::{
    castore::Node,
    ingest::{Progress, decompress, decompress_into, import_tree, ingest_nar, pipe},
    nix::Compression,
    render::{RenderNar, write_nar},
    service::{
        Stores,
        blob::{BlobService, backend::LocalBlobs},
        directory::{DirectoryService, backend::LocalDirectories},
        local::LocalStore,
        pathinfo::backend::LocalPathInfos,
    },
};
use sha2::{Digest as _, Sha256};
use support::files;
use tokio::runtime::Runtime;

const LARGE_BYTES: u64 = 512 << 20;
const SMALL_FILES: usize = 10_000;
const SMALL_LEN_MAX: u64 = 64 << 10;

struct Bench {
    folder: tempfile::TempDir,
    runtime: Runtime,
    only: Vec<String>,
    runs: usize,
}

/// A tree in a local store, and its archive as a file.
struct Tree {
    stores: Stores,
    node: Node,
    nar: PathBuf,
}

fn main() {
    let mut only = Vec::new();
    let (mut runs, mut dir) = (5, std::env::temp_dir());
    let mut args = std::env::args().skip(1).filter(|arg| arg != "--bench");
    while let Some(arg) = args.next() {
        match arg.as_str() {
            "--runs" => runs = args.next().and_then(|runs| runs.parse().ok()).expect("a number"),
            "--dir" => dir = args.next().expect("a folder").into(),
            _ => only.push(arg),
        }
    }
    let folder = tempfile::tempdir_in(dir).expect("a folder");
    let runtime = Runtime::new().expect("a runtime");
    let bench = Bench { folder, runtime, only, runs };
    println!("{:<28} {:<20} {:>8} {:>7}", "work", "by", "MB/s", "speed");
    let large = bench.tree("large", make_large);
    let small = bench.tree("small", make_small);
    for (name, tree) in [("hash, large files", &large), ("hash, small files", &small)] {
        bench.row(
            name,
            "sha256sum",
            tree.len(),
            || timed(|| run("sha256sum", &[], &tree.nar)),
            || timed(|| bench.hash(tree)),
        );
        let args = ["dgst", "-sha256"];
        bench.row(
            name,
            "openssl",
            tree.len(),
            || timed(|| run("openssl", &args, &tree.nar)),
            || timed(|| bench.hash(tree)),
        );
    }
    for (name, tree) in [("ingest, large files", &large), ("ingest, small files", &small)] {
        let copy = bench.folder.path().join("copy");
        bench.row(
            name,
            "copy and hash",
            tree.len(),
            || timed(|| copy_and_hash(&tree.nar, &copy)),
            || bench.ingest(Compression::None, &tree.nar),
        );
    }
    let programs =
        [(Compression::Zstd, &["zstd", "-q"][..]), (Compression::Xz, &["xz", "-1", "-T0"])];
    for (compression, program) in programs {
        for (name, tree) in [("large", &large), ("small", &small)] {
            bench.compressed(
                &format!("ingest {compression}, {name} files"),
                tree,
                compression,
                program,
            );
        }
    }
}

impl Tree {
    fn len(&self) -> u64 {
        fs::metadata(&self.nar).expect("it is there").len()
    }
}

impl Bench {
    fn stores(&self, name: &str) -> Stores {
        let store = LocalStore::open(&self.folder.path().join(name)).expect("it opens");
        let blobs: Arc<dyn BlobService> = Arc::new(LocalBlobs::new(store.clone()));
        let directories: Arc<dyn DirectoryService> = Arc::new(LocalDirectories::new(store.clone()));
        let nars = Arc::new(RenderNar { blobs: blobs.clone(), directories: directories.clone() });
        Stores { blobs, directories, path_infos: Arc::new(LocalPathInfos::new(store)), nars }
    }

    fn tree(&self, name: &str, make: fn(&Path)) -> Tree {
        let tree = self.folder.path().join(format!("{name}-tree"));
        fs::create_dir(&tree).expect("new");
        make(&tree);
        let stores = self.stores(&format!("{name}-store"));
        let progress = Progress::default();
        let import = import_tree(&tree, Some("x"), &stores, self.runtime.handle(), &progress);
        let node = import.expect("it imports").path_info.node;
        self.runtime.block_on(stores.blobs.sync()).expect("it syncs");
        let nar = self.folder.path().join(format!("{name}.nar"));
        let out = File::create(&nar).expect("new");
        let written = write_nar(&stores.blobs, &stores.directories, &node, out);
        self.runtime.block_on(written).expect("it renders");
        fs::remove_dir_all(tree).expect("ours");
        Tree { stores, node, nar }
    }

    fn is_wanted(&self, work: &str) -> bool {
        self.only.is_empty() || self.only.iter().any(|word| work.contains(word))
    }

    /// One row: how many times as long the yardstick takes as ours, which makes `len` bytes of archive. Both return how
    /// long they took, in seconds.
    fn row(
        &self,
        work: &str,
        by: &str,
        len: u64,
        yardstick: impl Fn() -> f64,
        ours: impl Fn() -> f64,
    ) {
        if !self.is_wanted(work) {
            return;
        }
        yardstick();
        ours();
        self.remove_ingested();
        let mut times = Vec::new();
        let mut speeds = Vec::new();
        for _ in 0..self.runs {
            let best = yardstick();
            let time = ours();
            self.remove_ingested();
            times.push(time);
            speeds.push(best / time);
        }
        let rate = len as f64 / 1e6 / median(&mut times);
        println!("{work:<28} {by:<20} {rate:>8.0} {:>7.2}", median(&mut speeds));
    }

    fn hash(&self, tree: &Tree) {
        let nar = self.runtime.block_on(tree.stores.nars.calculate_nar(&tree.node));
        assert_eq!(nar.expect("it renders").size, tree.len());
    }

    /// Into a new store, whose making is not a part of it. Returns how long it took, in seconds.
    fn ingest(&self, compression: Compression, file: &Path) -> f64 {
        let stores = self.stores("ingested");
        let (runtime, input) = (self.runtime.handle(), File::open(file).expect("it is there"));
        let (blobs, directories) = (&stores.blobs, &*stores.directories);
        let start = Instant::now();
        let ingested = match compression {
            Compression::None => ingest_nar(input, None, blobs, directories, runtime),
            _ => thread::scope(|scope| {
                let (out, archive) = pipe();
                scope.spawn(move || decompress_into(compression, input, out));
                ingest_nar(archive, None, blobs, directories, runtime)
            }),
        };
        let time = start.elapsed().as_secs_f64();
        ingested.expect("it is an archive");
        time
    }

    /// What an ingest has made, which is not a part of it.
    fn remove_ingested(&self) {
        match fs::remove_dir_all(self.folder.path().join("ingested")) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => panic!("{error}"),
            Ok(()) | Err(_) => {}
        }
    }

    /// One row, of the archive of `tree` compressed by the usual program.
    fn compressed(&self, work: &str, tree: &Tree, compression: Compression, program: &[&str]) {
        if !self.is_wanted(work) {
            return;
        }
        let file = self.folder.path().join("compressed");
        let out = File::create(&file).expect("new");
        let mut command = Command::new(program[0]);
        let status = command.args(&program[1..]).arg("-c").arg(&tree.nar).stdout(out).status();
        assert!(status.is_ok_and(|status| status.success()), "{} is needed", program[0]);
        let alone = || timed(|| decompress_alone(compression, &file));
        self.row(work, "decompressing alone", tree.len(), alone, || {
            self.ingest(compression, &file)
        });
    }
}

fn timed(work: impl FnOnce()) -> f64 {
    let start = Instant::now();
    work();
    start.elapsed().as_secs_f64()
}

fn median(values: &mut [f64]) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

fn run(program: &str, args: &[&str], file: &Path) {
    let status = Command::new(program).args(args).arg(file).stdout(Stdio::null()).status();
    assert!(status.is_ok_and(|status| status.success()), "{program} is needed");
}

fn copy_and_hash(from: &Path, to: &Path) {
    let (mut from, mut to) = (File::open(from).expect("there"), File::create(to).expect("new"));
    let (mut sha256, mut buffer) = (Sha256::new(), vec![0; 256 << 10]);
    loop {
        match from.read(&mut buffer).expect("it reads") {
            0 => break,
            len => {
                sha256.update(&buffer[..len]);
                to.write_all(&buffer[..len]).expect("there is room");
            }
        }
    }
    std::hint::black_box(sha256.finalize());
}

fn decompress_alone(compression: Compression, file: &Path) {
    let input = File::open(file).expect("it is there");
    let mut archive = decompress(compression, input).expect("it begins");
    let mut buffer = vec![0; 256 << 10];
    while archive.read(&mut buffer).expect("it is whole") > 0 {}
}

/// Files of this machine, in order of their names, without those that were installed twice.
fn sources(folder: &str, wanted: impl Fn(u64) -> bool) -> impl Iterator<Item = PathBuf> {
    let mut found = files(Path::new(folder));
    found.sort();
    found.into_iter().filter(move |file| fs::metadata(file).is_ok_and(|file| wanted(file.len())))
}

fn make_large(tree: &Path) {
    let mut left = LARGE_BYTES;
    for (number, source) in sources("/usr/lib", |len| len > 1 << 20).enumerate() {
        left -= fs::copy(source, tree.join(number.to_string())).expect("it copies").min(left);
        if left == 0 {
            return;
        }
    }
    // Machines with few libraries get noise besides.
    fs::write(tree.join("rest"), support::noise(1, left as usize)).expect("there is room");
}

fn make_small(tree: &Path) {
    let mut number = 0;
    for folder in ["/usr/include", "/usr/lib/python3", "/usr/share", "/usr/lib"] {
        for source in sources(folder, |len| len <= SMALL_LEN_MAX) {
            let folder = tree.join((number / 100).to_string());
            fs::create_dir_all(&folder).expect("new");
            match fs::read(source) {
                Ok(contents) => fs::write(folder.join(number.to_string()), contents),
                Err(error) if error.kind() == io::ErrorKind::PermissionDenied => continue,
                Err(error) => Err(error),
            }
            .expect("it copies");
            number += 1;
            if number == SMALL_FILES {
                return;
            }
        }
    }
}
