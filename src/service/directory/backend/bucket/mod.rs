//! Directories of a bucket.

mod object;
mod put;
#[cfg(test)]
mod tests;

use std::{
    collections::{HashMap, HashSet, VecDeque},
    sync::Arc,
};

use async_trait::async_trait;
use futures::{StreamExt as _, TryStreamExt as _, stream};
use tokio::task::coop::consume_budget;

use self::{
    object::{OBJECT_LEN_MAX, decode},
    put::BucketDirectoryPutter,
};
use crate::{
    castore::{Digest, Directory, SizeRule},
    service::{
        Error, Result,
        bucket::{Bucket, Kind},
        directory::{
            DirectoryPutter, DirectoryService, DirectoryStream, descendants, layer::check_closure,
        },
        sharded_lru::ShardedLru,
        single_flight::SingleFlight,
    },
};

/// How much of the directories read last is kept, in bytes.
const RECENT_BYTES_MAX: usize = 16 << 20;

/// Of how many directories it is remembered in which closure they are: some 30 MB.
const ROOTS_REMEMBERED_MAX: usize = 1 << 18;

/// Keeps directories in a bucket, a whole closure an object.
///
/// What is read is verified: each directory against its digest, closures for their order and their end.
///
/// The object is named by its root, so a directory that is no root is found only as long as it is remembered which
/// closure it came with or was put in; else it counts as absent. Whoever walks a tree from its root has no need of that.
/// [`DirectoryService::put`] makes a closure of its own, with all that the directory names; whoever has several to put should
/// use [`DirectoryService::put_closure`].
#[derive(Debug, Clone)]
pub struct BucketDirectories(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    bucket: Bucket,
    size_rule: SizeRule,
    recent: ShardedLru<Digest, Arc<Directory>>,
    /// The root of a closure that a directory is in.
    roots: ShardedLru<Digest, Digest>,
    alone: SingleFlight<Digest, Option<Arc<Directory>>>,
}

impl BucketDirectories {
    /// The directories of `bucket`, whose sizes are to be computed by `size_rule`.
    pub fn new(bucket: Bucket, size_rule: SizeRule) -> Self {
        BucketDirectories(Arc::new(Inner {
            bucket,
            size_rule,
            recent: ShardedLru::new(RECENT_BYTES_MAX),
            roots: ShardedLru::new(ROOTS_REMEMBERED_MAX),
            alone: SingleFlight::default(),
        }))
    }

    /// The closure that is stored under its root.
    async fn stored(&self, root: &Digest) -> Result<Option<DirectoryStream>> {
        let (this, root) = (self.0.clone(), *root);
        let path = this.bucket.path(Kind::Directory, root.as_bytes());
        let Some(object) = this.bucket.get(&path, OBJECT_LEN_MAX).await? else { return Ok(None) };
        let bucket = this.bucket.clone();
        let wrong =
            move |error| bucket.corrupt(format!("the closure of directory {root}: {error}"));
        let directories = decode(object).map_err(&wrong)?;
        let directories = stream::unfold(directories, |mut directories| async move {
            // They come as fast as they are taken: others want to run, too.
            consume_budget().await;
            directories.next().map(|directory| (directory, directories))
        });
        let endpoint = this.bucket.endpoint().clone();
        let checked = check_closure(endpoint, root, directories.map_err(wrong).boxed());
        Ok(Some(checked.inspect_ok(move |directory| this.learn(&root, directory)).boxed()))
    }

    /// What a directory that is no root has below it, taken from a closure that it was in.
    async fn within(&self, digest: &Digest) -> Result<Option<DirectoryStream>> {
        let Some(root) = self.0.roots.get(digest).filter(|root| root != digest) else {
            return Ok(None);
        };
        let Some(closure) = self.stored(&root).await? else { return Ok(None) };
        let all: Vec<Arc<Directory>> = closure.try_collect().await?;
        let all: HashMap<_, _> = all.into_iter().map(|d| (d.digest(), d)).collect();
        let mut seen = HashSet::from([*digest]);
        let mut to_do = VecDeque::from([*digest]);
        let mut below = Vec::new();
        while let Some(directory) = to_do.pop_front().and_then(|digest| all.get(&digest)) {
            below.push(Ok(directory.clone()));
            let children = directory.directories().map(|(child, _)| child);
            to_do.extend(children.filter(|child| seen.insert(*child)));
        }
        Ok((!below.is_empty()).then(|| stream::iter(below).boxed()))
    }

    /// A directory, with all that comes with it remembered.
    async fn get_alone(self, digest: Digest) -> Result<Option<Arc<Directory>>> {
        let Some(mut closure) = self.get_closure(&digest).await? else { return Ok(None) };
        let first = closure.try_next().await?;
        // What is wrong further on is for those who want it.
        while let Some(Ok(_)) = closure.next().await {}
        Ok(first)
    }
}

impl Inner {
    /// Remembers a directory of the closure of `root`.
    fn learn(&self, root: &Digest, directory: &Arc<Directory>) {
        let digest = directory.digest();
        self.recent.insert(digest, directory.clone(), directory.memory());
        self.roots.insert(digest, *root, 1);
    }
}

#[async_trait]
impl DirectoryService for BucketDirectories {
    async fn get(&self, digest: &Digest) -> Result<Option<Arc<Directory>>> {
        if let Some(directory) = self.0.recent.get(digest) {
            return Ok(Some(directory));
        }
        let (this, digest) = (self.clone(), *digest);
        self.0.alone.run(digest, || this.get_alone(digest)).await
    }

    fn get_local(&self, digest: &Digest) -> Result<Option<Arc<Directory>>> {
        Ok(self.0.recent.get(digest))
    }

    async fn get_closure(&self, root: &Digest) -> Result<Option<DirectoryStream>> {
        // Of one that came within another's closure it is known where it is.
        if self.0.roots.get(root).is_some_and(|known| known != *root)
            && let Some(closure) = self.within(root).await?
        {
            return Ok(Some(closure));
        }
        self.stored(root).await
    }

    async fn put(&self, directory: Arc<Directory>) -> Result<()> {
        let mut putter = self.put_closure().await?;
        for below in descendants(self, &directory).await? {
            putter.put(below).await?;
        }
        putter.put(directory).await?;
        putter.finish().await.map(drop)
    }

    async fn put_closure(&self) -> Result<Box<dyn DirectoryPutter>> {
        Ok(Box::new(BucketDirectoryPutter::new(self.0.clone())))
    }

    async fn size_rule(&self) -> Result<SizeRule> {
        Ok(self.0.size_rule)
    }

    async fn sync(&self) -> Result<()> {
        self.0.bucket.sync().await
    }
}

/// What is wrong with a closure that is too long.
fn too_long(root: &Digest, len: u64, len_max: u64) -> Error {
    let what = format!("the closure of directory {root} has {len} bytes, more than {len_max}");
    Error::invalid(what)
}
