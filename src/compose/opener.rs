//! Plans into stacks of services.

use std::{collections::HashMap, path::Path, sync::Arc};

use tracing::warn;

use super::{
    Address, CachePlan, Common, Error, Kind, Part, Plan, measured,
    places::Places,
    route::{Joints, Piece, join},
    signing,
    source::{Place, Source},
};
use crate::{
    observe::{event, spent::Phase},
    render::RenderNar,
    service::{
        Stores,
        blob::{
            BlobService,
            backend::LocalBlobs,
            layer::{LazyBlobs, LazyOptions, RoutedBlobs, Verify},
        },
        directory::{
            DirectoryService,
            backend::LocalDirectories,
            layer::{ArrivingDirectories, CachedDirectories, LruDirectories, RoutedDirectories},
        },
        grpc::{ATTEMPTS_DEFAULT, DEADLINE_DEFAULT, GrpcChannel, GrpcOptions},
        local::LocalStore,
        pathinfo::{
            NarCalculation, PathInfoService,
            backend::LocalPathInfos,
            layer::{
                AbsentPathInfos, CachedPathInfos, CoalescedPathInfos, LruPathInfos, RememberedNars,
                RoutedNars, RoutedPathInfos,
            },
        },
    },
    substitute::{SubstitutedBlobs, SubstitutedDirectories, Substituter},
};

/// How much of directories is kept in memory, in bytes.
const DIRECTORIES_LRU_BYTES_MAX: usize = 32 << 20;

/// How many path infos are kept in memory: some 40 MB of them.
const PATH_INFOS_LRU_ENTRIES_MAX: usize = 65_536;

/// Opens each store directory, each cache and each channel once, however many services live there.
pub(super) struct Opener<'a> {
    pub(super) common: &'a Common,
    pub(super) places: Places,
    channels: HashMap<String, GrpcChannel>,
    pub(super) sources: HashMap<String, Source>,
    /// The same, each counted.
    pub(super) measured: HashMap<String, Source>,
    pub(super) substituters: HashMap<String, Arc<Substituter>>,
    plans: HashMap<String, Stores>,
}

/// One plan that is being opened.
struct Planned<'o, 'a> {
    opener: &'o mut Opener<'a>,
    plan: &'o Plan,
    cache: Option<Arc<LocalStore>>,
}

impl<'a> Opener<'a> {
    pub(super) fn new(common: &'a Common) -> Self {
        Self::at(common, Places::default())
    }

    /// Uses what is open already.
    pub(super) fn at(common: &'a Common, mut places: Places) -> Self {
        // One that could not be had may be to be had now.
        places.caches.retain(|_, cache| cache.is_some());
        let (channels, sources, measured) = Default::default();
        let (substituters, plans) = Default::default();
        Opener { common, places, channels, sources, measured, substituters, plans }
    }

    /// The store that is planned. A plan has been checked, and contains itself nowhere.
    pub(super) fn plan(&mut self, plan: &Plan) -> Result<Stores, Error> {
        if let Some(stores) = self.plans.get(&plan.name) {
            return Ok(stores.clone());
        }
        let cache = plan.cache.as_deref().and_then(|cache| self.cache(cache));
        let stores = Planned { opener: &mut *self, plan, cache }.open()?;
        self.plans.insert(plan.name.clone(), stores.clone());
        Ok(stores)
    }

    pub(super) fn store(&mut self, dir: Option<&Path>) -> Result<Arc<LocalStore>, Error> {
        let dir = dir.unwrap_or(&self.common.store_dir);
        if let Some(store) = self.places.stores.get(dir) {
            return Ok(store.clone());
        }
        let store = LocalStore::open(dir).map_err(|source| Error::Open {
            address: format!("the store in {}", dir.display()),
            source,
        })?;
        self.places.stores.insert(dir.to_owned(), store.clone());
        Ok(store)
    }

    /// Where what comes from a remote is kept. Without it everything still works, only slower.
    fn cache(&mut self, plan: &CachePlan) -> Option<Arc<LocalStore>> {
        let open = || {
            LocalStore::open_cache(&plan.dir, plan.size_max)
                .inspect_err(
                    |error| warn!(event = event::NO_CACHE, %error, "going on without a cache"),
                )
                .ok()
        };
        self.places.caches.entry(plan.dir.clone()).or_insert_with(open).clone()
    }

