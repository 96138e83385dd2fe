//! Directories in a Bigtable.

use std::{
    collections::{BTreeMap, HashMap, HashSet, VecDeque},
    sync::Arc,
};

use async_trait::async_trait;
use futures::{StreamExt as _, TryStreamExt as _, stream};

use crate::{
    castore::{Digest, Directory},
    service::{
        Result,
        bigtable::{BigtableTable, Inserted, ROWS_ASKED_MAX, Row, RowKey},
        directory::{
            DirectoryPutter, DirectoryService, DirectoryStream,
            batches::{BatchPutter, Batches},
            layer::check_closure,
        },
    },
};

/// How many rows are put at the same time.
const PUTS_MAX: usize = 32;
/// Of more directories than these it is asked first which are there, in one request; fewer are put right away.
const PUT_UNASKED_MAX: usize = 4;

/// The directories of a table: a row each, which is put only if it is absent.
///
/// What is read is verified against its digest. A closure is walked a level at a time, up to 1024 rows a request.
#[derive(Debug, Clone)]
pub struct BigtableDirectories {
    table: BigtableTable,
}

impl BigtableDirectories {
    /// The directories of `table`.
    pub fn new(table: BigtableTable) -> Self {
        BigtableDirectories { table }
    }

    fn read(&self, digest: &Digest, row: Row) -> Result<Arc<Directory>> {
        let wrong = |what: String| self.table.corrupt(&row.key, what);
        let directory = Directory::decode(row.value.clone())
            .map_err(|error| wrong(format!("no directory: {error}")))?;
        match directory.digest() {
            got if got == *digest => Ok(Arc::new(directory)),
            got => Err(wrong(format!("the digest of its value is {got}"))),
        }
    }

    /// Those of the directories that are there, by their digests.
    async fn get_all(&self, digests: &[Digest]) -> Result<HashMap<Digest, Arc<Directory>>> {
        let by_key: BTreeMap<RowKey, Digest> =
            digests.iter().map(|digest| (RowKey::from(digest), *digest)).collect();
        let keys: Vec<RowKey> = by_key.keys().cloned().collect();
        let mut found = HashMap::new();
        let mut rest = &keys[..];
        while !rest.is_empty() {
            let (rows, answered) = self.table.get_some(rest).await?;
            for row in rows {
                let Some(digest) = by_key.get(&row.key) else { continue };
                found.insert(*digest, self.read(digest, row)?);
            }
            rest = &rest[answered..];
        }
        Ok(found)
    }

    async fn insert(&self, directory: &Directory) -> Result<()> {
        let digest = directory.digest();
        let key = RowKey::from(&digest);
        match self.table.insert(&key, directory.encoded()).await? {
            Inserted::New => Ok(()),
            // What is wrong there would be wrong for ever.
            Inserted::WasThere => match self.table.get(&key).await? {
                Some(row) => self.read(&digest, row).map(drop),
                None => Err(self.table.corrupt(&key, "it is there, and then it is not")),
            },
        }
    }
}

#[async_trait]
impl Batches for BigtableDirectories {
    const LEN_MAX: usize = ROWS_ASKED_MAX;

    fn check(&self, directory: &Directory) -> Result<()> {
        let what = || format!("directory {}", directory.digest());
        self.table.check_len(what, directory.encoded())
    }

    /// Puts what is absent of the directories, leaves before what names them. Leaves come first in `batch`.
    async fn write(&self, batch: Vec<Arc<Directory>>) -> Result<()> {
        let there = match batch.len() {
            ..=PUT_UNASKED_MAX => HashMap::new(),
            _ => {
                let digests: Vec<Digest> = batch.iter().map(|one| one.digest()).collect();
                self.get_all(&digests).await?
            }
        };
        let absent = batch.into_iter().filter(|one| !there.contains_key(&one.digest()));
        for level in levels(absent) {
            stream::iter(level)
                .map(|directory| async move { self.insert(&directory).await })
                .buffer_unordered(PUTS_MAX)
                .try_collect::<()>()
                .await?;
        }
        Ok(())
    }
}

