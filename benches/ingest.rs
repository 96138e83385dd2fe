//! What it costs to take an archive into a store, beside what it would cost to do less with it: side by side in one run.
//!
//! `cargo bench --bench ingest [-- [--runs N] [--dir DIR]]`. Prints, for each kind of archive, medians of paired runs:
//!
//! * *none*: an archive in a file goes into a store directory and to the disk, against copying the file, with its
//!   SHA-256 computed on the way, to the disk;
//! * *zstd*, *xz*: a path is fetched from a binary cache on this machine, against decompressing the same file to nowhere.

#[path = "../tests/support/made_cache.rs"]
mod made_cache;
#[path = "../tests/support/web.rs"]
mod web;

use std::{
    env, fs,
    fs::File,
    io::{self, Read as _, Write as _},
    path::{Path, PathBuf},
    sync::Arc,
    time::{Duration, Instant},
};

use lazystore::{
    compose::{Addresses, open},
    ingest::{decompress, ingest_nar},
    nix::{Compression, nar::NarWriter},
    service::{
        blob::{BlobService, backend::LocalBlobs, layer::Verify},
        directory::{DirectoryService, backend::LocalDirectories},
        local::LocalStore,
    },
};
use made_cache::{Made, address, serve_info};
use sha2::{Digest as _, Sha256};
use tokio::runtime::Runtime;
use web::HttpServer;

const PIECE_LEN: usize = 256 << 10;

/// An archive of directories of 100 files each: as many files of so many bytes as come to `total`. Its bytes take half
/// of their room if compressed.
fn archive(total: usize, file_len: usize) -> Vec<u8> {
    let files = total / file_len;
    let mut nar = NarWriter::new(Vec::with_capacity(total + files * 300)).expect("memory");
    nar.begin_directory().expect("in order");
    let mut contents = vec![0; file_len];
    for directory in 0..files.div_ceil(100) {
        nar.entry(format!("{directory:06}").as_bytes()).expect("sorted");
        nar.begin_directory().expect("in order");
        for file in 0..100.min(files - directory * 100) {
            nar.entry(format!("{file:02}").as_bytes()).expect("sorted");
            let seed = ((directory * 100 + file) as u64).to_le_bytes();
            blake3::Hasher::new().update(&seed).finalize_xof().fill(&mut contents);
            contents
                .iter_mut()
                .for_each(|byte| *byte = b"0123456789abcdef"[usize::from(*byte) >> 4]);
            nar.begin_file(false, file_len as u64).expect("in order");
            nar.contents(&contents).expect("as announced");
            nar.end_file().expect("complete");
        }
        nar.end_directory().expect("in order");
    }
    nar.end_directory().expect("in order");
    nar.finish().expect("complete")
}

fn copy_and_hash(from: &Path, to: &Path) -> Duration {
    let began = Instant::now();
    let mut from = File::open(from).expect("it is there");
    let mut out = File::create(to).expect("it can be made");
    let (mut hasher, mut piece) = (Sha256::new(), vec![0; PIECE_LEN]);
    loop {
        let len = from.read(&mut piece).expect("it can be read");
        if len == 0 {
            break;
        }
        hasher.update(&piece[..len]);
        out.write_all(&piece[..len]).expect("it can be written");
    }
    out.sync_all().expect("it can be synced");
    std::hint::black_box(hasher.finalize());
    let took = began.elapsed();
    fs::remove_file(to).expect("it was written");
    took
}

fn ingest(from: &Path, dir: &Path, runtime: &Runtime) -> Duration {
    let store = LocalStore::open(dir).expect("it opens");
    let blobs: Arc<dyn BlobService> = Arc::new(LocalBlobs::new(store.clone()));
    let directories = LocalDirectories::new(store);
    let began = Instant::now();
    let from = File::open(from).expect("it is there");
    ingest_nar(from, None, &blobs, &directories, runtime.handle()).expect("it is an archive");
    runtime.block_on(blobs.sync()).expect("it can be synced");
    runtime.block_on(directories.sync()).expect("it can be synced");
    let took = began.elapsed();
    drop((blobs, directories));
    fs::remove_dir_all(dir).expect("it was made");
    took
}

