//! Which archives were fetched from elsewhere, and what was in them.
//!
//! A store remembers them so that none is fetched twice. A cache also remembers what was in each, by the first 8 bytes of
//! every digest: whatever it evicts, it is known where that comes from. Rows are sealed, as no digest covers them.

use prost::Message as _;
use rusqlite::{OptionalExtension as _, Transaction};

use super::{Durability, LocalStore, cache::now};
use crate::{
    castore::Node,
    nix::{NarHash, PathInfo, StorePathDigest},
    proto,
    service::{
        Error, Result,
        seal::{SealedIn, seal, unseal},
    },
};

/// Made by whoever needs them, also in stores that were made without.
const SCHEMA: &str = "
    CREATE TABLE IF NOT EXISTS archives (
        path BLOB PRIMARY KEY NOT NULL, nar INTEGER NOT NULL, used INTEGER NOT NULL, data BLOB NOT NULL
    ) STRICT, WITHOUT ROWID;
    CREATE INDEX IF NOT EXISTS archives_by_nar ON archives (nar);
    CREATE TABLE IF NOT EXISTS archived (
        content INTEGER NOT NULL, nar INTEGER NOT NULL, PRIMARY KEY (content, nar)
    ) STRICT, WITHOUT ROWID;
";

/// What is remembered of the contents of archives may take this part of a cache.
const CONTENTS_PART: u64 = 32;

/// What a row of it takes, in bytes, with what the database adds.
const CONTENT_LEN: u64 = 28;

/// So many rows may always be remembered.
const CONTENTS_MIN: u64 = 65_536;

/// How many archives are looked at for one blob: it may be in very many.
const HOLDERS_MAX: u32 = 8;

/// An archive by the beginning of its hash: a number of 8 bytes, as SQLite has them.
fn short(nar: &NarHash) -> i64 {
    let (begin, _) = nar.sha256.split_first_chunk().expect("a hash is longer");
    i64::from_be_bytes(*begin)
}

impl LocalStore {
    /// Makes the tables of this module. To be called before anything else of it.
    pub fn prepare_archives(&self) -> Result<()> {
        let tables: i64 = self.database().read(|connection| {
            connection.query_row(
                "SELECT count(*) FROM sqlite_schema WHERE name IN ('archives', 'archived', 'archives_by_nar')",
                (),
                |row| row.get(0),
            )
        })?;
        // To look does not wait for writers.
        match tables {
            3 => Ok(()),
            _ => self.database().write(Durability::Ordered, |tables| tables.execute_batch(SCHEMA)),
        }
    }

    /// What the contents of this archive were found to be.
    pub fn archive_node(&self, nar: &NarHash) -> Result<Option<Node>> {
        let rows: Vec<(Vec<u8>, Vec<u8>)> = self.database().read(|connection| {
            let mut query = connection
                .prepare_cached("SELECT path, data FROM archives WHERE nar = ? LIMIT ?")?;
            let rows =
                query.query_map((short(nar), HOLDERS_MAX), |row| Ok((row.get(0)?, row.get(1)?)))?;
            rows.collect()
        })?;
        let known = rows.into_iter().filter_map(|(path, data)| read(&path, data));
        let same = |info: &PathInfo| info.nar_info().is_some_and(|info| info.nar == *nar);
        Ok(known.filter(same).map(|info| info.node).next())
    }

    /// Store paths in whose archives there was something whose digest begins so, those recorded last first, each with its
    /// archive.
    pub fn archives_with(&self, content: u64) -> Result<Vec<(StorePathDigest, NarHash)>> {
        let rows: Vec<(Vec<u8>, Vec<u8>)> = self.database().read(|connection| {
            let mut query = connection.prepare_cached(
                "SELECT path, data FROM archived JOIN archives USING (nar) WHERE content = ?
                 ORDER BY used DESC LIMIT ?",
            )?;
            let rows = query
                .query_map((content as i64, HOLDERS_MAX), |row| Ok((row.get(0)?, row.get(1)?)))?;
            rows.collect()
        })?;
        let known = rows.into_iter().filter_map(|(path, data)| read(&path, data));
        let holder = |info: PathInfo| Some((info.store_path.digest(), info.nar_info()?.nar));
        Ok(known.filter_map(holder).collect())
    }

    /// Remembers the archive of `path_info`, and in a cache what was in it, each as the first 8 bytes of its digest.
    /// Where a cache would remember too much, half of the archives go, with the path infos that lead to them.
    pub fn record_archive(&self, path_info: &PathInfo, contents: &[u64]) -> Result<()> {
        let Some(info) = path_info.nar_info() else { return Ok(()) };
        path_info.check().map_err(Error::invalid)?;
        let path = path_info.store_path.digest();
        let message = proto::store::PathInfo::from(path_info).encode_to_vec();
        let (nar, data) = (short(&info.nar), seal(SealedIn::Cache, &path, &message));
        self.database().write(Durability::Ordered, |transaction| {
            transaction.execute(
                "INSERT OR REPLACE INTO archives (path, nar, used, data) VALUES (?, ?, ?, ?)",
                (path.as_bytes(), nar, now(), data),
            )?;
            let Some(bound) = self.bound() else { return Ok(()) };
            let mut insert = transaction
                .prepare_cached("INSERT OR IGNORE INTO archived (content, nar) VALUES (?, ?)")?;
            for content in contents {
                insert.execute((*content as i64, nar))?;
            }
            let rows_max = (bound.size_max() / CONTENTS_PART / CONTENT_LEN).max(CONTENTS_MIN);
            forget_some(transaction, rows_max, nar)
        })
    }
}