/// Directories by how far they are from their deepest leaf, as far as that is among them. Leaves come first.
fn levels(batch: impl Iterator<Item = Arc<Directory>>) -> Vec<Vec<Arc<Directory>>> {
    let mut heights: HashMap<Digest, usize> = HashMap::new();
    let mut levels: Vec<Vec<Arc<Directory>>> = Vec::new();
    for directory in batch {
        let above = |(child, _)| heights.get(&child).map(|height| height + 1);
        let height = directory.directories().filter_map(above).max().unwrap_or(0);
        heights.insert(directory.digest(), height);
        if levels.len() <= height {
            levels.resize_with(height + 1, Vec::new);
        }
        levels[height].push(directory);
    }
    levels
}

/// A closure on its way: what is named and not asked for yet, and what has come and was not handed out.
struct Walk {
    directories: BigtableDirectories,
    seen: HashSet<Digest>,
    to_ask: VecDeque<Digest>,
    ready: VecDeque<Arc<Directory>>,
}

impl Walk {
    fn add(&mut self, directory: Arc<Directory>) {
        let children = directory.directories().map(|(child, _)| child);
        self.to_ask.extend(children.filter(|child| self.seen.insert(*child)));
        self.ready.push_back(directory);
    }

    /// Asks for as much of what is named as one answer may bring.
    async fn ask(&mut self) -> Result<()> {
        let some = self.to_ask.len().min(ROWS_ASKED_MAX);
        let mut asked: Vec<(RowKey, Digest)> =
            self.to_ask.drain(..some).map(|digest| (RowKey::from(&digest), digest)).collect();
        asked.sort_unstable();
        let keys: Vec<RowKey> = asked.iter().map(|(key, _)| key.clone()).collect();
        let (rows, answered) = self.directories.table.get_some(&keys).await?;
        let mut rows = rows.into_iter().peekable();
        for (index, (key, digest)) in asked.into_iter().enumerate() {
            if index >= answered {
                self.to_ask.push_back(digest);
                continue;
            }
            let Some(row) = rows.next_if(|row| row.key == key) else {
                let what = "the directory is missing, though one that is there names it";
                return Err(self.directories.table.corrupt(&key, what));
            };
            let directory = self.directories.read(&digest, row)?;
            self.add(directory);
        }
        Ok(())
    }

    async fn next(&mut self) -> Result<Option<Arc<Directory>>> {
        while self.ready.is_empty() && !self.to_ask.is_empty() {
            self.ask().await?;
        }
        Ok(self.ready.pop_front())
    }
}

#[async_trait]
impl DirectoryService for BigtableDirectories {
    async fn get(&self, digest: &Digest) -> Result<Option<Arc<Directory>>> {
        let row = self.table.get(&RowKey::from(digest)).await?;
        row.map(|row| self.read(digest, row)).transpose()
    }

    fn get_local(&self, _: &Digest) -> Result<Option<Arc<Directory>>> {
        Ok(None)
    }

    async fn get_closure(&self, root: &Digest) -> Result<Option<DirectoryStream>> {
        let Some(directory) = self.get(root).await? else { return Ok(None) };
        let mut walk = Walk {
            directories: self.clone(),
            seen: HashSet::from([*root]),
            to_ask: VecDeque::new(),
            ready: VecDeque::new(),
        };
        walk.add(directory);
        let closure = stream::try_unfold(walk, |mut walk| async move {
            Ok(walk.next().await?.map(|directory| (directory, walk)))
        });
        Ok(Some(check_closure(self.table.endpoint().clone(), *root, closure.boxed())))
    }

    async fn put(&self, directory: Arc<Directory>) -> Result<()> {
        self.table.check_writable()?;
        self.check(&directory)?;
        self.insert(&directory).await
    }

    async fn put_closure(&self) -> Result<Box<dyn DirectoryPutter>> {
        self.table.check_writable()?;
        Ok(Box::new(BatchPutter::new(self.clone())))
    }

    /// A row that was put is safe.
    async fn sync(&self) -> Result<()> {
        Ok(())
    }
}
