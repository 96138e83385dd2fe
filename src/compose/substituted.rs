//! Binary caches into stacks of services.

use std::sync::Arc;

use super::{Address, Error, Opener};
use crate::{
    service::{
        blob::{BlobService, backend::LocalBlobs},
        directory::{DirectoryService, backend::LocalDirectories},
        grpc::DEADLINE_DEFAULT,
        pathinfo::{
            PathInfoService,
            backend::LocalPathInfos,
            layer::{AbsentPathInfos, CachedPathInfos, CoalescedPathInfos, LruPathInfos},
        },
    },
    substitute::{
        ArchiveRecords, BelievedPathInfos, BinaryCache, Destination, RecordsInMemory,
        RecordsInStore, SubstitutedPathInfos, Substituter,
    },
};

impl Opener<'_> {
    /// The binary caches at `address` as a whole store, whose archives go into the cache.
    pub(super) fn substituter(&mut self, address: &Address) -> Result<Arc<Substituter>, Error> {
        let key = format!("{address:?}");
        if let Some(substituter) = self.substituters.get(&key) {
            return Ok(substituter.clone());
        }
        let near = self.cache();
        let near = near.ok_or_else(|| Error::NoCacheDir { address: address.to_string() })?;
        let open = |source| Error::Open { address: address.to_string(), source };
        let bound = near.bound().map_or(u64::MAX, |bound| bound.size_max());
        let to = Destination {
            blobs: Arc::new(LocalBlobs::new(near.clone())),
            directories: Arc::new(LocalDirectories::new(near.clone())),
            records: Arc::new(RecordsInStore::new(near).map_err(open)?),
            is_cache: true,
            blob_len_max: bound / 2,
        };
        let substituter = self.caches(address, to)?;
        self.substituters.insert(key, substituter.clone());
        Ok(substituter)
    }

    /// What the binary caches at `address` know, whose archives go into the services at `blobs`, which are open.
    pub(super) fn filling(
        &mut self,
        address: &Address,
        at: &Address,
        blobs: &Arc<dyn BlobService>,
        directories: &Arc<dyn DirectoryService>,
    ) -> Result<Arc<dyn PathInfoService>, Error> {
        let store = match at {
            Address::Local(dir) => Some(self.store(dir.as_deref())?),
            Address::Memory => None,
            _ => self.cache(),
        };
        let open = |source| Error::Open { address: address.to_string(), source };
        let records: Arc<dyn ArchiveRecords> = match store {
            Some(store) => Arc::new(RecordsInStore::new(store).map_err(open)?),
            None => Arc::new(RecordsInMemory::default()),
        };
        let (blobs, directories) = (blobs.clone(), directories.clone());
        let to =
            Destination { blobs, directories, records, is_cache: false, blob_len_max: u64::MAX };
        let far = Arc::new(SubstitutedPathInfos::new(self.caches(address, to)?));
        Ok(self.remembered(far))
    }

    /// What the binary caches at `address` know, as a whole store.
    pub(super) fn substituted_path_infos(
        &mut self,
        address: &Address,
    ) -> Result<Arc<dyn PathInfoService>, Error> {
        let substituter = self.substituter(address)?;
        let mut far: Arc<dyn PathInfoService> =
            Arc::new(SubstitutedPathInfos::new(substituter.clone()));
        if let Some(near) = self.cache() {
            let near = Arc::new(LocalPathInfos::new(near));
            let near = Arc::new(BelievedPathInfos::new(near, substituter));
            far = Arc::new(CachedPathInfos::new(near, far));
        }
        Ok(self.remembered(far))
    }

    fn remembered(&self, far: Arc<dyn PathInfoService>) -> Arc<dyn PathInfoService> {
        let coalesced = Arc::new(CoalescedPathInfos::new(far));
        let absent = AbsentPathInfos::new(coalesced, self.addresses.absent_ttl);
        Arc::new(LruPathInfos::new(Arc::new(absent), super::PATH_INFOS_LRU_ENTRIES_MAX))
    }

    fn caches(&self, address: &Address, to: Destination) -> Result<Arc<Substituter>, Error> {
        let Address::Nix(caches) = address else {
            unreachable!("only addresses of binary caches get here");
        };
        let caches = caches.iter().map(|cache| {
            let deadline = cache.timeout.unwrap_or(DEADLINE_DEFAULT);
            let opened = BinaryCache::new(cache.options.clone(), deadline, self.addresses.offline);
            opened.map_err(|source| {
                let address = format!("nix+{}", cache.options.url);
                Error::Cache { address, source: Box::new(source) }
            })
        });
        Ok(Substituter::new(caches.collect::<Result<_, _>>()?, to))
    }
}