/// Takes out half of the archives if there are more than `rows_max` rows of contents: those that were recorded longest
/// ago, but neither `kept` nor one that is pinned.
fn forget_some(transaction: &Transaction, rows_max: u64, kept: i64) -> rusqlite::Result<()> {
    let rows: Option<i64> =
        transaction.query_row("SELECT count(*) FROM archived", (), |row| row.get(0)).optional()?;
    if rows.is_none_or(|rows| u64::try_from(rows).is_ok_and(|rows| rows <= rows_max)) {
        return Ok(());
    }
    transaction.execute_batch(
        "CREATE TEMP TABLE IF NOT EXISTS forgotten (nar INTEGER PRIMARY KEY); DELETE FROM forgotten;",
    )?;
    transaction.execute(
        "INSERT INTO forgotten SELECT nar FROM archives
             WHERE nar != ? AND nar NOT IN (
                 SELECT nar FROM archives JOIN pinned ON pinned.digest = archives.path
             )
             GROUP BY nar ORDER BY max(used)
             LIMIT (SELECT count(DISTINCT nar) / 2 + 1 FROM archives)",
        [kept],
    )?;
    transaction.execute_batch(
        "DELETE FROM path_infos WHERE digest IN (
             SELECT path FROM archives WHERE nar IN (SELECT nar FROM forgotten)
         );
         DELETE FROM archives WHERE nar IN (SELECT nar FROM forgotten);
         DELETE FROM archived WHERE nar IN (SELECT nar FROM forgotten);
         DELETE FROM forgotten;",
    )
}

/// What was recorded, unless it was damaged since.
fn read(path: &[u8], data: Vec<u8>) -> Option<PathInfo> {
    let message = unseal(SealedIn::Cache, &StorePathDigest::try_from(path).ok()?, data)?;
    PathInfo::try_from(proto::store::PathInfo::decode(&message[..]).ok()?).ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::service::{
        pathinfo::{PathInfoService, backend::LocalPathInfos},
        shelf::path_info,
    };

    fn info(number: u8) -> (PathInfo, NarHash) {
        let node = Node::Symlink { target: b"x"[..].try_into().expect("a target") };
        let mut info = path_info(number, "name", node);
        let nar = NarHash { size: 100 + u64::from(number), sha256: [number; 32] };
        if let crate::nix::Details::NarInfo(details) = &mut info.details {
            details.nar = nar;
        }
        (info, nar)
    }

    #[test]
    fn archives_are_remembered_by_their_hash_and_contents() {
        let folder = tempfile::tempdir().expect("a folder");
        for _ in 0..2 {
            let store = LocalStore::open_cache(folder.path(), Some(1 << 30)).expect("it opens");
            store.prepare_archives().expect("it works");
            let ((one, one_nar), (two, two_nar)) = (info(1), info(2));
            store.record_archive(&one, &[7, u64::MAX]).expect("it works");
            store.record_archive(&two, &[7]).expect("it works");
            assert_eq!(store.archive_node(&one_nar).expect("works"), Some(one.node.clone()));
            let longer = NarHash { size: 9, ..one_nar };
            assert_eq!(store.archive_node(&longer).expect("works"), None);
            let with = |content| store.archives_with(content).expect("works");
            assert_eq!(with(u64::MAX), [(one.store_path.digest(), one_nar)]);
            assert_eq!(with(7).len(), 2);
            assert!(with(7).contains(&(two.store_path.digest(), two_nar)));
            assert_eq!(with(8), []);
        }
        // What a bad disk made of it is not believed.
        let store = LocalStore::open_cache(folder.path(), Some(1 << 30)).expect("it opens");
        let damage = "UPDATE archives SET data = CAST(data || x'00' AS BLOB)";
        store
            .database()
            .write(Durability::Ordered, |transaction| transaction.execute(damage, ()))
            .expect("it works");
        assert_eq!(store.archive_node(&info(1).1).expect("works"), None);
        assert_eq!(store.archives_with(7).expect("works"), []);
    }

    #[tokio::test]
    async fn too_much_is_forgotten_with_the_path_infos() {
        let folder = tempfile::tempdir().expect("a folder");
        let store = LocalStore::open_cache(folder.path(), Some(16 << 20)).expect("it opens");
        store.prepare_archives().expect("it works");
        let path_infos = LocalPathInfos::new(store.clone());
        for number in 1..=4u8 {
            let (info, _) = info(number);
            path_infos.put(info.clone()).await.expect("it works");
            let begin = u64::from(number) << 32;
            let contents: Vec<u64> = (begin..begin + CONTENTS_MIN / 4 + 1).collect();
            store.record_archive(&info, &contents).expect("it works");
        }
        let mut left = Vec::new();
        for number in 1..=4u8 {
            let (info, nar) = info(number);
            let known = store.archive_node(&nar).expect("works").is_some();
            let digest = info.store_path.digest();
            assert_eq!(path_infos.get(&digest).await.expect("works").is_some(), known);
            let contents = store.archives_with(u64::from(number) << 32).expect("works");
            assert_eq!(contents.len(), usize::from(known));
            left.extend(known.then_some(number));
        }
        assert!(left.len() < 4 && left.contains(&4), "{left:?}");
    }
}
