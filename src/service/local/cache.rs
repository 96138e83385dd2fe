//! What a cache is besides a store: bounded, and not trusted.
//!
//! Of each blob that has a file it keeps a row with when it was last used, and how the file looked
//! ([`Stamp`]) once it was known to be on disk. A file that looks so still is what it was; any other is hashed before
//! anybody reads it. Blobs in packs are hashed whenever their pack changed since. So nothing has to be brought to the disk
//! in any order, and what a crash or a bad disk made of the files is found out.

use std::{
    collections::{HashMap, HashSet},
    mem,
    sync::Arc,
    time::{SystemTime, UNIX_EPOCH},
};

use parking_lot::Mutex;
use rusqlite::{OptionalExtension as _, Transaction};

use super::{Bound, Database, Durability, cached_files::Found, stamp::Stamp};
use crate::{
    castore::Digest, nix::StorePathDigest, service::Result, service::sharded_lru::ShardedLru,
};

/// How many blobs are remembered as known to be whole: some 8 MB.
const CHECKED_MAX: usize = 65_536;

/// How many uses are held back before they are written.
const NOTED_MAX: usize = 16_384;

/// The tables of a cache.
pub(super) const SCHEMA: &str = "
    CREATE TABLE IF NOT EXISTS kept_files (
        digest BLOB PRIMARY KEY NOT NULL, used INTEGER NOT NULL,
        inode INTEGER NOT NULL, len INTEGER NOT NULL, changed INTEGER NOT NULL
    ) STRICT, WITHOUT ROWID;
    CREATE TABLE IF NOT EXISTS kept_packs (number INTEGER PRIMARY KEY NOT NULL, used INTEGER NOT NULL) STRICT;
    CREATE TABLE IF NOT EXISTS kept_path_infos (
        digest BLOB PRIMARY KEY NOT NULL, used INTEGER NOT NULL
    ) STRICT, WITHOUT ROWID;
    CREATE INDEX IF NOT EXISTS packed_blobs_by_pack ON packed_blobs (pack);
";

/// What all parts of a cache share.
#[derive(Debug)]
pub(super) struct Cache {
    pub(super) bound: Bound,
    database: Arc<Database>,
    noted: Mutex<Noted>,
    /// How the file of a blob, or its pack, looked when the blob was found to be whole.
    checked: ShardedLru<Digest, Stamp>,
}

/// What is to be written, as times in milliseconds since 1970.
#[derive(Debug, Default)]
struct Noted {
    files: HashMap<Digest, i64>,
    packs: HashMap<u32, i64>,
    path_infos: HashMap<StorePathDigest, i64>,
}

/// A blob's file that has just got its place.
#[derive(Debug, Clone, Copy)]
pub(super) struct Published {
    pub(super) digest: Digest,
    /// How it looks.
    pub(super) stamp: Stamp,
    /// Whether it is known to be on disk as what it is.
    pub(super) is_durable: bool,
}

impl Cache {
    pub(super) fn new(bound: Bound, database: Arc<Database>) -> Self {
        let (noted, checked) = (Mutex::default(), ShardedLru::new(CHECKED_MAX));
        Cache { bound, database, noted, checked }
    }

    /// Somebody opened the blob, which has a file.
    pub(super) fn used_file(&self, digest: &Digest) {
        self.note(|noted, now| noted.files.insert(*digest, now));
    }

    /// Somebody opened a blob of the pack.
    pub(super) fn used_pack(&self, number: u32) {
        self.note(|noted, now| noted.packs.insert(number, now));
    }

    /// Somebody asked for the path info.
    pub(super) fn used_path_info(&self, digest: &StorePathDigest) {
        self.note(|noted, now| noted.path_infos.insert(*digest, now));
    }

    fn note<T>(&self, insert: impl FnOnce(&mut Noted, i64) -> T) {
        let mut noted = self.noted.lock();
        // Beyond the bound only what is noted already is kept up to date; the keeper comes soon.
        if noted.files.len() + noted.packs.len() + noted.path_infos.len() < NOTED_MAX {
            insert(&mut noted, now());
        }
    }

    /// Writes what was noted.
    pub(super) fn flush(&self) -> Result<()> {
        let noted = mem::take(&mut *self.noted.lock());
        if noted.files.is_empty() && noted.packs.is_empty() && noted.path_infos.is_empty() {
            return Ok(());
        }
        self.database.write(Durability::Ordered, |transaction| {
            let mut file = transaction
                .prepare_cached("UPDATE kept_files SET used = max(used, ?2) WHERE digest = ?1")?;
            for (digest, used) in &noted.files {
                file.execute((digest.as_bytes(), used))?;
            }
            let mut pack = transaction
                .prepare_cached("UPDATE kept_packs SET used = max(used, ?2) WHERE number = ?1")?;
            for (number, used) in &noted.packs {
                pack.execute((number, used))?;
            }
            let mut path_info = transaction.prepare_cached(
                "UPDATE kept_path_infos SET used = max(used, ?2) WHERE digest = ?1",
            )?;
            for (digest, used) in &noted.path_infos {
                path_info.execute((digest.as_bytes(), used))?;
            }
            Ok(())
        })
    }