fn decompress_to_nowhere(compression: Compression, file: &[u8]) -> Duration {
    let began = Instant::now();
    let mut decoded = decompress(compression, file).expect("it begins");
    let mut piece = vec![0; PIECE_LEN];
    while decoded.read(&mut piece).expect("it is whole") > 0 {}
    began.elapsed()
}

fn fetch(server: &HttpServer, made: &Made, dir: &Path, runtime: &Runtime) -> Duration {
    let addresses = Addresses {
        store: Some(address(server)),
        blobs: None,
        directories: None,
        path_infos: None,
        store_dir: dir.join("store"),
        cache_dir: Some(dir.join("cache")),
        cache_size_max: Some(8 << 30),
        token_file: None,
        verify: Verify::Source,
        whole_len_max: 0,
        offline: false,
        absent_ttl: Duration::ZERO,
    };
    let stores = {
        let _in_runtime = runtime.enter();
        open(&addresses).expect("it opens")
    };
    let began = Instant::now();
    let digest = made.told.store_path.digest();
    let found = runtime.block_on(stores.path_infos.get(&digest)).expect("it is fetched");
    let took = began.elapsed();
    assert!(found.is_some());
    drop(stores);
    fs::remove_dir_all(dir).expect("it was made");
    took
}

/// Prints the medians of both and of their ratio: how fast the work is, of what less would be.
fn row(name: &str, bytes: usize, runs: &[(Duration, Duration)]) {
    let median = |mut values: Vec<f64>| {
        values.sort_by(f64::total_cmp);
        values[values.len() / 2]
    };
    let rate = |of: fn(&(Duration, Duration)) -> Duration| {
        bytes as f64 / 1e6 / median(runs.iter().map(|run| of(run).as_secs_f64()).collect())
    };
    let ratio = runs.iter().map(|(less, work)| less.as_secs_f64() / work.as_secs_f64());
    let (less, work, ratio) = (rate(|run| run.0), rate(|run| run.1), median(ratio.collect()));
    println!("{name:32} {less:9.0} MB/s {work:9.0} MB/s {ratio:8.2}");
}

fn main() -> io::Result<()> {
    let args: Vec<String> = env::args().skip(1).filter(|arg| arg != "--bench").collect();
    let option = |name: &str| {
        args.iter().position(|arg| arg == name).and_then(|at| args.get(at + 1)).cloned()
    };
    let runs = option("--runs").and_then(|runs| runs.parse().ok()).unwrap_or(5);
    let dir = option("--dir").map_or_else(env::temp_dir, PathBuf::from);
    let folder = tempfile::Builder::new().prefix("lazystore-bench-").tempdir_in(dir)?;
    let runtime = Runtime::new()?;
    println!("{:32} {:>14} {:>14} {:>8}", "", "less", "work", "ratio");
    for (name, total, file_len) in
        [("large files", 512 << 20, 64 << 20), ("small files", 256 << 20, 8 << 10)]
    {
        let bytes = archive(total, file_len);
        let file = folder.path().join("archive.nar");
        fs::write(&file, &bytes)?;
        let paired = (0..runs).map(|_| {
            let less = copy_and_hash(&file, &folder.path().join("copy"));
            (less, ingest(&file, &folder.path().join("store"), &runtime))
        });
        row(&format!("none, {name}"), bytes.len(), &paired.collect::<Vec<_>>());
        for compression in [Compression::Zstd, Compression::Xz] {
            // Xz takes its time.
            let part = if compression == Compression::Xz { total / 4 } else { total };
            let bytes = archive(part, file_len.min(part / 2));
            let made = Made::new("archive", &bytes, compression);
            let server = HttpServer::new();
            serve_info(&server);
            made.serve(&server);
            let paired = (0..runs).map(|_| {
                let less = decompress_to_nowhere(compression, &made.file);
                (less, fetch(&server, &made, &folder.path().join("fetched"), &runtime))
            });
            row(&format!("{compression}, {name}"), bytes.len(), &paired.collect::<Vec<_>>());
        }
    }
    Ok(())
}
