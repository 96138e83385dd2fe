//! `lazystore cache`.

use std::{
    ffi::OsString,
    io::{self, Write as _},
    sync::{Arc, atomic::Ordering::Relaxed},
};

use anyhow::{Context as _, bail};
use clap::{Args, Subcommand};
use indicatif::{BinaryBytes, HumanBytes, HumanCount};
use serde_json::json;

use super::{GlobalOptions, closure, progress};
use crate::{
    castore::Digest,
    compose::{OpenCache, size::parse_size},
    service::local::{CacheStats, PinnedClosure, Verified},
};

/// Look after the cache of remote stores.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  lazystore cache stats
  lazystore cache prune --to 10GiB
  lazystore cache pin --store grpc+unix:///run/lazystore.sock /nix/store/3c3vsw8xbk8ls38vmw8qq1fd61ckdrbq-src

The cache is the one in --cache-dir; mounts and daemons may use it meanwhile.
Exit codes: 0 done, 1 failed or found damage, 2 wrong usage, 3 a store path is absent or not pinned, 4 a store is out of reach, 78 configuration.")]
pub(super) struct Cache {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    Stats(Stats),
    Verify(Verify),
    Prune(Prune),
    Pin(Pin),
    Unpin(Unpin),
}

/// Tell what is in the cache.
#[derive(Debug, Args)]
#[command(after_help = "Example:
  lazystore cache stats --json")]
struct Stats {
    /// Print a JSON object, with sizes in bytes
    #[arg(long)]
    json: bool,
}

/// Read all of the cache, and remove what is damaged.
#[derive(Debug, Args)]
#[command(after_help = "Example:
  lazystore cache verify

What is damaged never reaches a reader anyway: this finds it ahead of time. Exit code 1 if there was any.")]
struct Verify {}

/// Remove what was used longest ago, but nothing that is pinned or in use.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  lazystore cache prune
  lazystore cache prune --to 500M
  lazystore cache prune --to 0")]
struct Prune {
    /// How much may be left: bytes, or 500M, 64GiB, ... [default: what --cache-size allows]
    #[arg(long, value_name = "SIZE", value_parser = parse_size)]
    to: Option<u64>,
}

/// Never evict store paths and all that they refer to.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  lazystore cache pin /nix/store/3c3vsw8xbk8ls38vmw8qq1fd61ckdrbq-src
  lazystore cache pin

What of them is not here yet stays from when it comes; lazystore fetch --closure brings it. Without an argument, prints
what is pinned, one store path a line.")]
struct Pin {
    /// Store paths
    #[arg(value_name = "STORE-PATH")]
    paths: Vec<OsString>,
}

/// Let store paths be evicted again.
#[derive(Debug, Args)]
#[command(after_help = "Example:
  lazystore cache unpin /nix/store/3c3vsw8xbk8ls38vmw8qq1fd61ckdrbq-src")]
struct Unpin {
    /// Store paths
    #[arg(value_name = "STORE-PATH", required = true)]
    paths: Vec<OsString>,
}

/// It cannot be unpinned.
#[derive(Debug, thiserror::Error)]
#[error("{0} is not pinned")]
pub(super) struct NotPinned(String);

impl Cache {
    pub(super) async fn run(&self, options: &GlobalOptions) -> anyhow::Result<()> {
        match &self.command {
            Command::Stats(stats) => stats.run(options),
            Command::Verify(_) => verify(options),
            Command::Prune(prune) => prune.run(options),
            Command::Pin(pin) => pin.run(options).await,
            Command::Unpin(unpin) => unpin.run(options),
        }
    }
}

/// Opens the cache, which must be there: looking at one is no reason to make it.
fn open(options: &GlobalOptions) -> anyhow::Result<OpenCache> {
    let (dir, _) = options.cache()?;
    anyhow::ensure!(dir.is_dir(), "there is no cache in {}", dir.display());
    Ok(OpenCache::new(dir)?)
}

