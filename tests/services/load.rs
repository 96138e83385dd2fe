//! What one daemon sustains: the figures of `docs/scaling.md`. Client and daemon share this machine.

use std::{
    future::Future,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::{Duration, Instant},
};

use bytes::Bytes;
use futures::TryStreamExt as _;
use lazystore::{
    castore::Digest,
    service::{Stores, blob::read_all},
};
use tempfile::TempDir;

use crate::{
    bigtable::path_info,
    bigtable_emulator::Emulator,
    fleet::{client, daemon, free_port},
    s3::s3,
    support::{Running, lazystore, noise},
    table_costs::{fill, tree},
};

/// How many ask at the same time.
const ASKERS: u64 = 32;
/// How long each kind of request is asked.
const ASKED: Duration = Duration::from_secs(2);
/// Even the slowest machine answers as many requests a second.
const RATE_MIN: f64 = 5.0;
const PATHS: u32 = 64;
const LONG: usize = 1 << 20;
const SHORT: usize = 8 << 10;

/// Asks for a while, and prints how often, and how many bytes came. `ask` gets a number, and returns the bytes.
async fn sustain<F>(on: &str, what: &str, ask: impl Fn(u64) -> F + Clone + Send + 'static)
where
    F: Future<Output = usize> + Send,
{
    let (requests, bytes) = (Arc::<AtomicU64>::default(), Arc::<AtomicU64>::default());
    let began = Instant::now();
    let askers = (0..ASKERS).map(|asker| {
        let (requests, bytes, ask) = (requests.clone(), bytes.clone(), ask.clone());
        tokio::spawn(async move {
            let mut number = asker;
            while began.elapsed() < ASKED {
                bytes.fetch_add(ask(number).await as u64, Relaxed);
                requests.fetch_add(1, Relaxed);
                number += ASKERS;
            }
        })
    });
    for asker in askers.collect::<Vec<_>>() {
        asker.await.expect("each is answered");
    }
    let seconds = began.elapsed().as_secs_f64();
    let (requests, bytes) = (requests.load(Relaxed) as f64, bytes.load(Relaxed) as f64);
    let (rate, megabytes) = (requests / seconds, bytes / seconds / 1e6);
    eprintln!("| {on} | {what} | {rate:.0}/s | {megabytes:.1} MB/s |");
    assert!(rate > RATE_MIN, "{what}: {rate} a second");
}

async fn load(on: &str, stores: Stores) {
    let all = tree(0);
    let root = all.last().expect("there is one").digest();
    fill(&stores, &all).await;
    for number in 0..PATHS {
        stores.path_infos.put(path_info(number)).await.expect("it works");
    }
    let mut digests = Vec::new();
    for (seed, len) in [(1, SHORT), (2, LONG)] {
        let contents = Bytes::from(noise(seed, len));
        digests.push((Digest::of(&contents), len));
        stores.blobs.put(contents).await.expect("it works");
    }
    let path_infos = stores.path_infos.clone();
    sustain(on, "a path that is there", move |number| {
        let path_infos = path_infos.clone();
        let digest = path_info(number as u32 % PATHS).store_path.digest();
        async move {
            path_infos.get(&digest).await.expect("it answers").expect("it is there");
            0
        }
    })
    .await;
    let path_infos = stores.path_infos.clone();
    sustain(on, "a path that is absent", move |number| {
        let path_infos = path_infos.clone();
        let digest = path_info(1 << 20 | number as u32).store_path.digest();
        async move {
            assert_eq!(path_infos.get(&digest).await.expect("it answers"), None);
            0
        }
    })
    .await;
    let directories = stores.directories.clone();
    sustain(on, "42 directories", move |_| {
        let directories = directories.clone();
        async move {
            let closure = directories.get_closure(&root).await.expect("it answers");
            let closure: Vec<_> =
                closure.expect("it is there").try_collect().await.expect("it is whole");
            closure.iter().map(|directory| directory.encoded().len()).sum()
        }
    })
    .await;
    for (digest, len) in digests {
        let blobs = stores.blobs.clone();
        sustain(on, &format!("a file of {len} bytes"), move |_| {
            let blobs = blobs.clone();
            async move {
                let contents = read_all(&*blobs, &digest, len).await.expect("it answers");
                contents.expect("it is there").len()
            }
        })
        .await;
    }
}

#[tokio::test]
async fn a_daemon_over_a_store_directory_sustains_requests() {
    let folder = TempDir::new().expect("a folder");
    let port = free_port();
    let mut command = lazystore(folder.path());
    let mut running =
        Running::start(command.arg("daemon").arg(format!("--listen=127.0.0.1:{port}")));
    running.wait_for_line("listening");
    load("store directory", client(&[port], 0)).await;
}

#[tokio::test]
async fn a_daemon_over_a_bucket_and_a_table_sustains_requests() {
    let (Some(emulator), Some(s3)) = (Emulator::start(), s3()) else { return };
    let folder = TempDir::new().expect("a folder");
    let port = free_port();
    let _running = daemon(folder.path(), port, &s3.store(), &emulator);
    load("bucket and Bigtable", client(&[port], 0)).await;
}