    pub(super) fn channel(&mut self, address: &Address) -> Result<GrpcChannel, Error> {
        let Address::Grpc { server, dialect, size_rule, timeout, attempts, compress, secrets } =
            address
        else {
            unreachable!("only addresses of servers get here");
        };
        let key = format!("{address:?}");
        if let Some(channel) = self.channels.get(&key) {
            return Ok(channel.clone());
        }
        let mut secrets = secrets.clone();
        secrets.token = secrets.token.or_else(|| self.common.token_file.clone());
        let (tls, token) = secrets
            .read(server)
            .map_err(|source| Error::Secrets { address: address.to_string(), source })?;
        let options = GrpcOptions {
            dialect: *dialect,
            size_rule: *size_rule,
            deadline: timeout.unwrap_or(DEADLINE_DEFAULT),
            attempts_max: attempts.unwrap_or(ATTEMPTS_DEFAULT),
            compress: *compress,
            offline: self.common.offline,
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

/// One service of some stores.
type OfStores<S> = fn(&Stores) -> Arc<S>;

impl Planned<'_, '_> {
    fn open(mut self) -> Result<Stores, Error> {
        let (blobs, directories) = (self.blobs()?, self.directories()?);
        let path_infos = self.path_infos(&blobs, &directories)?;
        let path_infos = signing::signed(path_infos, &self.plan.sign_keys)?;
        let nars = self.nars(&blobs, &directories)?;
        let nars = Arc::new(RememberedNars::new(nars));
        Ok(Stores { blobs, directories, path_infos, nars })
    }

    fn blobs(&mut self) -> Result<Arc<dyn BlobService>, Error> {
        let (pieces, target) = self.pieces(
            Kind::Blobs,
            |source| source.blobs.clone(),
            |stores| stores.blobs.clone(),
            |substituter| {
                let blobs = Arc::new(SubstitutedBlobs::new(substituter));
                measured::blobs(blobs, measured::BINARY_CACHES, Phase::Remote)
            },
        )?;
        let (cache, whole_len_max) = (self.cache.clone(), self.plan.whole_len_max);
        let front = move |far, verify| -> Arc<dyn BlobService> {
            let near = cache.clone().map(|near| {
                measured::blobs(Arc::new(LocalBlobs::new(near)), measured::CACHE, Phase::Disk)
            });
            let options = LazyOptions { whole_len_max, verify };
            Arc::new(LazyBlobs::new(near, cache.clone(), far, options))
        };
        let routed = |endpoint: &str, read, write| -> Arc<dyn BlobService> {
            Arc::new(RoutedBlobs::new(endpoint, read, write))
        };
        Ok(join(&self.plan.name, pieces, target, &Joints { routed, front }))
    }

    fn directories(&mut self) -> Result<Arc<dyn DirectoryService>, Error> {
        let (pieces, target) = self.pieces(
            Kind::Directories,
            |source| match source.place {
                Place::Disk => source.directories.clone().map(in_memory),
                Place::Memory | Place::Far => source.directories.clone(),
            },
            |stores| stores.directories.clone(),
            |substituter| {
                let directories = Arc::new(SubstitutedDirectories::new(substituter));
                let backend = measured::BINARY_CACHES;
                in_memory(measured::directories(directories, backend, Phase::Remote))
            },
        )?;
        let cache = self.cache.clone();
        let front = move |far, _| -> Arc<dyn DirectoryService> {
            let kept = match cache.clone() {
                Some(near) => {
                    let near = Arc::new(LocalDirectories::new(near));
                    let near = measured::directories(near, measured::CACHE, Phase::Disk);
                    in_memory(Arc::new(CachedDirectories::new(near, far)))
                }
                None => in_memory(far),
            };
            Arc::new(ArrivingDirectories::new(kept))
        };
        let routed = |endpoint: &str, read, write| -> Arc<dyn DirectoryService> {
            Arc::new(RoutedDirectories::new(endpoint, read, write))
        };
        Ok(join(&self.plan.name, pieces, target, &Joints { routed, front }))
    }

    fn path_infos(
        &mut self,
        blobs: &Arc<dyn BlobService>,
        directories: &Arc<dyn DirectoryService>,
    ) -> Result<Arc<dyn PathInfoService>, Error> {
        let absent_ttl = self.plan.absent_ttl;
        let (cache, filled) = (self.cache.clone(), self.filled()?);
        let mut pieces = Vec::new();
        for part in &self.plan.path_infos.read {
            if let Part::Source(source) = part
                && matches!(source.address, Address::Nix(_))
            {
                let service = if self.plan.is_whole(source) {
                    let near = cache.clone();
                    self.opener.substituted_path_infos(&source.address, near)?
                } else {
                    let to = (blobs.clone(), directories.clone(), filled.clone());
                    self.opener.filling(&source.address, to)?
                };
                let backend = measured::BINARY_CACHES;
                let service = measured::path_infos(service, backend, Phase::Remote);
                let service = remembered(service, absent_ttl);
                pieces.push(Piece { name: source.name.clone(), service, far: None });
                continue;
            }
            // Those on a disk are not kept in memory: another process may replace them, and the mount remembers names
            // itself.
            pieces.push(self.piece(part, |s| s.path_infos.clone(), |s| s.path_infos.clone())?);
        }
        let write = self.plan.path_infos.write.as_ref();
        let target = write
            .map(|part| self.piece(part, |s| s.path_infos.clone(), |s| s.path_infos.clone()))
            .transpose()?;
        let front = move |far, _| -> Arc<dyn PathInfoService> {
            let cached: Arc<dyn PathInfoService> = match cache.clone() {
                Some(near) => {
                    let near = Arc::new(LocalPathInfos::new(near));
                    let near = measured::path_infos(near, measured::CACHE, Phase::Disk);
                    Arc::new(CachedPathInfos::new(near, far))
                }
                None => far,
            };
            remembered(cached, absent_ttl)
        };
        let routed = |endpoint: &str, read, write| -> Arc<dyn PathInfoService> {
            Arc::new(RoutedPathInfos::new(endpoint, read, write))
        };
        Ok(join(&self.plan.name, pieces, target, &Joints { routed, front }))
    }

    /// Where it is remembered which archives were taken apart, if those go where blobs are written.
    fn filled(&mut self) -> Result<Option<Arc<LocalStore>>, Error> {
        match &self.plan.blobs.write {
            Some(Part::Source(source)) => match &source.address {
                Address::Local(dir) => self.opener.store(dir.as_deref()).map(Some),
                Address::Memory => Ok(None),
                _ => Ok(self.cache.clone()),
            },
            Some(Part::Store(_)) | None => Ok(self.cache.clone()),
        }
    }

    /// Servers calculate archive hashes of what they have. Where there is none, or it has not the contents, they are read.
    fn nars(
        &mut self,
        blobs: &Arc<dyn BlobService>,
        directories: &Arc<dyn DirectoryService>,
    ) -> Result<Arc<dyn NarCalculation>, Error> {
        let Plan { path_infos, .. } = self.plan;
        let mut all = Vec::new();
        let alone = path_infos.read.first().filter(|_| path_infos.read.len() == 1);
        for part in path_infos.write.iter().chain(alone).take(1) {
            if let Part::Source(source) = part
                && !matches!(source.address, Address::Nix(_))
            {
                all.extend(self.opener.source(&source.address)?.nars);
            }
        }
        let rendered = RenderNar { blobs: blobs.clone(), directories: directories.clone() };
        all.push(Arc::new(rendered));
        Ok(match all.len() {
            1 => all.remove(0),
            _ => Arc::new(RoutedNars(all)),
        })
    }

    /// The parts of a service that are read, and the one that is written.
    #[allow(clippy::type_complexity)] // Pieces, and one more.
    fn pieces<S: ?Sized>(
        &mut self,
        kind: Kind,
        of_source: fn(&Source) -> Option<Arc<S>>,
        of_stores: OfStores<S>,
        of_caches: fn(Arc<Substituter>) -> Arc<S>,
    ) -> Result<(Vec<Piece<S>>, Option<Piece<S>>), Error> {
        let route = self.plan.route(kind);
        let mut pieces = Vec::new();
        for part in &route.read {
            pieces.push(match part {
                Part::Source(source) if matches!(source.address, Address::Nix(_)) => {
                    let near = self.cache.clone();
                    let service = of_caches(self.opener.substituter(&source.address, near)?);
                    Piece { name: source.name.clone(), service, far: None }
                }
                part => self.piece(part, of_source, of_stores)?,
            });
        }
        // One that is read as well is the same, with all that is kept of it in memory.
        let target = route.write.as_ref().map(|part| {
            match pieces.iter().find(|piece| piece.name == part.name()) {
                Some(Piece { name, service, far }) => {
                    Ok(Piece { name: name.clone(), service: service.clone(), far: *far })
                }
                None => self.piece(part, of_source, of_stores),
            }
        });
        Ok((pieces, target.transpose()?))
    }

    fn piece<S: ?Sized>(
        &mut self,
        part: &Part,
        of_source: fn(&Source) -> Option<Arc<S>>,
        of_stores: OfStores<S>,
    ) -> Result<Piece<S>, Error> {
        let name = part.name().to_owned();
        match part {
            Part::Source(source) => {
                let opened = self.opener.measured(source)?;
                let service = of_source(&opened);
                let address = || source.address.to_string();
                let lacking = || Error::Lacking { address: address(), what: "such things" };
                let service = service.ok_or_else(lacking)?;
                let verify = self.plan.verify(source);
                let far = (opened.place == Place::Far).then_some(verify);
                Ok(Piece { name, service, far })
            }
            Part::Store(plan) => {
                let service = of_stores(&self.opener.plan(plan)?);
                // One with a cache of its own may have another before it.
                let dir = |plan: &Plan| plan.cache.as_ref().map(|cache| cache.dir.clone());
                let has_other = self.cache.is_some() && dir(plan) != dir(self.plan);
                Ok(Piece { name, service, far: has_other.then_some(Verify::Strict) })
            }
        }
    }
}

/// What stands before path infos that are far: a bounded memory, which for a while also knows what is absent.
fn remembered(
    far: Arc<dyn PathInfoService>,
    absent_ttl: std::time::Duration,
) -> Arc<dyn PathInfoService> {
    let coalesced = Arc::new(CoalescedPathInfos::new(far));
    let absent = AbsentPathInfos::new(coalesced, absent_ttl);
    Arc::new(LruPathInfos::new(Arc::new(absent), PATH_INFOS_LRU_ENTRIES_MAX))
}

fn in_memory(below: Arc<dyn DirectoryService>) -> Arc<dyn DirectoryService> {
    Arc::new(LruDirectories::new(below, DIRECTORIES_LRU_BYTES_MAX))
}

#[cfg(test)]
#[path = "opener_tests.rs"]
mod tests;
