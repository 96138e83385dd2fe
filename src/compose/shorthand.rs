//! The addresses of the command line, which are short for a plan.

use std::{path::PathBuf, sync::Arc, time::Duration};

use super::{Address, CachePlan, Common, Error, Part, Plan, Route, SourcePlan, open_plan};
use crate::service::{Stores, blob::layer::Verify};

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

/// Opens the services at `addresses`. Connections are made in the background, so that a store can be mounted while the
/// network is down. Needs the context of a tokio runtime.
pub fn open(addresses: &Addresses) -> Result<Stores, Error> {
    open_plan(&addresses.plan()?, &addresses.common())
}

impl Addresses {
    /// What they are short for.
    pub fn plan(&self) -> Result<Plan, Error> {
        let mut sources = Sources { known: Vec::new(), is_strict: self.verify == Verify::Strict };
        let store = sources.source(self.store.as_deref().unwrap_or("local:"))?;
        let cache = |dir| Arc::new(CachePlan { dir, size_max: self.cache_size_max });
        let cache = self.cache_dir.clone().map(cache);
        let mut plan = Plan::new("the store".to_owned(), Route::alone(store), cache);
        plan.whole_len_max = self.whole_len_max;
        plan.absent_ttl = self.absent_ttl;
        self.replace_in(&mut plan, &mut sources)?;
        Ok(plan)
    }

    /// The store of a plan, in which the services are elsewhere that have addresses of their own.
    pub fn plan_on(&self, base: &Plan) -> Result<Plan, Error> {
        let mut sources = Sources { known: Vec::new(), is_strict: self.verify == Verify::Strict };
        let mut plan = base.clone();
        self.replace_in(&mut plan, &mut sources)?;
        Ok(plan)
    }

    fn replace_in(&self, plan: &mut Plan, sources: &mut Sources) -> Result<(), Error> {
        let own = [
            (&self.blobs, &mut plan.blobs),
            (&self.directories, &mut plan.directories),
            (&self.path_infos, &mut plan.path_infos),
        ];
        for (address, route) in own {
            if let Some(address) = address {
                *route = Route::alone(sources.source(address)?);
            }
        }
        Ok(())
    }

    /// What they say of all stores.
    pub fn common(&self) -> Common {
        Common {
            store_dir: self.store_dir.clone(),
            token_file: self.token_file.clone(),
            offline: self.offline,
        }
    }
}

/// What the name of a source begins with that has none of its own.
const UNNAMED: &str = "address ";

/// Whether a source of this name was only given by its address.
pub(super) fn is_unnamed(name: &str) -> bool {
    name.starts_with(UNNAMED)
}

/// The sources that addresses stand for: the same address is the same source.
struct Sources {
    known: Vec<Arc<SourcePlan>>,
    is_strict: bool,
}

impl Sources {
    fn source(&mut self, text: &str) -> Result<Part, Error> {
        let address: Address = text.parse()?;
        if let Some(known) = self.known.iter().find(|source| source.address == address) {
            return Ok(Part::Source(known.clone()));
        }
        let verify = self.is_strict.then_some(Verify::Strict);
        let name = format!("{UNNAMED}{}", self.known.len() + 1);
        let source = Arc::new(SourcePlan { name, address, verify });
        self.known.push(source.clone());
        Ok(Part::Source(source))
    }
}
