//! Binary caches into stacks of services.

use std::sync::Arc;

use super::{Address, Error, opener::Opener};
use crate::{
    service::{
        blob::{BlobService, backend::LocalBlobs},
        directory::{DirectoryService, backend::LocalDirectories},
        grpc::DEADLINE_DEFAULT,
        local::LocalStore,
        pathinfo::{PathInfoService, backend::LocalPathInfos, layer::CachedPathInfos},
    },
    substitute::{
        ArchiveRecords, BelievedPathInfos, BinaryCache, Destination, RecordsInMemory,
        RecordsInStore, SubstitutedPathInfos, Substituter,
    },
};

/// Where archives go that do not go into a cache: two services, and the store directory in which it is remembered.
pub(super) type Filled = (Arc<dyn BlobService>, Arc<dyn DirectoryService>, Option<Arc<LocalStore>>);

impl Opener<'_> {
    /// The binary caches at `address` as a whole store, whose archives go into the cache `near`.
    pub(super) fn substituter(
        &mut self,
        address: &Address,
        near: Option<Arc<LocalStore>>,
    ) -> Result<Arc<Substituter>, Error> {
        let key = format!("{address:?}");
        if let Some(substituter) = self.substituters.get(&key) {
            return Ok(substituter.clone());
        }
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

    /// What the binary caches at `address` know, whose archives go into other services, which are open.
    pub(super) fn filling(
        &mut self,
        address: &Address,
        (blobs, directories, store): Filled,
    ) -> Result<Arc<dyn PathInfoService>, Error> {
        let open = |source| Error::Open { address: address.to_string(), source };
        let records: Arc<dyn ArchiveRecords> = match store {
            Some(store) => Arc::new(RecordsInStore::new(store).map_err(open)?),
            None => Arc::new(RecordsInMemory::default()),
        };
        let to =
            Destination { blobs, directories, records, is_cache: false, blob_len_max: u64::MAX };
        Ok(Arc::new(SubstitutedPathInfos::new(self.caches(address, to)?)))
    }

    /// What the binary caches at `address` know, as a whole store with the cache `near`.
    pub(super) fn substituted_path_infos(
        &mut self,
        address: &Address,
        near: Option<Arc<LocalStore>>,
    ) -> Result<Arc<dyn PathInfoService>, Error> {
        let substituter = self.substituter(address, near.clone())?;
        let far = Arc::new(SubstitutedPathInfos::new(substituter.clone()));
        let Some(near) = near else { return Ok(far) };
        let near = Arc::new(LocalPathInfos::new(near));
        let near = Arc::new(BelievedPathInfos::new(near, substituter));
        Ok(Arc::new(CachedPathInfos::new(near, far)))
    }

    fn caches(&self, address: &Address, to: Destination) -> Result<Arc<Substituter>, Error> {
        let Address::Nix(caches) = address else {
            unreachable!("only addresses of binary caches get here");
        };
        let caches = caches.iter().map(|cache| {
            let deadline = cache.timeout.unwrap_or(DEADLINE_DEFAULT);
            let opened = BinaryCache::new(cache.options.clone(), deadline, self.common.offline);
            opened.map_err(|source| {
                let address = format!("nix+{}", cache.options.url);
                Error::Cache { address, source: Box::new(source) }
            })
        });
        Ok(Substituter::new(caches.collect::<Result<_, _>>()?, to))
    }
}
