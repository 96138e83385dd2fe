//! Path infos in a Bigtable.

use std::collections::VecDeque;

use async_trait::async_trait;
use futures::{StreamExt as _, stream};
use prost::Message as _;

use crate::{
    nix::{PathInfo, StorePathDigest},
    proto,
    service::{
        Error, Result,
        bigtable::{BigtableTable, Inserted, Row, RowKey},
        pathinfo::{PathInfoService, PathInfoStream},
    },
};

/// How often a put is tried again since somebody else changed the same path info in between.
const CONTESTED_PUTS_MAX: usize = 8;

/// The path infos of a table: a row each.
///
/// A put writes only if the row is absent. Where another path info is there, which may lack a signature, it is replaced
/// if it is still the one that was looked at; so there is never more than one, nor half of one. That a row is about the
/// path that was asked for is verified; signatures are not.
#[derive(Debug, Clone)]
pub struct BigtablePathInfos {
    table: BigtableTable,
}

impl BigtablePathInfos {
    /// The path infos of `table`.
    pub fn new(table: BigtableTable) -> Self {
        BigtablePathInfos { table }
    }

    fn read(&self, row: &Row) -> Result<PathInfo> {
        let wrong = |what: String| self.table.corrupt(&row.key, what);
        let message = proto::store::PathInfo::decode(row.value.clone())
            .map_err(|error| wrong(format!("no path info: {error}")))?;
        let path_info =
            PathInfo::try_from(message).map_err(|error| wrong(format!("no path info: {error}")))?;
        match RowKey::from(&path_info.store_path.digest()) == row.key {
            true => Ok(path_info),
            false => Err(wrong(format!("it is about {}", path_info.store_path))),
        }
    }

    /// Puts a value in place of what is there. `false` if that is no longer what it was.
    async fn replace(&self, key: &RowKey, value: &[u8]) -> Result<bool> {
        let Some(old) = self.table.get(key).await? else { return Ok(false) };
        self.read(&old)?;
        match old.value == value {
            true => Ok(true),
            false => self.table.replace(&old, value).await,
        }
    }
}

#[async_trait]
impl PathInfoService for BigtablePathInfos {
    async fn get(&self, digest: &StorePathDigest) -> Result<Option<PathInfo>> {
        let row = self.table.get(&RowKey::from(digest)).await?;
        row.map(|row| self.read(&row)).transpose()
    }

    async fn put(&self, path_info: PathInfo) -> Result<PathInfo> {
        self.table.check_writable()?;
        path_info.check().map_err(Error::invalid)?;
        let value = proto::store::PathInfo::from(&path_info).encode_to_vec();
        self.table.check_len(|| format!("the path info of {}", path_info.store_path), &value)?;
        let key = RowKey::from(&path_info.store_path.digest());
        for _ in 0..CONTESTED_PUTS_MAX {
            match self.table.insert(&key, &value).await? {
                Inserted::New => return Ok(path_info),
                Inserted::WasThere if self.replace(&key, &value).await? => return Ok(path_info),
                Inserted::WasThere => {}
            }
        }
        let what = format!("row {key} was changed by others {CONTESTED_PUTS_MAX} times in a row");
        Err(Error::unavailable(self.table.endpoint(), what))
    }

    fn list(&self) -> PathInfoStream {
        // What has been read, the key to go on after, and whether that was all.
        let state = (self.clone(), VecDeque::new(), None);
        stream::try_unfold(state, |(this, mut page, mut after)| async move {
            if page.is_empty() {
                let rows = this.table.page(after.as_ref(), RowKey::PATH_INFO_LEN).await?;
                page = VecDeque::from(rows);
            }
            let Some(row) = page.pop_front() else { return Ok(None) };
            let path_info = this.read(&row)?;
            after = Some(row.key);
            Ok(Some((path_info, (this, page, after))))
        })
        .boxed()
    }
}
