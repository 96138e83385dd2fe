//! Directories in the database of a store directory.

use std::{collections::HashSet, sync::Arc};

use async_trait::async_trait;
use bytes::Bytes;
use rusqlite::OptionalExtension as _;

use crate::{
    castore::{Digest, Directory},
    observe::event,
    service::{
        Error, Result,
        directory::{
            DirectoryPutter, DirectoryService, DirectoryStream,
            batches::{BatchPutter, Batches},
            walk_closure,
        },
        local::{Durability, LocalStore, Verified, offload},
    },
};

/// How many directories are committed at once.
const BATCH_DIRECTORIES_MAX: usize = 1024;

/// The directories of a store directory.
#[derive(Debug, Clone)]
pub struct LocalDirectories {
    store: Arc<LocalStore>,
}

impl LocalDirectories {
    /// The directories of `store`.
    pub fn new(store: Arc<LocalStore>) -> Self {
        LocalDirectories { store }
    }

    fn find(&self, digest: &Digest) -> Result<Option<Arc<Directory>>> {
        let data: Option<Vec<u8>> = self.store.database().read(|connection| {
            let mut query =
                connection.prepare_cached("SELECT data FROM directories WHERE digest = ?")?;
            query.query_row([digest.as_bytes()], |row| row.get(0)).optional()
        })?;
        let Some(data) = data else { return Ok(None) };
        let corrupt = |what: String| {
            Error::corrupt(self.store.endpoint(), format!("directory {digest}: {what}"))
        };
        let directory =
            Directory::decode(Bytes::from(data)).map_err(|error| corrupt(error.to_string()))?;
        if directory.digest() != *digest {
            return Err(corrupt(format!("its digest is {}", directory.digest())));
        }
        Ok(Some(Arc::new(directory)))
    }

    /// Whether all directories of the closure are here and as they should be.
    fn is_whole(&self, root: &Digest) -> bool {
        let mut seen = HashSet::from([*root]);
        let mut to_do = vec![*root];
        while let Some(digest) = to_do.pop() {
            match self.find(&digest) {
                Ok(Some(directory)) => {
                    let children = directory.directories().map(|(child, _)| child);
                    to_do.extend(children.filter(|child| seen.insert(*child)));
                }
                Ok(None) => return false,
                Err(error) => {
                    tracing::warn!(
                        event = event::CACHE_DAMAGED,
                        %error,
                        "directories in the cache are fetched again"
                    );
                    return false;
                }
            }
        }
        true
    }

    /// Looks at every directory of a cache, and removes those that are damaged. Blocks.
    pub fn verify(&self, verified: &Verified) -> Result<()> {
        let mut after = i64::MIN;
        loop {
            let page: Vec<(i64, Vec<u8>)> = self.store.database().read(|connection| {
                let mut query = connection.prepare_cached(
                    "SELECT rowid, digest FROM directories WHERE rowid > ? ORDER BY rowid LIMIT ?",
                )?;
                let rows = query.query_map((after, BATCH_DIRECTORIES_MAX as i64), |row| {
                    Ok((row.get(0)?, row.get(1)?))
                })?;
                rows.collect()
            })?;
            let Some((last, _)) = page.last() else { return Ok(()) };
            after = *last;
            for (row, digest) in page {
                let found = Digest::try_from(&digest[..]).ok().map(|digest| self.find(&digest));
                let is_whole = matches!(found, Some(Ok(_)));
                verified.count(0, is_whole);
                if !is_whole {
                    self.store.database().write(Durability::Ordered, |transaction| {
                        transaction.execute("DELETE FROM directories WHERE rowid = ?", [row])
                    })?;
                }
            }
        }
    }
}

#[async_trait]
impl Batches for LocalDirectories {
    const LEN_MAX: usize = BATCH_DIRECTORIES_MAX;

    async fn write(&self, batch: Vec<Arc<Directory>>) -> Result<()> {
        let store = self.store.clone();
        offload(self.store.endpoint(), move || {
            store.database().write(Durability::Ordered, |transaction| {
                // In a cache, what is there may be damaged, and what is new may not look old.
                let mut insert = transaction.prepare_cached(match store.is_cache() {
                    true => "INSERT OR REPLACE INTO directories (digest, data) VALUES (?, ?)",
                    false => {
                        "INSERT INTO directories (digest, data) VALUES (?, ?) ON CONFLICT DO NOTHING"
                    }
                })?;
                for directory in &batch {
                    insert.execute((directory.digest().as_bytes(), &directory.encoded()[..]))?;
                }
                Ok(())
            })
        })
        .await
    }
}

#[async_trait]
impl DirectoryService for LocalDirectories {
    async fn get(&self, digest: &Digest) -> Result<Option<Arc<Directory>>> {
        self.find(digest)
    }

    fn get_local(&self, digest: &Digest) -> Result<Option<Arc<Directory>>> {
        self.find(digest)
    }

    async fn get_closure(&self, root: &Digest) -> Result<Option<DirectoryStream>> {
        // Half a closure would be an error in the middle. From a cache one gets all of it, or else asks elsewhere.
        if self.store.is_cache() && !self.is_whole(root) {
            return Ok(None);
        }
        let this = self.clone();
        walk_closure(&self.store.endpoint().clone(), root, move |digest| this.find(digest))
    }

    async fn put(&self, directory: Arc<Directory>) -> Result<()> {
        self.write(vec![directory]).await
    }

    async fn put_closure(&self) -> Result<Box<dyn DirectoryPutter>> {
        Ok(Box::new(BatchPutter::new(self.clone())))
    }

    async fn sync(&self) -> Result<()> {
        if self.store.database().is_flushed() {
            return Ok(());
        }
        let store = self.store.clone();
        offload(self.store.endpoint(), move || store.database().flush()).await
    }
}