    /// Enters files that have just got their places. That is a use.
    pub(super) fn published(&self, files: &[Published]) -> Result<()> {
        for file in files {
            self.checked(&file.digest, file.stamp);
        }
        let now = now();
        self.database.write(Durability::Ordered, |transaction| {
            let mut insert = transaction.prepare_cached(
                "INSERT OR REPLACE INTO kept_files (digest, used, inode, len, changed)
                 VALUES (?, ?, ?, ?, ?)",
            )?;
            for Published { digest, stamp, is_durable } in files {
                let (inode, changed) = match is_durable {
                    true => (stamp.inode as i64, stamp.changed),
                    false => (0, 0),
                };
                insert.execute((digest.as_bytes(), now, inode, stamp.len as i64, changed))?;
            }
            Ok(())
        })
    }

    /// The blob was found to be whole in a file that looked like that.
    pub(super) fn checked(&self, digest: &Digest, stamp: Stamp) {
        self.checked.insert(*digest, stamp, 1);
    }

    /// Whether this process has found the blob to be whole in the file, which looks the same still.
    pub(super) fn was_checked(&self, digest: &Digest, stamp: Stamp) -> bool {
        self.checked.get(digest) == Some(stamp)
    }

    /// Whether the blob is known to have been on disk in that file, as what it is.
    pub(super) fn was_durable(&self, digest: &Digest, stamp: Stamp) -> Result<bool> {
        let row: Option<(i64, i64, i64)> = self.database.read(|connection| {
            let mut query = connection
                .prepare_cached("SELECT inode, len, changed FROM kept_files WHERE digest = ?")?;
            query
                .query_row([digest.as_bytes()], |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?)))
                .optional()
        })?;
        Ok(row.is_some_and(|row| stamp.is(row)))
    }

    /// Enters the files of a shard of `blobs/` of which nothing is known, and takes out those that are gone. `list`
    /// tells what lies there. It is asked second: what is known was there before.
    pub(super) fn adopt(
        &self,
        shard: u8,
        list: impl FnOnce() -> Result<HashMap<Digest, Found>>,
    ) -> Result<()> {
        let mut first = [0; 32];
        let mut last = [0xff; 32];
        (first[0], last[0]) = (shard, shard);
        let known: HashSet<Digest> = self.database.read(|connection| {
            let mut query = connection
                .prepare_cached("SELECT digest FROM kept_files WHERE digest BETWEEN ? AND ?")?;
            let rows = query.query_map((first, last), |row| row.get::<_, Vec<u8>>(0))?;
            let digests = rows.map(|row| Ok(Digest::try_from(&row?[..]).ok()));
            digests.filter_map(|digest: rusqlite::Result<_>| digest.transpose()).collect()
        })?;
        let found = list()?;
        if found.len() == known.len() && found.keys().all(|digest| known.contains(digest)) {
            return Ok(());
        }
        self.database.write(Durability::Ordered, |transaction| {
            let mut insert = transaction.prepare_cached(
                "INSERT INTO kept_files (digest, used, inode, len, changed) VALUES (?, ?, 0, 0, 0)
                 ON CONFLICT DO NOTHING",
            )?;
            for (digest, file) in found.iter().filter(|(digest, _)| !known.contains(*digest)) {
                insert.execute((digest.as_bytes(), file.written))?;
            }
            let mut delete =
                transaction.prepare_cached("DELETE FROM kept_files WHERE digest = ?")?;
            for digest in known.iter().filter(|digest| !found.contains_key(*digest)) {
                delete.execute([digest.as_bytes()])?;
            }
            Ok(())
        })
    }
}

/// Enters that a path info is put into a cache.
pub(in crate::service) fn enter_path_info(
    transaction: &Transaction,
    digest: &StorePathDigest,
) -> rusqlite::Result<()> {
    let mut insert = transaction
        .prepare_cached("INSERT OR REPLACE INTO kept_path_infos (digest, used) VALUES (?, ?)")?;
    insert.execute((digest.as_bytes(), now())).map(drop)
}

/// In milliseconds since 1970.
pub(super) fn now() -> i64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH);
    now.map_or(0, |now| now.as_millis() as i64)
}
