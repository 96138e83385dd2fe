//! Addresses into stacks of services: the only room that names concrete backends.
//!
//! | address | stack, from the top |
//! | --- | --- |
//! | `memory:` | memory |
//! | `local:` | for directories and path infos a bounded memory in front; then the store directory |
//! | `grpc+…:` | the same memory, which for a while also knows what is absent; a store directory as cache, in which blobs may be in part; verification; the remote |
//! | `objectstore+…:` | as a server, and the bucket |
//! | `nix+…:` as a whole store | the same memory; a store directory as cache, into which archives are taken apart; the binary caches, which are asked again for what was evicted |
//! | `nix+…:` for path infos | the same memory; the binary caches, whose archives go into the other two services |
//!
//! Every service is counted (the `metrics` layer) where it is asked by the outside.

mod address;
mod bucket;
mod cache;
mod nix_address;
mod secrets;
mod source;
mod substituted;

use std::{
    collections::HashMap,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

pub use address::{Address, AddressError};
pub use bucket::BucketAddress;
pub use cache::{OpenCache, default_cache_size};
pub use nix_address::CacheAddress;
pub use secrets::{SecretFiles, SecretsError};
use source::{Place, Source};
use tracing::warn;

use crate::{
    render::RenderNar,
    service::{
        self, Stores,
        blob::{
            BlobService,
            backend::LocalBlobs,
            layer::{BlobCounters, LazyBlobs, LazyOptions, MeasuredBlobs, Verify},
        },
        bucket::BucketError,
        directory::{
            DirectoryService,
            backend::LocalDirectories,
            layer::{
                ArrivingDirectories, CachedDirectories, DirectoryCounters, LruDirectories,
                MeasuredDirectories,
            },
        },
        grpc::{DEADLINE_DEFAULT, GrpcChannel, GrpcOptions},
        local::LocalStore,
        pathinfo::{
            NarCalculation, PathInfoService,
            backend::LocalPathInfos,
            layer::{
                AbsentPathInfos, CachedPathInfos, CoalescedPathInfos, LruPathInfos,
                MeasuredPathInfos, PathInfoCounters, RememberedNars,
            },
        },
    },
    substitute::{CacheOptionsError, SubstitutedBlobs, SubstitutedDirectories, Substituter},
};

/// How much of directories is kept in memory, in bytes.
const DIRECTORIES_LRU_BYTES_MAX: usize = 32 << 20;

/// How many path infos are kept in memory: some 40 MB of them.
const PATH_INFOS_LRU_ENTRIES_MAX: usize = 65_536;

/// Where the services of a store are.
#[derive(Debug, Clone)]
pub struct Addresses {
    /// Of all three that have no address of their own. `local:` if none is given.
    pub store: Option<String>,
    /// Of the blob service.
    pub blobs: Option<String>,
    /// Of the directory service.
    pub directories: Option<String>,
    /// Of the path info service.
    pub path_infos: Option<String>,
    /// The directory that a `local:` without a path means.
    pub store_dir: PathBuf,
    /// Where what comes from a remote is kept. `None` for nowhere.
    pub cache_dir: Option<PathBuf>,
    /// How much that may take of the disk, in bytes. `None` for a tenth of it, but no less than 1 GiB.
    pub cache_size_max: Option<u64>,
    /// A file with a token, which servers are shown whose address names none.
    pub token_file: Option<PathBuf>,
    /// What is believed of a remote that proves nothing, if path infos come from the same one. Of others nothing is.
    pub verify: Verify,
    /// Up to how many bytes a blob of a remote is fetched whole, in one request.
    pub whole_len_max: u64,
    /// Whether nothing that is remote may be asked: only what is in the cache is there.
    pub offline: bool,
    /// For how long it is remembered that a remote has no path info of some name.
    pub absent_ttl: Duration,
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
    #[error("cannot open {address}: {source}")]
    Bucket {
        /// Which one.
        address: String,
        /// Why not.
        source: Box<BucketError>,
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

/// Opens the services at `addresses`. Connections are made in the background, so that a store can be mounted while the
/// network is down. Needs the context of a tokio runtime.
pub fn open(addresses: &Addresses) -> Result<Stores, Error> {
    let store = addresses.store.as_deref().unwrap_or("local:");
    let parse = |own: &Option<String>| own.as_deref().unwrap_or(store).parse::<Address>();
    let (stores, cache, channels, sources, substituters) = Default::default();
    let mut opener = Opener { addresses, stores, cache, channels, sources, substituters };
    let (blobs_at, path_infos) = (parse(&addresses.blobs)?, parse(&addresses.path_infos)?);
    let directories_at = parse(&addresses.directories)?;
    if let Some(apart) = [&blobs_at, &directories_at]
        .into_iter()
        .find(|address| matches!(address, Address::Nix(_)) && **address != path_infos)
    {
        return Err(Error::Apart { address: apart.to_string() });
    }
    // Who says which store path is which could name any contents there.
    let verify = match blobs_at == path_infos {
        true => addresses.verify,
        false => Verify::Strict,
    };
    let blobs = opener.blobs(&blobs_at, verify)?;
    let directories = opener.directories(&directories_at)?;
    let (path_infos, remote) = match &path_infos {
        Address::Nix(_) if blobs_at != path_infos && directories_at != path_infos => {
            let filling = opener.filling(&path_infos, &blobs_at, &blobs, &directories)?;
            (measured(filling), None)
        }
        Address::Nix(_) if blobs_at != path_infos || directories_at != path_infos => {
            return Err(Error::Apart { address: path_infos.to_string() });
        }
        _ => opener.path_infos(&path_infos)?,
    };
    let rendered = RenderNar { blobs: blobs.clone(), directories: directories.clone() };
    let nars = remote.unwrap_or_else(|| Arc::new(rendered));
    let nars = Arc::new(RememberedNars::new(nars));
    Ok(Stores { blobs, directories, path_infos, nars })
}

/// Opens the store directory that holds the blobs at `addresses`, for those who look after it. `None` if they are
/// somewhere else.
pub fn open_local(addresses: &Addresses) -> Result<Option<Arc<LocalStore>>, Error> {
    let store = addresses.store.as_deref().unwrap_or("local:");
    let Address::Local(dir) = addresses.blobs.as_deref().unwrap_or(store).parse()? else {
        return Ok(None);
    };
    let dir = dir.as_ref().unwrap_or(&addresses.store_dir);
    let address = || format!("the store in {}", dir.display());
    let store = LocalStore::open(dir);
    store.map(Some).map_err(|source| Error::Open { address: address(), source })
}

/// Opens each store directory and each channel once, however many services live there.
struct Opener<'a> {
    addresses: &'a Addresses,
    stores: HashMap<PathBuf, Arc<LocalStore>>,
    /// Inside, `None` if there is to be none, or none can be had.
    cache: Option<Option<Arc<LocalStore>>>,
    channels: HashMap<String, GrpcChannel>,
    sources: HashMap<String, Source>,
    substituters: HashMap<String, Arc<Substituter>>,
}

impl Opener<'_> {
    fn blobs(&mut self, address: &Address, verify: Verify) -> Result<Arc<dyn BlobService>, Error> {
        let bottom: Arc<dyn BlobService> = match address {
            Address::Nix(_) => Arc::new(SubstitutedBlobs::new(self.substituter(address)?)),
            _ => {
                let source = self.source(address)?;
                let blobs = source.blobs.ok_or_else(|| lacking(address, "blobs"))?;
                match source.place {
                    Place::Memory | Place::Disk => blobs,
                    Place::Far => self.far_blobs(blobs, verify),
                }
            }
        };
        Ok(Arc::new(MeasuredBlobs::new(bottom, Arc::new(BlobCounters::default()))))
    }

    fn far_blobs(&mut self, far: Arc<dyn BlobService>, verify: Verify) -> Arc<dyn BlobService> {
        let partials = self.cache();
        let near = partials.clone().map(|near| Arc::new(LocalBlobs::new(near)) as _);
        let options = LazyOptions { whole_len_max: self.addresses.whole_len_max, verify };
        Arc::new(LazyBlobs::new(near, partials, far, options))
    }

    fn directories(&mut self, address: &Address) -> Result<Arc<dyn DirectoryService>, Error> {
        let bottom: Arc<dyn DirectoryService> = match address {
            Address::Nix(_) => {
                in_memory(Arc::new(SubstitutedDirectories::new(self.substituter(address)?)))
            }
            _ => {
                let source = self.source(address)?;
                let directories =
                    source.directories.ok_or_else(|| lacking(address, "directories"))?;
                match source.place {
                    Place::Memory => directories,
                    Place::Disk => in_memory(directories),
                    Place::Far => self.far_directories(directories),
                }
            }
        };
        Ok(Arc::new(MeasuredDirectories::new(bottom, Arc::new(DirectoryCounters::default()))))
    }

    fn far_directories(&mut self, far: Arc<dyn DirectoryService>) -> Arc<dyn DirectoryService> {
        let kept = match self.cache() {
            Some(near) => {
                let near = Arc::new(LocalDirectories::new(near));
                in_memory(Arc::new(CachedDirectories::new(near, far)))
            }
            None => in_memory(far),
        };
        Arc::new(ArrivingDirectories::new(kept))
    }

    /// The path infos, and, if they are on a server, what calculates archive hashes there.
    #[allow(clippy::type_complexity)] // Two services of one address.
    fn path_infos(
        &mut self,
        address: &Address,
    ) -> Result<(Arc<dyn PathInfoService>, Option<Arc<dyn NarCalculation>>), Error> {
        if let Address::Nix(_) = address {
            return Ok((measured(self.substituted_path_infos(address)?), None));
        }
        let source = self.source(address)?;
        let path_infos = source.path_infos.ok_or_else(|| lacking(address, "path infos"))?;
        let bottom = match source.place {
            // Not kept in memory: another process may replace them, and the mount remembers names itself.
            Place::Memory | Place::Disk => path_infos,
            Place::Far => self.far_path_infos(path_infos),
        };
        Ok((measured(bottom), source.nars))
    }

    fn far_path_infos(&mut self, far: Arc<dyn PathInfoService>) -> Arc<dyn PathInfoService> {
        let cached: Arc<dyn PathInfoService> = match self.cache() {
            Some(near) => Arc::new(CachedPathInfos::new(Arc::new(LocalPathInfos::new(near)), far)),
            None => far,
        };
        let coalesced = Arc::new(CoalescedPathInfos::new(cached));
        let absent = AbsentPathInfos::new(coalesced, self.addresses.absent_ttl);
        Arc::new(LruPathInfos::new(Arc::new(absent), PATH_INFOS_LRU_ENTRIES_MAX))
    }

    fn store(&mut self, dir: Option<&Path>) -> Result<Arc<LocalStore>, Error> {
        let dir = dir.unwrap_or(&self.addresses.store_dir);
        if let Some(store) = self.stores.get(dir) {
            return Ok(store.clone());
        }
        let store = LocalStore::open(dir).map_err(|source| Error::Open {
            address: format!("the store in {}", dir.display()),
            source,
        })?;
        self.stores.insert(dir.to_owned(), store.clone());
        Ok(store)
    }

    /// Where what comes from a remote is kept. Without it everything still works, only slower.
    fn cache(&mut self) -> Option<Arc<LocalStore>> {
        if let Some(cache) = &self.cache {
            return cache.clone();
        }
        let dir = self.addresses.cache_dir.as_deref();
        let cache = dir.and_then(|dir| {
            LocalStore::open_cache(dir, self.addresses.cache_size_max)
                .inspect_err(|error| warn!(%error, "going on without a cache"))
                .ok()
        });
        self.cache.insert(cache).clone()
    }

    fn channel(&mut self, address: &Address) -> Result<GrpcChannel, Error> {
        let Address::Grpc { server, dialect, size_rule, timeout, secrets } = address else {
            unreachable!("only addresses of servers get here");
        };
        let key = format!("{address:?}");
        if let Some(channel) = self.channels.get(&key) {
            return Ok(channel.clone());
        }
        let mut secrets = secrets.clone();
        secrets.token = secrets.token.or_else(|| self.addresses.token_file.clone());
        let (tls, token) = secrets
            .read(server)
            .map_err(|source| Error::Secrets { address: address.to_string(), source })?;
        let options = GrpcOptions {
            dialect: *dialect,
            size_rule: *size_rule,
            deadline: timeout.unwrap_or(DEADLINE_DEFAULT),
            offline: self.addresses.offline,
            tls,
            token,
        };
        let channel = GrpcChannel::connect(server, options)
            .map_err(|source| Error::Open { address: address.to_string(), source })?;
        channel.connect_ahead();
        self.channels.insert(key, channel.clone());
        Ok(channel)
    }
}

fn measured(path_infos: Arc<dyn PathInfoService>) -> Arc<dyn PathInfoService> {
    Arc::new(MeasuredPathInfos::new(path_infos, Arc::new(PathInfoCounters::default())))
}

fn in_memory(below: Arc<dyn DirectoryService>) -> Arc<dyn DirectoryService> {
    Arc::new(LruDirectories::new(below, DIRECTORIES_LRU_BYTES_MAX))
}

fn lacking(address: &Address, what: &'static str) -> Error {
    Error::Lacking { address: address.to_string(), what }
}
