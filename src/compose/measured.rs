//! Counts what each backend is asked, under the name that its source has in the configuration file, or else by its kind.

use std::sync::Arc;

use super::{
    Address, Error, SourcePlan,
    opener::Opener,
    shorthand,
    source::{Place, Source},
};
use crate::{
    observe::spent::Phase,
    service::{
        blob::{
            BlobService,
            layer::{BlobCounters, MeasuredBlobs},
        },
        counters::Backend,
        directory::{
            DirectoryService,
            layer::{DirectoryCounters, MeasuredDirectories},
        },
        pathinfo::{
            PathInfoService,
            layer::{MeasuredPathInfos, PathInfoCounters},
        },
    },
};

/// What the cache before far stores is called.
pub(super) const CACHE: &str = "cache";

/// What binary caches are called.
pub(super) const BINARY_CACHES: &str = "nix";

impl Opener<'_> {
    /// The services of a source, counted.
    pub(super) fn measured(&mut self, plan: &SourcePlan) -> Result<Source, Error> {
        let key = format!("{} {:?}", plan.name, plan.address);
        if let Some(source) = self.measured.get(&key) {
            return Ok(source.clone());
        }
        let mut source = self.source(&plan.address)?;
        let backend = match shorthand::is_unnamed(&plan.name) {
            true => plan.address.kind(),
            false => &plan.name,
        };
        let phase = match source.place {
            Place::Memory | Place::Disk => Phase::Disk,
            Place::Far => Phase::Remote,
        };
        source.blobs = source.blobs.map(|inner| blobs(inner, backend, phase));
        source.directories = source.directories.map(|inner| directories(inner, backend, phase));
        source.path_infos = source.path_infos.map(|inner| path_infos(inner, backend, phase));
        self.measured.insert(key, source.clone());
        Ok(source)
    }
}

impl Address {
    /// What kind of place it is, in a word.
    fn kind(&self) -> &'static str {
        match self {
            Address::Memory => "memory",
            Address::Local(_) => "local",
            Address::Grpc { .. } => "grpc",
            Address::Cloud(address) => address.kind(),
            Address::Nix(_) => BINARY_CACHES,
        }
    }
}

pub(super) fn blobs(
    inner: Arc<dyn BlobService>,
    backend: &str,
    phase: Phase,
) -> Arc<dyn BlobService> {
    let counters = Arc::new(BlobCounters::default());
    counters.tell(backend);
    Arc::new(MeasuredBlobs::new(inner, counters, Backend::new(backend, phase)))
}

pub(super) fn directories(
    inner: Arc<dyn DirectoryService>,
    backend: &str,
    phase: Phase,
) -> Arc<dyn DirectoryService> {
    let counters = Arc::new(DirectoryCounters::default());
    counters.tell(backend);
    Arc::new(MeasuredDirectories::new(inner, counters, Backend::new(backend, phase)))
}

pub(super) fn path_infos(
    inner: Arc<dyn PathInfoService>,
    backend: &str,
    phase: Phase,
) -> Arc<dyn PathInfoService> {
    let counters = Arc::new(PathInfoCounters::default());
    counters.tell(backend);
    Arc::new(MeasuredPathInfos::new(inner, counters, Backend::new(backend, phase)))
}
