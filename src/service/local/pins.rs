//! Closures that are never evicted.

use std::collections::HashSet;

use rusqlite::Connection;

use super::{Database, Durability, LocalStore};
use crate::{
    castore::Digest,
    nix::StorePathDigest,
    service::{Error, Result},
};

/// The tables of a cache that tell what is pinned. A digest of a store path and one of a blob differ in length.
pub(super) const SCHEMA: &str = "
    CREATE TABLE IF NOT EXISTS pins (digest BLOB PRIMARY KEY NOT NULL, name TEXT NOT NULL) STRICT, WITHOUT ROWID;
    CREATE TABLE IF NOT EXISTS pinned (
        digest BLOB NOT NULL, pin BLOB NOT NULL, PRIMARY KEY (digest, pin)
    ) STRICT, WITHOUT ROWID;
    CREATE INDEX IF NOT EXISTS pinned_by_pin ON pinned (pin);
";

/// What keeps a closure here.
#[derive(Debug, Clone, Default)]
pub struct PinnedClosure {
    /// The store paths in it.
    pub store_paths: HashSet<StorePathDigest>,
    /// The contents of all files in it. They need not be here yet.
    pub blobs: HashSet<Digest>,
}

impl LocalStore {
    /// Keeps in the cache what is there of a closure, and what comes of it later. `name` is what [`LocalStore::pins`]
    /// tells of it. A closure that is pinned already is replaced.
    pub fn pin(&self, pin: &StorePathDigest, name: &str, closure: &PinnedClosure) -> Result<()> {
        self.check_is_cache()?;
        self.database().write(Durability::Flushed, |transaction| {
            delete(transaction, pin)?;
            let mut insert =
                transaction.prepare_cached("INSERT INTO pins (digest, name) VALUES (?, ?)")?;
            insert.execute((pin.as_bytes(), name))?;
            let mut insert = transaction
                .prepare_cached("INSERT OR IGNORE INTO pinned (digest, pin) VALUES (?, ?)")?;
            for path in &closure.store_paths {
                insert.execute((&path.as_bytes()[..], pin.as_bytes()))?;
            }
            for blob in &closure.blobs {
                insert.execute((&blob.as_bytes()[..], pin.as_bytes()))?;
            }
            Ok(())
        })
    }

    /// Lets a closure go when it is not used. Returns whether it was pinned.
    pub fn unpin(&self, pin: &StorePathDigest) -> Result<bool> {
        self.check_is_cache()?;
        self.database().write(Durability::Flushed, |transaction| delete(transaction, pin))
    }

    /// The names of all that is pinned, in their order.
    pub fn pins(&self) -> Result<Vec<String>> {
        self.check_is_cache()?;
        self.database().read(|connection| {
            let mut query = connection.prepare_cached("SELECT name FROM pins ORDER BY name")?;
            let names = query.query_map((), |row| row.get(0))?;
            names.collect()
        })
    }

    fn check_is_cache(&self) -> Result<()> {
        match self.is_cache() {
            true => Ok(()),
            false => Err(Error::invalid("a store keeps everything; only a cache has pins")),
        }
    }
}

fn delete(connection: &Connection, pin: &StorePathDigest) -> rusqlite::Result<bool> {
    connection.prepare_cached("DELETE FROM pinned WHERE pin = ?")?.execute([pin.as_bytes()])?;
    let mut delete = connection.prepare_cached("DELETE FROM pins WHERE digest = ?")?;
    Ok(delete.execute([pin.as_bytes()])? > 0)
}

/// Whether the blob is pinned.
pub(super) fn is_pinned(database: &Database, digest: &Digest) -> Result<bool> {
    database.read(|connection| {
        let mut query = connection.prepare_cached("SELECT 1 FROM pinned WHERE digest = ?")?;
        query.exists([digest.as_bytes()])
    })
}
