//! What is counted in many rooms.

use super::{Counter, Scrape, names};

/// A cache that is asked first.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Cache {
    /// Contents of files, on the local disk.
    Blobs,
    /// Directories, in memory.
    DirectoriesInMemory,
    /// Directories, on the local disk.
    Directories,
    /// Path infos, in memory.
    PathInfosInMemory,
    /// Path infos, on the local disk.
    PathInfos,
    /// That there is no path info of some name, in memory.
    Absent,
}

/// Each with its labels, in their order.
const CACHES: [(&str, &str); 6] = [
    ("blob", "disk"),
    ("directory", "memory"),
    ("directory", "disk"),
    ("path_info", "memory"),
    ("path_info", "disk"),
    ("absent", "memory"),
];

static HITS: [Counter; CACHES.len()] = [const { Counter::new() }; CACHES.len()];
static MISSES: [Counter; CACHES.len()] = [const { Counter::new() }; CACHES.len()];

impl Cache {
    /// What was wanted was there.
    #[inline]
    pub fn hit(self) {
        HITS[self as usize].add(1);
    }

    /// What was wanted was not there.
    #[inline]
    pub fn missed(self) {
        MISSES[self as usize].add(1);
    }

    /// What was wanted was there, or not.
    #[inline]
    pub fn asked<T>(self, found: &Option<T>) {
        match found {
            Some(_) => self.hit(),
            None => self.missed(),
        }
    }
}

/// Why something is fetched.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reason {
    /// Somebody wants to read it.
    Read,
    /// Somebody may want to read it soon.
    Ahead,
    /// It is in an archive of which something is wanted.
    Archive,
}

const REASONS: [&str; 3] = ["read", "ahead", "archive"];
static FETCHED: [Counter; REASONS.len()] = [const { Counter::new() }; REASONS.len()];

tokio::task_local! {
    static AHEAD: ();
}

impl Reason {
    /// Bytes came from a far store.
    pub fn fetched(self, bytes: u64) {
        FETCHED[self as usize].add(bytes);
    }

    /// Why this task fetches: to read, or [ahead].
    pub fn of_this_task() -> Reason {
        match AHEAD.try_with(|()| ()) {
            Ok(()) => Reason::Ahead,
            Err(_) => Reason::Read,
        }
    }
}

/// What is fetched until `work` is done is fetched ahead.
pub async fn ahead<T>(work: impl Future<Output = T>) -> T {
    AHEAD.scope((), work).await
}

/// Where what the kernel reads comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Source {
    /// A file on the local disk.
    File,
    /// The blob service, which may have fetched it.
    Store,
}

const SOURCES: [&str; 2] = ["file", "store"];
static READ: [Counter; SOURCES.len()] = [const { Counter::new() }; SOURCES.len()];

impl Source {
    /// The kernel got bytes of a file.
    #[inline]
    pub fn read(self, bytes: u64) {
        READ[self as usize].add(bytes);
    }
}

/// What goes from a cache.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Evicted {
    /// A blob that has a file.
    File,
    /// A pack of small blobs.
    Pack,
    /// What was there of a blob that is not whole.
    Partial,
    /// A directory.
    Directory,
    /// A path info.
    PathInfo,
}

const EVICTED: [&str; 5] = ["file", "pack", "partial", "directory", "path_info"];
static EVICTIONS: [Counter; EVICTED.len()] = [const { Counter::new() }; EVICTED.len()];
static EVICTED_BYTES: Counter = Counter::new();

impl Evicted {
    /// So many went.
    pub fn went(self, count: u64) {
        EVICTIONS[self as usize].add(count);
    }
}

/// So many bytes of disk were freed.
pub fn freed(bytes: u64) {
    EVICTED_BYTES.add(bytes);
}

/// How often a far store was found to be out of reach.
pub static CIRCUIT_OPENINGS: Counter = Counter::new();

/// Tells all of it.
pub(super) fn collect(scrape: &mut Scrape) {
    for (at, (kind, tier)) in CACHES.into_iter().enumerate() {
        for (result, counter) in [("hit", &HITS[at]), ("miss", &MISSES[at])] {
            let labels = [kind, tier, result];
            scrape.count(&names::CACHE_REQUESTS, &labels, counter.get());
        }
    }
    for (reason, counter) in REASONS.into_iter().zip(&FETCHED) {
        scrape.count(&names::FETCHED_BYTES, &[reason], counter.get());
    }
    for (source, counter) in SOURCES.into_iter().zip(&READ) {
        scrape.count(&names::READ_BYTES, &[source], counter.get());
    }
    for (kind, counter) in EVICTED.into_iter().zip(&EVICTIONS) {
        scrape.count(&names::CACHE_EVICTIONS, &[kind], counter.get());
    }
    scrape.count(&names::CACHE_EVICTED_BYTES, &[], EVICTED_BYTES.get());
    scrape.count(&names::CIRCUIT_OPENINGS, &[], CIRCUIT_OPENINGS.get());
    scrape.count(&names::SLOW_OPERATIONS, &[], super::slow::SLOW.get());
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn labels_stand_where_their_numbers_do() {
        for (cache, labels) in [
            (Cache::Blobs, ("blob", "disk")),
            (Cache::DirectoriesInMemory, ("directory", "memory")),
            (Cache::Directories, ("directory", "disk")),
            (Cache::PathInfosInMemory, ("path_info", "memory")),
            (Cache::PathInfos, ("path_info", "disk")),
            (Cache::Absent, ("absent", "memory")),
        ] {
            assert_eq!(CACHES[cache as usize], labels);
        }
        assert_eq!(REASONS[Reason::Archive as usize], "archive");
        assert_eq!(SOURCES[Source::Store as usize], "store");
        assert_eq!(EVICTED[Evicted::PathInfo as usize], "path_info");
    }

    #[tokio::test]
    async fn what_is_fetched_ahead_is_known_as_that() {
        assert_eq!(Reason::of_this_task(), Reason::Read);
        ahead(async { assert_eq!(Reason::of_this_task(), Reason::Ahead) }).await;
    }
}
