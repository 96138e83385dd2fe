//! Path infos in the database of a store directory.

use std::{collections::VecDeque, sync::Arc};

use async_trait::async_trait;
use bytes::Bytes;
use futures::{StreamExt as _, stream};
use prost::Message as _;
use rusqlite::OptionalExtension as _;

use crate::{
    nix::{PathInfo, StorePathDigest},
    observe::event,
    proto,
    service::{
        Error, Result,
        local::{Durability, LocalStore, Verified, enter_path_info, offload},
        pathinfo::{PathInfoService, PathInfoStream},
        seal::{SealedIn, seal, unseal},
    },
};

/// How many path infos a listing reads at once.
const PAGE_PATH_INFOS: u32 = 256;

/// The path infos of a store directory, kept as the message that the protocol sends. In a cache a seal stands before it,
/// since no digest covers a path info: what a bad disk made of it is found out, and counts as absent.
#[derive(Debug, Clone)]
pub struct LocalPathInfos {
    store: Arc<LocalStore>,
}

impl LocalPathInfos {
    /// The path infos of `store`.
    pub fn new(store: Arc<LocalStore>) -> Self {
        LocalPathInfos { store }
    }

    /// What is kept of a path info.
    fn encode(&self, path_info: &PathInfo) -> Vec<u8> {
        let message = proto::store::PathInfo::from(path_info).encode_to_vec();
        match self.store.is_cache() {
            true => seal(SealedIn::Cache, &path_info.store_path.digest(), &message),
            false => message,
        }
    }

    /// What was kept, unless it was damaged in a cache.
    fn unseal(&self, digest: &StorePathDigest, data: Vec<u8>) -> Option<Vec<u8>> {
        if !self.store.is_cache() {
            return Some(data);
        }
        let message = unseal(SealedIn::Cache, digest, data);
        if message.is_none() {
            tracing::warn!(
                event = event::CACHE_DAMAGED,
                %digest,
                "a path info in the cache was damaged; it is fetched again"
            );
        }
        message
    }

    fn decode(&self, digest: &[u8], data: Vec<u8>) -> Result<PathInfo> {
        let corrupt = |what: String| {
            let key = data_encoding::HEXLOWER.encode(digest);
            Error::corrupt(self.store.endpoint(), format!("path info {key}: {what}"))
        };
        let message = proto::store::PathInfo::decode(Bytes::from(data))
            .map_err(|error| corrupt(error.to_string()))?;
        let path_info = PathInfo::try_from(message).map_err(|error| corrupt(error.to_string()))?;
        match path_info.store_path.digest().as_bytes()[..] == *digest {
            true => Ok(path_info),
            false => Err(corrupt(format!("it is about {}", path_info.store_path))),
        }
    }

    /// Looks at every path info of a cache, and removes those that are damaged. Blocks.
    pub fn verify(&self, verified: &Verified) -> Result<()> {
        let mut after = i64::MIN;
        loop {
            let page: Vec<(i64, Vec<u8>, Vec<u8>)> = self.store.database().read(|connection| {
                let mut query = connection.prepare_cached(
                    "SELECT rowid, digest, data FROM path_infos WHERE rowid > ?
                     ORDER BY rowid LIMIT ?",
                )?;
                let rows = query.query_map((after, PAGE_PATH_INFOS), |row| {
                    Ok((row.get(0)?, row.get(1)?, row.get(2)?))
                })?;
                rows.collect()
            })?;
            let Some((last, ..)) = page.last() else { return Ok(()) };
            after = *last;
            for (row, digest, data) in page {
                let key = StorePathDigest::try_from(&digest[..]).ok();
                let message = key.and_then(|key| self.unseal(&key, data));
                let is_whole = message.is_some_and(|m| self.decode(&digest, m).is_ok());
                verified.count(0, is_whole);
                if !is_whole {
                    self.store.database().write(Durability::Ordered, |transaction| {
                        transaction.execute("DELETE FROM path_infos WHERE rowid = ?", [row])
                    })?;
                }
            }
        }
    }

    /// The path infos whose digests follow `after`, in the order of digests.
    fn page(&self, after: &[u8]) -> Result<VecDeque<PathInfo>> {
        let rows: Vec<(Vec<u8>, Vec<u8>)> = self.store.database().read(|connection| {
            let mut query = connection.prepare_cached(
                "SELECT digest, data FROM path_infos WHERE digest > ? ORDER BY digest LIMIT ?",
            )?;
            let rows =
                query.query_map((after, PAGE_PATH_INFOS), |row| Ok((row.get(0)?, row.get(1)?)))?;
            rows.collect()
        })?;
        let sealed = rows.into_iter().filter_map(|(digest, data)| {
            let key = StorePathDigest::try_from(&digest[..]).ok();
            match key {
                Some(key) => self.unseal(&key, data).map(|message| (digest, message)),
                None => Some((digest, data)),
            }
        });
        sealed.map(|(digest, message)| self.decode(&digest, message)).collect()
    }
}

#[async_trait]
impl PathInfoService for LocalPathInfos {
    async fn get(&self, digest: &StorePathDigest) -> Result<Option<PathInfo>> {
        let data: Option<Vec<u8>> = self.store.database().read(|connection| {
            let mut query =
                connection.prepare_cached("SELECT data FROM path_infos WHERE digest = ?")?;
            query.query_row([digest.as_bytes()], |row| row.get(0)).optional()
        })?;
        self.store.used_path_info(digest);
        let message = data.and_then(|data| self.unseal(digest, data));
        message.map(|message| self.decode(digest.as_bytes(), message)).transpose()
    }

    async fn put(&self, path_info: PathInfo) -> Result<PathInfo> {
        path_info.check().map_err(Error::invalid)?;
        let data = self.encode(&path_info);
        let digest = path_info.store_path.digest();
        let store = self.store.clone();
        // What a cache loses can be fetched again.
        let durability = match self.store.is_cache() {
            true => Durability::Ordered,
            false => Durability::Flushed,
        };
        offload(self.store.endpoint(), move || {
            store.database().write(durability, |transaction| {
                if store.is_cache() {
                    enter_path_info(transaction, &digest)?;
                }
                let mut insert = transaction.prepare_cached(
                    "INSERT INTO path_infos (digest, data) VALUES (?, ?)
                     ON CONFLICT (digest) DO UPDATE SET data = excluded.data",
                )?;
                insert.execute((digest.as_bytes(), &data))
            })
        })
        .await?;
        Ok(path_info)
    }

    fn list(&self) -> PathInfoStream {
        // What has been read, the digest to go on after, and whether that was all.
        let state = (self.clone(), VecDeque::new(), Vec::new(), false);
        stream::try_unfold(state, |(this, mut page, mut after, mut last)| async move {
            if page.is_empty() && !last {
                page = this.page(&after)?;
                last = page.len() < PAGE_PATH_INFOS as usize;
            }
            let Some(path_info) = page.pop_front() else { return Ok(None) };
            after = path_info.store_path.digest().as_bytes().to_vec();
            Ok(Some((path_info, (this, page, after, last))))
        })
        .boxed()
    }
}
