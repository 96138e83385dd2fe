//! Whether store paths are what they should be: every byte against every digest, archive hash, content address and
//! signature.
//!
//! **Memory.** Of each path that is looked at, what rendering its archive takes, and a bounded number of findings.
//! Nothing is remembered of a path once it was told of: a store may have millions.

mod checked;
mod finding;
mod survey;

use std::{
    collections::HashSet,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
};

use futures::{Stream, StreamExt as _};

pub use finding::{Finding, Problem};

use crate::{
    castore::Node,
    nix::{NarHash, NarInfo, PathInfo, PublicKey, StorePath, nar::NarHasher},
    render::{is_as_claimed, write_nar},
    service::{
        self, Stores,
        blob::{BlobService, layer::VerifiedBlobs},
        directory::{DirectoryService, layer::VerifiedDirectories},
        pathinfo::PathInfoService,
    },
};
use checked::CheckedBlobs;
use survey::survey;

/// What errors call the store.
const ENDPOINT: &str = "the store";

/// How far an audit is. Shared with whoever shows it.
#[derive(Debug, Default)]
pub struct Progress {
    paths: AtomicU64,
    bytes: AtomicU64,
}

/// Looks at store paths.
#[derive(Debug, Clone)]
pub struct Auditor {
    /// Hashes what it hands out.
    blobs: Arc<dyn BlobService>,
    directories: Arc<dyn DirectoryService>,
    path_infos: Arc<dyn PathInfoService>,
    keys: Arc<[PublicKey]>,
    progress: Arc<Progress>,
}

/// What was found of one store path: nothing, if all is well.
#[derive(Debug)]
pub struct Audited {
    /// The store path.
    pub store_path: StorePath,
    /// What is wrong with it.
    pub findings: Vec<Finding>,
}

impl Progress {
    /// How many store paths were looked at.
    pub fn paths(&self) -> u64 {
        self.paths.load(Relaxed)
    }

    /// How many bytes of contents were hashed.
    pub fn bytes(&self) -> u64 {
        self.bytes.load(Relaxed)
    }
}

impl Auditor {
    /// Looks into `stores`. If there are `keys`, each path must be signed by one of them, or follow from its contents.
    pub fn new(stores: &Stores, keys: Vec<PublicKey>, progress: Arc<Progress>) -> Self {
        let blobs = VerifiedBlobs::new(ENDPOINT, stores.blobs.clone());
        let directories = VerifiedDirectories::new(ENDPOINT, stores.directories.clone());
        Auditor {
            blobs: Arc::new(CheckedBlobs::new(blobs, progress.clone())),
            directories: Arc::new(directories),
            path_infos: stores.path_infos.clone(),
            keys: keys.into(),
            progress,
        }
    }

    /// Looks at all that come, several at once. Tells of each when it is done, in any order. An error that comes is
    /// handed on. Needs the context of the runtime.
    pub fn audit_all(
        &self,
        path_infos: impl Stream<Item = service::Result<PathInfo>> + Send,
    ) -> impl Stream<Item = service::Result<Audited>> + Send {
        // Hashing is all the work: more at once would only take memory.
        let at_once = std::thread::available_parallelism().map_or(2, usize::from);
        let audits = path_infos.map(|path_info| {
            let this = self.clone();
            async move {
                let path_info = path_info?;
                let audit = tokio::spawn(async move { this.audit(path_info).await }).await;
                audit.map_err(|error| service::Error::unavailable(ENDPOINT, error))
            }
        });
        audits.buffer_unordered(at_once)
    }

    /// Looks at one store path.
    pub async fn audit(&self, path_info: PathInfo) -> Audited {
        let PathInfo { store_path, node, details: _ } = &path_info;
        let mut findings = Vec::new();
        let nar = self.archive(store_path, node, &mut findings).await;
        match (path_info.nar_info(), nar) {
            (Some(info), Some(nar)) => {
                self.check_info(store_path, node, info, nar, &mut findings).await;
            }
            (None, _) if !self.keys.is_empty() => {
                findings.push(Finding::of(store_path, Problem::Unsigned));
            }
            (Some(_), None) | (None, _) => {}
        }
        self.check_references(&path_info, &mut findings).await;
        self.progress.paths.fetch_add(1, Relaxed);
        Audited { store_path: path_info.store_path, findings }
    }

    /// Reads and hashes all that lies in a path, once. If something is wrong, all that is wrong is looked for.
    async fn archive(
        &self,
        store_path: &StorePath,
        node: &Node,
        findings: &mut Vec<Finding>,
    ) -> Option<NarHash> {
        let hasher = NarHasher::default();
        match write_nar(&self.blobs, &self.directories, node, hasher).await {
            Ok(hasher) => Some(hasher.finish()),
            Err(error) => {
                survey(&*self.blobs, &*self.directories, store_path, node, findings).await;
                if findings.is_empty() {
                    // It was only then: a remote, or a disk, that fails sometimes.
                    let problem = Problem::Unreadable(error.into_service_error());
                    findings.push(Finding::of(store_path, problem));
                }
                None
            }
        }
    }

    /// Compares what is known of a path with what was found, `nar`.
    async fn check_info(
        &self,
        store_path: &StorePath,
        node: &Node,
        info: &NarInfo,
        nar: NarHash,
        findings: &mut Vec<Finding>,
    ) {
        let mut add = |problem| findings.push(Finding::of(store_path, problem));
        let is_same = nar == info.nar;
        if !is_same {
            add(Problem::NarHash { found: nar, expected: info.nar });
        }
        let mut follows_from_contents = false;
        match (info.ca, info.content_claim(store_path)) {
            (None, _) => {}
            (Some(ca), None) => add(Problem::AddressName(ca)),
            (Some(ca), Some(claim)) => {
                let holds = match claim.holds_for(&nar) {
                    Some(holds) => Ok(holds),
                    None => is_as_claimed(&self.blobs, &self.directories, node, &claim).await,
                };
                match holds {
                    Ok(true) => follows_from_contents = true,
                    Ok(false) => add(Problem::Address(ca)),
                    Err(error) => add(Problem::Unreadable(error.into_service_error())),
                }
            }
        }
        let valid: HashSet<_> = info.valid_signatures(store_path, &self.keys).into_iter().collect();
        let of_key = |name| self.keys.iter().any(|key| key.name() == name);
        for signature in &info.signatures {
            if of_key(signature.key_name()) && !valid.contains(signature) {
                add(Problem::Signature(signature.key_name().to_owned()));
            }
        }
        if !self.keys.is_empty() && valid.is_empty() && !follows_from_contents {
            add(Problem::Unsigned);
        }
    }

    async fn check_references(&self, path_info: &PathInfo, findings: &mut Vec<Finding>) {
        let store_path = &path_info.store_path;
        let names = path_info.nar_info().map_or(&[][..], |info| &info.references);
        for (at, digest) in path_info.references().enumerate() {
            if digest == store_path.digest() {
                continue;
            }
            let problem = match self.path_infos.get(&digest).await {
                Ok(Some(found)) if names.get(at).is_none_or(|name| *name == found.store_path) => {
                    continue;
                }
                Ok(_) => {
                    let name =
                        names.get(at).map_or_else(|| digest.to_string(), ToString::to_string);
                    Problem::Reference(name)
                }
                Err(error) => Problem::Unreadable(error),
            };
            findings.push(Finding::of(store_path, problem));
        }
    }
}
