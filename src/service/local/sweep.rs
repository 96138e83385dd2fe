//! What goes of the database when a cache's directories and path infos take too much of it.
//!
//! A single directory that goes would break every closure it is in. So path infos go, those that were asked for longest
//! ago, and then the directories that no other leads to. What has come of late stays: it may belong to a closure of which
//! the rest is on its way.

use std::collections::HashSet;

use prost::Message as _;

use super::{Database, Durability, cache::now};
use crate::{
    castore::{Digest, Directory, Node},
    nix::{PathInfo, StorePathDigest},
    proto,
    service::{
        Result,
        seal::{SealedIn, unseal},
    },
};

/// Directories and path infos may take this part of a cache.
const METADATA_PART: u64 = 8;

/// Path infos that were asked for in the last ten minutes stay, in milliseconds.
const YOUNG: i64 = 600_000;

/// How many rows are deleted in one transaction.
const DELETED_AT_ONCE: usize = 512;

/// Decides when to sweep, and remembers what is young.
#[derive(Debug, Default)]
pub(super) struct Sweeper {
    /// Rows of directories above this came after the last time it was asked.
    last_row: Option<i64>,
}

/// What was taken out.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub(super) struct Swept {
    pub(super) path_infos: usize,
    pub(super) directories: usize,
}

impl Sweeper {
    /// Sweeps if there is more than a cache of `size_max` bytes should hold. To be asked from time to time: what came
    /// after the last time stays, and the first time nothing goes. Blocks.
    pub(super) fn sweep_if_due(&mut self, database: &Database, size_max: u64) -> Result<Swept> {
        let last_row: i64 = database.read(|connection| {
            let mut query =
                connection.prepare_cached("SELECT coalesce(max(rowid), 0) FROM directories")?;
            query.query_row((), |row| row.get(0))
        })?;
        let Some(old) = self.last_row.replace(last_row) else { return Ok(Swept::default()) };
        let len: i64 = database.read(|connection| {
            let mut query = connection.prepare_cached(
                "SELECT (SELECT coalesce(sum(length(data)), 0) FROM directories)
                      + (SELECT coalesce(sum(length(data)), 0) FROM path_infos)",
            )?;
            query.query_row((), |row| row.get(0))
        })?;
        match u64::try_from(len).is_ok_and(|len| len > size_max / METADATA_PART) {
            true => sweep(database, old, now() - YOUNG),
            false => Ok(Swept::default()),
        }
    }
}

/// Takes out half of the path infos that were asked for last before `before` and are not pinned, and the directories up
/// to the row `old` that nothing leads to any more.
fn sweep(database: &Database, old: i64, before: i64) -> Result<Swept> {
    let path_infos = database.write(Durability::Ordered, |transaction| {
        let deleted = transaction.execute(
            "DELETE FROM path_infos WHERE digest IN (
                 SELECT digest FROM path_infos LEFT JOIN kept_path_infos USING (digest)
                 WHERE coalesce(used, 0) < ?1 AND digest NOT IN (SELECT digest FROM pinned)
                 ORDER BY coalesce(used, 0)
                 LIMIT (SELECT count(*) / 2 + 1 FROM path_infos)
             )",
            [before],
        )?;
        transaction.execute(
            "DELETE FROM kept_path_infos WHERE digest NOT IN (SELECT digest FROM path_infos)",
            (),
        )?;
        Ok(deleted)
    })?;
    let wanted = reachable(database, old)?;
    let unwanted: Vec<Vec<u8>> = database.read(|connection| {
        let mut query = connection.prepare("SELECT digest FROM directories WHERE rowid <= ?")?;
        let digests = query.query_map([old], |row| row.get::<_, Vec<u8>>(0))?;
        let is_wanted = |digest: &[u8]| Digest::try_from(digest).is_ok_and(|d| wanted.contains(&d));
        digests.filter(|digest| !digest.as_ref().is_ok_and(|d| is_wanted(d))).collect()
    })?;
    for unwanted in unwanted.chunks(DELETED_AT_ONCE) {
        database.write(Durability::Ordered, |transaction| {
            // Put again in the meantime, it is another row.
            let mut delete = transaction
                .prepare_cached("DELETE FROM directories WHERE digest = ? AND rowid <= ?")?;
            unwanted.iter().try_for_each(|digest| delete.execute((digest, old)).map(drop))
        })?;
    }
    database.shrink()?;
    Ok(Swept { path_infos, directories: unwanted.len() })
}

/// The directories that lie below a path info or below a directory that came after the row `old`, and those.
fn reachable(database: &Database, old: i64) -> Result<HashSet<Digest>> {
    let path_infos: Vec<(Vec<u8>, Vec<u8>)> = database.read(|connection| {
        let mut query = connection.prepare("SELECT digest, data FROM path_infos")?;
        let rows = query.query_map((), |row| Ok((row.get(0)?, row.get(1)?)))?;
        rows.collect()
    })?;
    let young: Vec<Vec<u8>> = database.read(|connection| {
        let mut query = connection.prepare("SELECT digest FROM directories WHERE rowid > ?")?;
        query.query_map([old], |row| row.get(0))?.collect()
    })?;
    let mut to_do: Vec<Digest> =
        young.iter().filter_map(|digest| Digest::try_from(&digest[..]).ok()).collect();
    to_do.extend(path_infos.into_iter().filter_map(|(digest, data)| root(&digest, data)));
    let mut seen: HashSet<Digest> = to_do.iter().copied().collect();
    while let Some(digest) = to_do.pop() {
        let data: Option<Vec<u8>> = database.read(|connection| {
            use rusqlite::OptionalExtension as _;
            let mut query =
                connection.prepare_cached("SELECT data FROM directories WHERE digest = ?")?;
            query.query_row([digest.as_bytes()], |row| row.get(0)).optional()
        })?;
        // One that is damaged leads nowhere.
        let Some(directory) = data.and_then(|data| Directory::decode(data.into()).ok()) else {
            continue;
        };
        to_do.extend(directory.directories().map(|(child, _)| child).filter(|c| seen.insert(*c)));
    }
    Ok(seen)
}

