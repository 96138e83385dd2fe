//! A store as it is to be opened: what addresses and configuration files come to.

use std::{path::PathBuf, sync::Arc, time::Duration};

use super::{Address, Error};
use crate::service::blob::layer::{Verify, WHOLE_LEN_MAX};

/// Up to how many bytes a blob is fetched whole, if nobody says.
pub const WHOLE_LEN_MAX_DEFAULT: u64 = WHOLE_LEN_MAX;

/// For how long it is remembered that something is absent, if nobody says.
pub const ABSENT_TTL_DEFAULT: Duration = Duration::from_secs(5);

/// One store: three services, each of which may come from several sources.
#[derive(Debug, Clone)]
pub struct Plan {
    /// What it is called.
    pub name: String,
    /// Where contents are.
    pub blobs: Route,
    /// Where directories are.
    pub directories: Route,
    /// Where store paths are.
    pub path_infos: Route,
    /// Where what comes from far is kept. `None` for nowhere.
    pub cache: Option<Arc<CachePlan>>,
    /// Files with secret keys, by which what is written is signed.
    pub sign_keys: Vec<PathBuf>,
    /// Up to how many bytes a blob that is far is fetched whole, in one request.
    pub whole_len_max: u64,
    /// For how long it is remembered that nobody far has a path info of some name.
    pub absent_ttl: Duration,
}

/// From where a service reads, and to where it writes.
#[derive(Debug, Clone, Default)]
pub struct Route {
    /// Asked in this order.
    pub read: Vec<Part>,
    /// `None` if nothing may be written.
    pub write: Option<Part>,
}

/// A part of a store.
#[derive(Debug, Clone)]
pub enum Part {
    /// One place.
    Source(Arc<SourcePlan>),
    /// Another store.
    Store(Arc<Plan>),
}

/// One place where things are.
#[derive(Debug)]
pub struct SourcePlan {
    /// What it is called.
    pub name: String,
    /// Where it is.
    pub address: Address,
    /// What is believed of it without proof. `None` for what fits: [`Verify::Source`] if it alone has both blobs and path
    /// infos.
    pub verify: Option<Verify>,
}

/// A directory in which what comes from far is kept.
#[derive(Debug)]
pub struct CachePlan {
    /// Where.
    pub dir: PathBuf,
    /// How much it may take of the disk, in bytes. `None` for a tenth of it, but no less than 1 GiB.
    pub size_max: Option<u64>,
}

/// Which of the three services.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Contents of files.
    Blobs,
    /// Directories.
    Directories,
    /// Store paths.
    PathInfos,
}

/// A part of a plan that does not fit.
#[derive(Debug)]
pub struct Misfit {
    /// In which service.
    pub kind: Kind,
    /// Which part of it, by its name.
    pub part: String,
    /// Whether it is the one that is written to.
    pub is_target: bool,
    /// What is wrong with it.
    pub error: Error,
}

impl Part {
    /// What it is called.
    pub fn name(&self) -> &str {
        match self {
            Part::Source(source) => &source.name,
            Part::Store(plan) => &plan.name,
        }
    }

    fn source(&self) -> Option<&SourcePlan> {
        match self {
            Part::Source(source) => Some(source),
            Part::Store(_) => None,
        }
    }
}

impl Kind {
    /// All of them.
    pub const ALL: [Kind; 3] = [Kind::Blobs, Kind::Directories, Kind::PathInfos];

    /// What it is called in a sentence.
    pub fn plural(self) -> &'static str {
        match self {
            Kind::Blobs => "blobs",
            Kind::Directories => "directories",
            Kind::PathInfos => "path infos",
        }
    }
}

impl Route {
    /// From one part, and to it if it takes anything.
    pub fn alone(part: Part) -> Self {
        let write = match &part {
            Part::Source(source) => !source.address.is_read_only(),
            Part::Store(_) => true,
        };
        Route { read: vec![part.clone()], write: write.then_some(part) }
    }

    pub(super) fn reads(&self, name: &str) -> bool {
        self.read.iter().any(|part| part.name() == name)
    }
}

