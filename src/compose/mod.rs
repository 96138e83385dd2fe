//! Addresses and configuration files into stacks of services: the only room that names concrete backends.
//!
//! A [`Plan`] says which sources there are, in which order they are read, and which one is written; both addresses and
//! files come to one. What is put in front of a source depends on where it is:
//!
//! | source | stack, from the top |
//! | --- | --- |
//! | `memory:` | memory |
//! | `local:` | for directories a bounded memory in front; then the store directory |
//! | far: `grpc+…:` | a memory of directories, path infos, and for a while of what is absent; a store directory as cache, in which blobs may be in part; verification; the remote. Several that follow each other have one such front |
//! | `objectstore+…:` | as a server, and the bucket |
//! | `bigtable:` for directories and path infos | as a server, and the table |
//! | `nix+…:` as a whole store | the same memory; a store directory as cache, into which archives are taken apart; the binary caches, which are asked again for what was evicted |
//! | `nix+…:` for path infos | the same memory; the binary caches, whose archives go where blobs and directories are written |
//!
//! Every backend is counted (the `metrics` layer), under the name of its source.

mod address;
#[cfg(feature = "cloud")]
mod bigtable;
#[cfg(feature = "cloud")]
mod bucket;
mod cache;
#[cfg_attr(not(feature = "cloud"), path = "no_cloud.rs")]
mod cloud;
pub mod config;
mod measured;
mod nix_address;
mod opener;
mod places;
mod plan;
mod probe;
mod route;
mod secrets;
mod shorthand;
mod signing;
pub mod size;
mod source;
mod substituted;

use std::{path::PathBuf, sync::Arc};

pub use address::{Address, AddressError};
#[cfg(feature = "cloud")]
pub use bucket::BucketAddress;
pub use cache::{OpenCache, default_cache_size};
pub use cloud::CloudAddress;
pub use nix_address::CacheAddress;
use opener::Opener;
pub use places::{NeedsRestart, Places};
pub use plan::{
    ABSENT_TTL_DEFAULT, CachePlan, Kind, Misfit, Part, Plan, Route, SourcePlan,
    WHOLE_LEN_MAX_DEFAULT,
};
pub use probe::{Probe, probe};
pub use secrets::{SecretFiles, SecretsError};
pub use shorthand::{Addresses, open};

use crate::{
    nix::SignatureError,
    service::{self, Stores, local::LocalStore},
    substitute::CacheOptionsError,
};

/// What all stores of a process share.
#[derive(Debug, Clone)]
pub struct Common {
    /// The directory that a `local:` without a path means.
    pub store_dir: PathBuf,
    /// A file with a token, which servers are shown whose address names none.
    pub token_file: Option<PathBuf>,
    /// Whether nothing that is remote may be asked: only what is in the cache is there.
    pub offline: bool,
}

/// Why a store could not be opened.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// An address is not understood.
    #[error(transparent)]
    Address(#[from] AddressError),
    /// A file that an address names cannot be used.
    #[error("cannot use {address}: {source}")]
    Secrets {
        /// The address.
        address: String,
        /// Why not.
        source: SecretsError,
    },
    /// A service could not be opened.
    #[error("cannot open {address}: {source}")]
    Open {
        /// Which one.
        address: String,
        /// Why.
        source: service::Error,
    },
    /// A bucket cannot be opened.
    #[cfg(feature = "cloud")]
    #[error("cannot open {address}: {source}")]
    Bucket {
        /// Which one.
        address: String,
        /// Why not.
        source: Box<service::bucket::BucketError>,
    },
    /// A binary cache cannot be used.
    #[error("cannot use {address}: {source}")]
    Cache {
        /// Which one.
        address: String,
        /// Why not.
        source: Box<CacheOptionsError>,
    },
    /// There is no place for what is in archives.
    #[error(
        "{address} needs a cache, as its archives come whole: name a directory with --cache-dir, or \
         use it as --path-info-service-addr beside another --store"
    )]
    NoCacheDir {
        /// Which binary caches.
        address: String,
    },
    /// A kind of source that cannot have what it is to have.
    #[error("{address} holds no {what}: name another address for them")]
    Lacking {
        /// Which source.
        address: String,
        /// What is not there.
        what: &'static str,
    },
    /// Archives that would go nowhere.
    #[error(
        "{address} only fills other services here: name where blobs and directories are written"
    )]
    NothingToFill {
        /// Which binary caches.
        address: String,
    },
    /// A source that takes nothing.
    #[error("{address} can only be read: write to another source")]
    ReadOnly {
        /// Which source.
        address: String,
    },
    /// Nothing may be written.
    #[error(
        "{store} takes no {what}: none of its sources is the one to write to, or it can only be read"
    )]
    NoTarget {
        /// Which store.
        store: String,
        /// What has nowhere to go.
        what: &'static str,
    },
    /// The key by which is signed cannot be read.
    #[error("cannot sign: {source}")]
    SignKeyFile {
        /// Why not.
        source: SecretsError,
    },
    /// A file without a key to sign by.
    #[error("there is no secret key in {}: {source}", file.display())]
    SignKey {
        /// Which one.
        file: PathBuf,
        /// Why.
        source: SignatureError,
    },
    /// Blobs or directories from binary caches that do not tell of store paths.
    #[error(
        "{address} knows blobs and directories only of the store paths that it is asked for: use it as \
         --store, or only as --path-info-service-addr"
    )]
    Apart {
        /// Which binary caches.
        address: String,
    },
}

/// Opens the store that is planned. Connections are made in the background, so that a store can be mounted while the
/// network is down. Needs the context of a tokio runtime.
pub fn open_plan(plan: &Plan, common: &Common) -> Result<Stores, Error> {
    open_plan_at(plan, common, &mut Places::default())
}

/// As [`open_plan`], with the places that an earlier plan has opened; those that this one opens are added to them.
pub fn open_plan_at(plan: &Plan, common: &Common, places: &mut Places) -> Result<Stores, Error> {
    plan.check().map_err(|misfit| misfit.error)?;
    let mut opener = Opener::at(common, places.clone());
    let stores = opener.plan(plan)?;
    *places = opener.places;
    Ok(stores)
}

/// Opens the store directory into which blobs of a plan are written, for those who look after it. `None` if they are
/// somewhere else.
pub fn open_local(plan: &Plan, common: &Common) -> Result<Option<Arc<LocalStore>>, Error> {
    let Some(Part::Source(source)) = &plan.blobs.write else { return Ok(None) };
    let Address::Local(dir) = &source.address else { return Ok(None) };
    let dir = dir.as_ref().unwrap_or(&common.store_dir);
    let address = || format!("the store in {}", dir.display());
    let store = LocalStore::open(dir);
    store.map(Some).map_err(|source| Error::Open { address: address(), source })
}
