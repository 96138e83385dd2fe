//! A binary cache for Nix over any store.
//!
//! | request | answer |
//! | --- | --- |
//! | `nix-cache-info` | what this cache is |
//! | `<hash>.narinfo` | what is known of a store path, signed with our own keys besides |
//! | `<hash>.ls` | the listing of its archive |
//! | `nar/<hash>-<NAR hash>.nar` | the archive, rendered while it is sent; as zstd where the client takes that |
//! | `nar/<hash>-<NAR hash>.nar.zst` | the same as a zstd file |
//! | `nar/<file>` | an archive that somebody has brought under that name |
//! | `log/<derivation>` | the log of a build, from a directory of logs |
//! | `metrics`, `healthz` | for those who run it |
//!
//! If uploads are allowed, archives and narinfos can be put: see `upload`.
//!
//! The names of archives tell all that is needed to find them, so nothing is remembered between requests and any number
//! of servers may answer for one store. What a client can cost is bounded: connections, requests in the head, archives
//! that are rendered at once and what is held of each, and the time for which a client may take nothing. Errors tell
//! clients what they asked wrongly, and nothing of this machine.

mod answer;
mod body;
mod compress;
mod encoding;
mod error;
mod info;
mod listener;
mod logs;
mod metrics;
mod nar;
mod range;
mod route;
mod traced;
mod upload;

use std::{path::PathBuf, sync::Arc};

use arc_swap::ArcSwap;
use tokio::sync::Semaphore;

pub use listener::serve;
pub(crate) use listener::{Limits, serve_router};
pub use upload::UploadOptions;

use crate::{nix::SecretKey, render::RenderNar, service::Stores};
use upload::Uploads;

/// How many archives are rendered at once. Further clients wait. Each takes some 4 MiB, or 12 MiB where a remote store
/// answers with the longest pieces.
const ARCHIVES_AT_ONCE_MAX: usize = 128;

/// What a cache says and does besides answering for its store.
#[derive(Debug, Default)]
pub struct CacheOptions {
    /// Which of several caches is asked first: that with the lowest number.
    pub priority: u32,
    /// With these all path infos are signed, in this order. They may be replaced while the cache is served.
    pub keys: Arc<ArcSwap<Vec<SecretKey>>>,
    /// Where logs of builds are.
    pub logs: Option<PathBuf>,
    /// What may be brought. `None` for nothing.
    pub uploads: Option<UploadOptions>,
}

/// A binary cache.
#[derive(Debug)]
pub struct BinaryCache {
    stores: Stores,
    options: CacheOptions,
    archives: Arc<Semaphore>,
    uploads: Option<Uploads>,
}

impl BinaryCache {
    /// A cache of what `stores` holds.
    pub fn new(stores: Stores, mut options: CacheOptions) -> Self {
        metrics::tell();
        let archives = Arc::new(Semaphore::new(ARCHIVES_AT_ONCE_MAX));
        let uploads = options.uploads.take().map(Uploads::new);
        BinaryCache { stores, options, archives, uploads }
    }

    fn renderer(&self) -> RenderNar {
        let Stores { blobs, directories, .. } = &self.stores;
        RenderNar { blobs: blobs.clone(), directories: directories.clone() }
    }
}