/// The directory that is the contents of a store path.
fn root(digest: &[u8], data: Vec<u8>) -> Option<Digest> {
    let message = unseal(SealedIn::Cache, &StorePathDigest::try_from(digest).ok()?, data)?;
    let message = proto::store::PathInfo::decode(&message[..]).ok()?;
    match PathInfo::try_from(message).ok()?.node {
        Node::Directory { digest, .. } => Some(digest),
        Node::File { .. } | Node::Symlink { .. } => None,
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use futures::StreamExt as _;

    use super::*;
    use crate::{
        castore::SizeRule,
        service::{
            directory::{DirectoryService, backend::LocalDirectories},
            local::{LocalStore, PinnedClosure},
            pathinfo::{PathInfoService, backend::LocalPathInfos},
            shelf::{closure, path_info},
        },
    };

    const RULE: SizeRule = SizeRule::Documented;

    struct Fixture {
        _folder: tempfile::TempDir,
        store: Arc<LocalStore>,
        directories: LocalDirectories,
        path_infos: LocalPathInfos,
    }

    impl Fixture {
        fn new() -> Self {
            let folder = tempfile::tempdir().expect("a folder");
            let store = LocalStore::open_cache(folder.path(), Some(1 << 30)).expect("it opens");
            let directories = LocalDirectories::new(store.clone());
            let path_infos = LocalPathInfos::new(store.clone());
            Fixture { _folder: folder, store, directories, path_infos }
        }

        async fn put_closure(&self, closure: &[Arc<Directory>]) {
            let mut putter = self.directories.put_closure().await.expect("it works");
            for directory in closure {
                putter.put(directory.clone()).await.expect("it works");
            }
            putter.finish().await.expect("it works");
        }

        /// A store path that was last asked for at `used`, with its closure.
        async fn put(&self, digest: u8, mark: &str, used: i64) -> PathInfo {
            let closure = closure(mark, RULE);
            let info = path_info(digest, mark, closure[2].node(RULE));
            self.path_infos.put(info.clone()).await.expect("it works");
            self.put_closure(&closure).await;
            let update = "UPDATE kept_path_infos SET used = ? WHERE digest = ?";
            let key = info.store_path.digest();
            let set = self.store.database().write(Durability::Ordered, |transaction| {
                transaction.execute(update, (used, key.as_bytes()))
            });
            assert_eq!(set.expect("it works"), 1);
            info
        }

        /// How many directories of the closure of these contents are here, if it is whole.
        async fn whole(&self, mark: &str) -> Option<usize> {
            let root = closure(mark, RULE)[2].digest();
            let closure = self.directories.get_closure(&root).await.expect("it works")?;
            Some(closure.map(|directory| directory.expect("it is right")).count().await)
        }
    }

    #[tokio::test]
    async fn what_was_asked_for_longest_ago_goes_and_no_closure_is_broken() {
        let fixture = Fixture::new();
        let old = fixture.put(1, "old", 1).await;
        let pinned = fixture.put(2, "pinned", 0).await;
        fixture.put(3, "young", now()).await;
        let pin = pinned.store_path.digest();
        let closure_of_pin = PinnedClosure { store_paths: [pin].into(), ..Default::default() };
        fixture.store.pin(&pin, "pinned", &closure_of_pin).expect("it works");
        // A leaf of what is being fetched came before, and its parents come only now.
        let arriving = closure("arriving", RULE);
        fixture.put_closure(&arriving[..1]).await;

        let mut sweeper = Sweeper::default();
        let mut sweep =
            |size_max| sweeper.sweep_if_due(fixture.store.database(), size_max).expect("it works");
        assert_eq!(sweep(8), Swept::default(), "the first time it only looks");
        fixture.put_closure(&arriving).await;
        assert_eq!(sweep(1 << 30), Swept::default(), "there is little");
        // It looked again: only what comes from here on is young by its row.
        fixture.put_closure(&closure("later", RULE)).await;
        fixture.put_closure(&arriving).await;
        assert_eq!(sweep(8), Swept { path_infos: 1, directories: 3 });

        assert!(fixture.path_infos.get(&old.store_path.digest()).await.expect("works").is_none());
        assert_eq!(fixture.whole("old").await, None);
        for mark in ["pinned", "young", "arriving", "later"] {
            assert_eq!(fixture.whole(mark).await, Some(3), "{mark}");
        }
        assert_eq!(sweep(8), Swept { path_infos: 0, directories: 6 }, "they led nowhere");
        assert_eq!(sweep(8), Swept::default());
        for mark in ["pinned", "young"] {
            assert_eq!(fixture.whole(mark).await, Some(3), "{mark}");
        }
    }
}
