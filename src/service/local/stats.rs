//! What is in a cache.

use std::io;

use super::{LocalStore, usage::on_disk};
use crate::service::{Error, Result};

/// How much there is of each kind.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct CacheStats {
    /// What all of it takes of the disk, in bytes, with what is about to be written.
    pub used: u64,
    /// How many blobs have files of their own, and are in their place.
    pub files: u64,
    /// What they take, in bytes.
    pub files_bytes: u64,
    /// How many blobs are packed.
    pub packed: u64,
    /// How many packs there are.
    pub packs: u64,
    /// What the packs take, in bytes.
    pub packs_bytes: u64,
    /// Of how many blobs only a part is here.
    pub partials: u64,
    /// How many directories there are.
    pub directories: u64,
    /// How many store paths are known.
    pub path_infos: u64,
    /// How many closures are pinned.
    pub pins: u64,
}

impl LocalStore {
    /// Counts what is in a cache. Reads no contents.
    pub fn cache_stats(&self) -> Result<CacheStats> {
        let failed = |error: io::Error| Error::unavailable(self.endpoint(), error);
        let bound = self.bound().ok_or_else(|| Error::invalid("this is a store, and no cache"))?;
        let mut stats = CacheStats { used: bound.used().map_err(failed)?, ..Default::default() };
        for shard in 0..=u8::MAX {
            for file in self.blobs().list(shard)?.values() {
                stats.files += 1;
                stats.files_bytes += on_disk(file.len);
            }
        }
        stats.partials = self.partials().list().map_err(failed)?.len() as u64;
        let counts: [i64; 6] = self.database().read(|connection| {
            let mut query = connection.prepare_cached(
                "SELECT (SELECT count(*) FROM packed_blobs), (SELECT count(*) FROM packs),
                        (SELECT coalesce(sum(len), 0) FROM packs), (SELECT count(*) FROM directories),
                        (SELECT count(*) FROM path_infos), (SELECT count(*) FROM pins)",
            )?;
            query.query_row((), |row| {
                Ok([row.get(0)?, row.get(1)?, row.get(2)?, row.get(3)?, row.get(4)?, row.get(5)?])
            })
        })?;
        let [packed, packs, packs_bytes, directories, path_infos, pins] =
            counts.map(|count| u64::try_from(count).unwrap_or(0));
        Ok(CacheStats { packed, packs, packs_bytes, directories, path_infos, pins, ..stats })
    }
}
