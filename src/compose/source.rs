//! What one address offers, before anything is put in front of it. A new kind of address is one arm here.

use std::sync::Arc;

use super::{Address, Error, Kind, opener::Opener};
use crate::service::{
    blob::{
        BlobService,
        backend::{GrpcBlobs, LocalBlobs, MemoryBlobs},
        layer::VerifiedBlobs,
    },
    directory::{
        DirectoryService,
        backend::{GrpcDirectories, LocalDirectories, MemoryDirectories},
    },
    grpc::GrpcChannel,
    local::LocalStore,
    pathinfo::{
        NarCalculation, PathInfoService,
        backend::{GrpcPathInfos, LocalPathInfos, MemoryPathInfos},
    },
};

/// The services at one address. They release nothing that is wrong: what does not check itself is behind a layer that
/// does.
#[derive(Debug, Clone)]
pub(super) struct Source {
    /// `None` if no blobs can be there, as with the two below.
    pub(super) blobs: Option<Arc<dyn BlobService>>,
    pub(super) directories: Option<Arc<dyn DirectoryService>>,
    pub(super) path_infos: Option<Arc<dyn PathInfoService>>,
    /// What calculates archive hashes there.
    pub(super) nars: Option<Arc<dyn NarCalculation>>,
    pub(super) place: Place,
}

/// Where a source is, as far as that says what is put in front of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Place {
    /// In the memory of this process.
    Memory,
    /// On a disk of this machine.
    Disk,
    /// Behind a network, or as slow: a cache is worth it.
    Far,
}

impl Address {
    /// Whether such things can be there at all.
    pub(super) fn holds(&self, kind: Kind) -> bool {
        match self {
            Address::Memory | Address::Local(_) | Address::Grpc { .. } | Address::Nix(_) => true,
            Address::Cloud(address) => address.holds(kind),
        }
    }

    /// Whether nothing can be written there.
    pub(super) fn is_read_only(&self) -> bool {
        match self {
            Address::Memory | Address::Local(_) | Address::Grpc { .. } => false,
            Address::Cloud(address) => address.is_read_only(),
            Address::Nix(_) => true,
        }
    }
}

impl Opener<'_> {
    /// The services at `address`, which is none of binary caches: those fill other services, and are opened apart.
    pub(super) fn source(&mut self, address: &Address) -> Result<Source, Error> {
        let key = format!("{address:?}");
        if let Some(source) = self.sources.get(&key) {
            return Ok(source.clone());
        }
        let source = match address {
            Address::Memory => self.places.memory.get_or_insert_with(memory).clone(),
            Address::Local(dir) => local(self.store(dir.as_deref())?),
            Address::Grpc { .. } => grpc(self.channel(address)?),
            Address::Cloud(address) => self.cloud(address)?,
            Address::Nix(_) => unreachable!("binary caches do not get here"),
        };
        self.sources.insert(key, source.clone());
        Ok(source)
    }
}

fn memory() -> Source {
    Source {
        blobs: Some(Arc::new(MemoryBlobs::new())),
        directories: Some(Arc::new(MemoryDirectories::new())),
        path_infos: Some(Arc::new(MemoryPathInfos::new())),
        nars: None,
        place: Place::Memory,
    }
}

fn local(store: Arc<LocalStore>) -> Source {
    Source {
        blobs: Some(Arc::new(LocalBlobs::new(store.clone()))),
        directories: Some(Arc::new(LocalDirectories::new(store.clone()))),
        path_infos: Some(Arc::new(LocalPathInfos::new(store))),
        nars: None,
        place: Place::Disk,
    }
}

/// Directories and path infos are checked by the backends themselves.
fn grpc(channel: GrpcChannel) -> Source {
    let endpoint = channel.endpoint().clone();
    let blobs = Arc::new(GrpcBlobs::new(channel.clone()));
    let path_infos = Arc::new(GrpcPathInfos::new(channel.clone()));
    Source {
        blobs: Some(Arc::new(VerifiedBlobs::new(&endpoint, blobs))),
        directories: Some(Arc::new(GrpcDirectories::new(channel))),
        path_infos: Some(path_infos.clone()),
        nars: Some(path_infos),
        place: Place::Far,
    }
}