impl Stats {
    fn run(&self, options: &GlobalOptions) -> anyhow::Result<()> {
        let (dir, size_max) = options.cache()?;
        let cache = open(options)?;
        let stats = cache.store().cache_stats()?;
        let CacheStats { used, files, files_bytes, packed, packs, packs_bytes, .. } = stats;
        let CacheStats { partials, directories, path_infos, pins, .. } = stats;
        let mut out = io::stdout().lock();
        if self.json {
            let object = json!({
                "directory": dir.display().to_string(),
                "used": used, "sizeMax": size_max,
                "files": { "count": files, "bytes": files_bytes },
                "packed": { "count": packed, "packs": packs, "bytes": packs_bytes },
                "partials": partials, "directories": directories,
                "pathInfos": path_infos, "pins": pins,
            });
            serde_json::to_writer_pretty(&mut out, &object)?;
            return Ok(writeln!(out)?);
        }
        let bytes = |bytes| BinaryBytes(bytes).to_string();
        let (used, size_max) = (bytes(used), bytes(size_max));
        let (files_bytes, packs_bytes) = (bytes(files_bytes), bytes(packs_bytes));
        writeln!(out, "directory:    {}", dir.display())?;
        writeln!(out, "used:         {used} of {size_max}")?;
        writeln!(out, "large files:  {}, {files_bytes}", HumanCount(files))?;
        writeln!(out, "small files:  {}, {packs_bytes} in {packs} packs", HumanCount(packed))?;
        writeln!(out, "in part:      {}", HumanCount(partials))?;
        writeln!(out, "directories:  {}", HumanCount(directories))?;
        writeln!(out, "store paths:  {}", HumanCount(path_infos))?;
        Ok(writeln!(out, "pinned:       {}", HumanCount(pins))?)
    }
}

fn verify(options: &GlobalOptions) -> anyhow::Result<()> {
    let cache = open(options)?;
    let verified = Arc::new(Verified::default());
    let followed = verified.clone();
    let how_far = move || {
        let (objects, bytes) = (followed.objects.load(Relaxed), followed.bytes.load(Relaxed));
        format!("{} objects, {}", HumanCount(objects), HumanBytes(bytes))
    };
    let shown = progress::show(options.progress, "verifying", how_far);
    cache.verify(&verified)?;
    drop(shown);
    let (objects, damaged) = (verified.objects.load(Relaxed), verified.damaged.load(Relaxed));
    if damaged > 0 {
        bail!("{damaged} of {objects} objects were damaged, and are removed from the cache");
    }
    let bytes = HumanBytes(verified.bytes.load(Relaxed));
    Ok(writeln!(
        io::stdout(),
        "{} objects with {bytes} are as they should be",
        HumanCount(objects)
    )?)
}

impl Prune {
    fn run(&self, options: &GlobalOptions) -> anyhow::Result<()> {
        let cache = open(options)?;
        let target = match self.to {
            Some(target) => target,
            None => options.cache()?.1,
        };
        let before = cache.store().cache_stats()?.used;
        cache.store().evict_to(target)?;
        let after = cache.store().cache_stats()?.used;
        let mut out = io::stdout().lock();
        let freed = BinaryBytes(before.saturating_sub(after));
        writeln!(out, "{freed} removed, {} are left", BinaryBytes(after))?;
        if after > target {
            writeln!(out, "what is left is pinned, in use, or the database")?;
        }
        Ok(())
    }
}

impl Pin {
    async fn run(&self, options: &GlobalOptions) -> anyhow::Result<()> {
        if self.paths.is_empty() {
            for name in open(options)?.store().pins()? {
                writeln!(io::stdout(), "{name}")?;
            }
            return Ok(());
        }
        let paths = closure::parse(&self.paths)?;
        let stores = options.open()?;
        // After the stores, which make it if it is not there yet.
        let cache = open(options)?;
        for path in paths {
            let closure = closure::collect(&stores, std::slice::from_ref(&path), true).await?;
            let files = closure.files.len() as u64;
            let mut here = 0;
            for digest in closure.files.keys() {
                let is_here =
                    *digest == Digest::EMPTY || cache.store().open_blob(digest)?.is_some();
                here += u64::from(is_here);
            }
            let blobs = closure.files.into_keys().collect();
            let pinned = PinnedClosure { store_paths: closure.store_paths, blobs };
            let name = path.absolute();
            cache.store().pin(&path.digest(), &name, &pinned).context("cannot pin")?;
            let mut out = io::stdout().lock();
            writeln!(out, "{name}: {} of {} files are here", HumanCount(here), HumanCount(files))?;
        }
        Ok(())
    }
}

impl Unpin {
    fn run(&self, options: &GlobalOptions) -> anyhow::Result<()> {
        let cache = open(options)?;
        for path in closure::parse(&self.paths)? {
            if !cache.store().unpin(&path.digest())? {
                return Err(NotPinned(path.absolute()).into());
            }
        }
        Ok(())
    }
}
