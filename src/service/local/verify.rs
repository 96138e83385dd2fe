//! Looking at all that is in a cache.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use super::LocalStore;
use crate::{castore::Digest, service::Result};

/// How many packed blobs are looked up at once.
const PAGE_BLOBS: u32 = 1024;

/// How far the work is. May be looked at from other threads.
#[derive(Debug, Default)]
pub struct Verified {
    /// How many objects were looked at: blobs, directories and path infos.
    pub objects: AtomicU64,
    /// How many bytes of blobs were.
    pub bytes: AtomicU64,
    /// How many objects were damaged, and were removed.
    pub damaged: AtomicU64,
}

impl Verified {
    /// Counts an object.
    pub(in crate::service) fn count(&self, bytes: u64, is_whole: bool) {
        self.objects.fetch_add(1, Relaxed);
        self.bytes.fetch_add(bytes, Relaxed);
        self.damaged.fetch_add(u64::from(!is_whole), Relaxed);
    }
}

impl LocalStore {
    /// Hashes a blob, and takes it out if it is damaged, so that it can be put again. Returns whether it was damaged.
    /// Nothing else takes anything out of a store: this is for whoever was asked to. Blocks.
    pub fn remove_if_damaged(&self, digest: &Digest) -> Result<bool> {
        let is_whole = match self.blobs().verify(digest)? {
            Some((_, is_whole)) => is_whole,
            None => self.packs().verify(digest)?,
        };
        Ok(!is_whole)
    }

    /// Hashes every blob that is in its place in a cache, and removes those that are not what they should be. What is not
    /// whole yet is left out: it is looked at before it is used. Blocks.
    pub fn verify_blobs(&self, verified: &Verified) -> Result<()> {
        for shard in 0..=u8::MAX {
            for digest in self.blobs().list(shard)?.into_keys() {
                if let Some((len, is_whole)) = self.blobs().verify(&digest)? {
                    verified.count(len, is_whole);
                }
            }
        }
        let mut after = Vec::new();
        loop {
            let page: Vec<(Vec<u8>, i64)> = self.database().read(|connection| {
                let mut query = connection.prepare_cached(
                    "SELECT digest, len FROM packed_blobs WHERE digest > ? ORDER BY digest LIMIT ?",
                )?;
                let rows =
                    query.query_map((&after, PAGE_BLOBS), |row| Ok((row.get(0)?, row.get(1)?)))?;
                rows.collect()
            })?;
            let Some((last, _)) = page.last() else { return Ok(()) };
            after.clone_from(last);
            for (digest, len) in page {
                let is_whole = match Digest::try_from(&digest[..]) {
                    Ok(digest) => self.packs().verify(&digest)?,
                    Err(_) => false,
                };
                verified.count(u64::try_from(len).unwrap_or(0), is_whole);
            }
        }
    }
}