impl Plan {
    /// A store whose three services have the same route.
    pub fn new(name: String, route: Route, cache: Option<Arc<CachePlan>>) -> Self {
        let [blobs, directories, path_infos] = [route.clone(), route.clone(), route];
        Plan {
            name,
            blobs,
            directories,
            path_infos,
            cache,
            sign_keys: Vec::new(),
            whole_len_max: WHOLE_LEN_MAX_DEFAULT,
            absent_ttl: ABSENT_TTL_DEFAULT,
        }
    }

    /// The route of one service.
    pub fn route(&self, kind: Kind) -> &Route {
        match kind {
            Kind::Blobs => &self.blobs,
            Kind::Directories => &self.directories,
            Kind::PathInfos => &self.path_infos,
        }
    }

    /// What is believed without proof of a source of its blobs.
    pub(super) fn verify(&self, source: &SourcePlan) -> Verify {
        // Who says which store path is which could name any contents there; of what others say, nothing is believed.
        let alone = |route: &Route| route.read.len() == 1 && route.reads(&source.name);
        match source.verify {
            Some(verify) => verify,
            None if alone(&self.blobs) && alone(&self.path_infos) => Verify::Source,
            None => Verify::Strict,
        }
    }

    /// Whether a source of binary caches has all of the store, so that its archives go into the cache. Else it only knows
    /// path infos, and its archives go into the other two services.
    pub(super) fn is_whole(&self, source: &SourcePlan) -> bool {
        Kind::ALL.iter().all(|kind| self.route(*kind).reads(&source.name))
    }

    /// The store for whoever only adds to it: what is read is what is written, so that nothing is left out because it lies
    /// in another source, and no other source has to answer.
    pub fn target(&self) -> Result<Plan, Error> {
        let route = |kind| match &self.route(kind).write {
            Some(part) => Ok(Route { read: vec![part.clone()], write: Some(part.clone()) }),
            None => Err(Error::NoTarget { store: self.name.clone(), what: kind.plural() }),
        };
        Ok(Plan {
            blobs: route(Kind::Blobs)?,
            directories: route(Kind::Directories)?,
            path_infos: route(Kind::PathInfos)?,
            ..self.clone()
        })
    }

    /// Whether it cannot be opened without a cache: archives come whole, and have to be taken apart somewhere.
    pub fn needs_cache(&self) -> bool {
        let mut sources = self.path_infos.read.iter().filter_map(Part::source);
        sources.any(|source| matches!(source.address, Address::Nix(_)) && self.is_whole(source))
    }

    /// Finds what cannot work, before anything is opened.
    pub fn check(&self) -> Result<(), Misfit> {
        for kind in Kind::ALL {
            let route = self.route(kind);
            for part in &route.read {
                let misfit =
                    |error| Misfit { kind, part: part.name().to_owned(), is_target: false, error };
                if let Some(source) = part.source() {
                    self.check_source(kind, source).map_err(misfit)?;
                }
            }
            if let Some(Part::Source(source)) = &route.write
                && let Err(error) = check_target(kind, source)
            {
                return Err(Misfit { kind, part: source.name.clone(), is_target: true, error });
            }
        }
        Ok(())
    }

    fn check_source(&self, kind: Kind, source: &SourcePlan) -> Result<(), Error> {
        let address = || source.address.to_string();
        if !source.address.holds(kind) {
            return Err(Error::Lacking { address: address(), what: kind.plural() });
        }
        if !matches!(source.address, Address::Nix(_)) {
            return Ok(());
        }
        let only_path_infos =
            !self.blobs.reads(&source.name) && !self.directories.reads(&source.name);
        if self.is_whole(source) {
            return match self.cache {
                Some(_) => Ok(()),
                None => Err(Error::NoCacheDir { address: address() }),
            };
        }
        match only_path_infos {
            true if self.blobs.write.is_some() && self.directories.write.is_some() => Ok(()),
            true => Err(Error::NothingToFill { address: address() }),
            false => Err(Error::Apart { address: address() }),
        }
    }
}

fn check_target(kind: Kind, source: &SourcePlan) -> Result<(), Error> {
    let address = || source.address.to_string();
    if !source.address.holds(kind) {
        return Err(Error::Lacking { address: address(), what: kind.plural() });
    }
    match source.address.is_read_only() {
        true => Err(Error::ReadOnly { address: address() }),
        false => Ok(()),
    }
}
