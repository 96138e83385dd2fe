//! `lazystore fetch`.

use std::{
    ffi::OsString,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::Duration,
};

use anyhow::{Context as _, bail};
use clap::Args;
use futures::{StreamExt as _, TryStreamExt as _, stream};
use indicatif::{HumanBytes, HumanCount};

use super::{GlobalOptions, closure, progress};
use crate::{
    castore::Digest,
    service::{Stores, blob::BlobService},
};

/// How many files are fetched at once.
const AT_ONCE: usize = 16;

/// Bring store paths into the cache ahead of time.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  lazystore fetch --store grpc+unix:///run/lazystore.sock /nix/store/3c3vsw8xbk8ls38vmw8qq1fd61ckdrbq-src
  lazystore fetch --closure /nix/store/3c3vsw8xbk8ls38vmw8qq1fd61ckdrbq-src

Fetches what is not here yet. What is fetched may be evicted again; see lazystore cache pin.
Exit codes: 0 all is here now, 1 failed or did not fit, 2 wrong usage, 3 a store path is absent, 4 a store is out of reach, 78 configuration.")]
pub(super) struct Fetch {
    /// Store paths
    #[arg(value_name = "STORE-PATH", required = true)]
    paths: Vec<OsString>,

    /// Also all that they refer to, however far
    #[arg(long)]
    closure: bool,
}

/// How far it is.
#[derive(Debug, Default)]
struct Fetched {
    files: AtomicU64,
    bytes: AtomicU64,
}

impl Fetch {
    pub(super) async fn run(&self, options: &GlobalOptions) -> anyhow::Result<()> {
        let stores = options.open()?;
        let paths = closure::parse(&self.paths)?;
        let closure = closure::collect(&stores, &paths, self.closure).await?;
        let mut missing = Vec::new();
        for (digest, size) in &closure.files {
            if *digest != Digest::EMPTY && stores.blobs.open_local(digest)?.is_none() {
                missing.push((*digest, *size));
            }
        }
        let fetched = Arc::new(Fetched::default());
        let shown = {
            let (files, fetched) = (missing.len() as u64, fetched.clone());
            let bytes: u64 = missing.iter().map(|(_, size)| size).sum();
            progress::show(options.progress, "fetching", move || {
                format!(
                    "{} of {} files, {} of {}",
                    HumanCount(fetched.files.load(Relaxed)),
                    HumanCount(files),
                    HumanBytes(fetched.bytes.load(Relaxed)),
                    HumanBytes(bytes)
                )
            })
        };
        fetch_all(&stores, &missing, &fetched).await?;
        let mut lost = 0;
        for (digest, size) in &missing {
            lost += usize::from(!is_kept(&stores, digest, *size).await?);
        }
        stores.blobs.sync().await?;
        if let Some(shown) = shown {
            shown.finish(&format!(
                "{} files, {} fetched; {} were here",
                HumanCount(missing.len() as u64),
                HumanBytes(fetched.bytes.load(Relaxed)),
                HumanCount((closure.files.len() - missing.len()) as u64),
            ));
        }
        match lost {
            0 => Ok(()),
            lost => bail!(
                "{lost} of {} files are not kept here: the cache is too small for them, broken, or --cache-dir is none",
                closure.files.len()
            ),
        }
    }
}

/// Whether a blob that was read is here. One that came in parts becomes one a moment after its last part was read.
async fn is_kept(stores: &Stores, digest: &Digest, size: u64) -> anyhow::Result<bool> {
    const MOMENT: Duration = Duration::from_millis(10);
    for _ in 0..100 {
        if stores.blobs.open_local(digest)?.is_some() {
            return Ok(true);
        }
        if stores.blobs.open_local_range(digest, size, &(0..size))?.is_none() {
            break;
        }
        tokio::time::sleep(MOMENT).await;
    }
    // Between the two looks it may have become one; and one that has all its parts is kept as well.
    Ok(stores.blobs.open_local_range(digest, size, &(0..size))?.is_some())
}

async fn fetch_all(
    stores: &Stores,
    missing: &[(Digest, u64)],
    fetched: &Arc<Fetched>,
) -> anyhow::Result<()> {
    let fetches = missing.iter().map(|(digest, size)| {
        let (blobs, fetched, digest, size) =
            (stores.blobs.clone(), fetched.clone(), *digest, *size);
        // A task each, so that they are hashed on all processors.
        async move { tokio::spawn(fetch(blobs, fetched, digest, size)).await? }
    });
    stream::iter(fetches).buffer_unordered(AT_ONCE).try_collect().await
}

/// Reads a blob, so that the layers below keep it.
async fn fetch(
    blobs: Arc<dyn BlobService>,
    fetched: Arc<Fetched>,
    digest: Digest,
    size: u64,
) -> anyhow::Result<()> {
    let pieces = blobs.read(&digest, 0..size).await?;
    let mut pieces = pieces.with_context(|| format!("blob {digest} is missing from the store"))?;
    let mut got = 0;
    while let Some(piece) = pieces.next().await {
        let len = piece?.len() as u64;
        got += len;
        fetched.bytes.fetch_add(len, Relaxed);
    }
    anyhow::ensure!(got == size, "blob {digest} has {got} bytes, its directory says {size}");
    fetched.files.fetch_add(1, Relaxed);
    Ok(())
}
