//! What a process keeps open from one configuration to the next.

use std::{
    collections::{BTreeMap, HashMap},
    path::{Path, PathBuf},
    sync::Arc,
};

use super::{CachePlan, Kind, Part, Plan, source::Source};
use crate::service::local::LocalStore;

/// Store directories, caches, and what is in memory: the same ones, however often a store is opened.
#[derive(Debug, Clone, Default)]
pub struct Places {
    pub(super) stores: HashMap<PathBuf, Arc<LocalStore>>,
    /// Inside, `None` if none can be had.
    pub(super) caches: HashMap<PathBuf, Option<Arc<LocalStore>>>,
    pub(super) memory: Option<Source>,
}

/// Why a plan cannot take the place of another while that is in use.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NeedsRestart {
    /// A cache that would be somewhere else, or nowhere.
    #[error(
        "dir of the cache cannot change while it is in use (from {from} to {to}): change it back, or restart"
    )]
    CacheDir {
        /// Where it is.
        from: String,
        /// Where it would be.
        to: String,
    },
    /// A cache that would be larger or smaller.
    #[error(
        "size of the cache in {} cannot change while it is in use: change it back, or restart", dir.display()
    )]
    CacheSize {
        /// Which one.
        dir: PathBuf,
    },
}

impl Plan {
    /// Whether `next` can take its place without a restart.
    pub fn check_next(&self, next: &Plan) -> Result<(), NeedsRestart> {
        let told = |cache: Option<&CachePlan>| {
            cache.map_or_else(|| "none".to_owned(), |cache| cache.dir.display().to_string())
        };
        let dir = |plan: &Plan| told(plan.cache.as_deref());
        if dir(self) != dir(next) {
            return Err(NeedsRestart::CacheDir { from: dir(self), to: dir(next) });
        }
        let (mut now, mut then) = (BTreeMap::new(), BTreeMap::new());
        self.caches(&mut now);
        next.caches(&mut then);
        match then.into_iter().find(|(dir, size)| now.get(dir).is_some_and(|now| now != size)) {
            Some((dir, _)) => Err(NeedsRestart::CacheSize { dir: dir.to_owned() }),
            None => Ok(()),
        }
    }

    /// Its caches and those of the stores in it, with their sizes.
    fn caches<'p>(&'p self, found: &mut BTreeMap<&'p Path, Option<u64>>) {
        found.extend(self.cache.iter().map(|cache| (&*cache.dir, cache.size_max)));
        for kind in Kind::ALL {
            let route = self.route(kind);
            for part in route.read.iter().chain(&route.write) {
                if let Part::Store(plan) = part {
                    plan.caches(found);
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::compose::Route;

    fn plan(dir: &str, size_max: Option<u64>, inner: Option<Plan>) -> Plan {
        let cache = (dir != "none").then(|| Arc::new(CachePlan { dir: dir.into(), size_max }));
        let read = inner.map(|plan| Part::Store(Arc::new(plan))).into_iter().collect();
        Plan::new("plan".to_owned(), Route { read, write: None }, cache)
    }

    #[test]
    fn a_cache_in_use_stays_as_it_is() {
        let now = plan("/a", Some(1), Some(plan("/inner", Some(2), None)));
        let next = |dir: &str, size: u64, inner: &str, inner_size: u64| {
            let inner = Some(plan(inner, Some(inner_size), None));
            now.check_next(&plan(dir, Some(size), inner)).map_err(|error| error.to_string())
        };
        assert_eq!(next("/a", 1, "/inner", 2), Ok(()));
        assert_eq!(next("/a", 1, "/another", 3), Ok(()));
        for dir in ["/b", "none"] {
            let refused = next(dir, 1, "/inner", 2).expect_err("in use");
            assert!(refused.contains(&format!(
                "dir of the cache cannot change while it is in use (from /a to {dir})"
            )));
        }
        assert!(
            next("/a", 2, "/inner", 2).expect_err("in use").contains("size of the cache in /a")
        );
        assert!(
            next("/a", 1, "/inner", 3).expect_err("in use").contains("size of the cache in /inner")
        );
    }
}
