//! Several sources to read from, and one to write to.

use std::{collections::HashSet, sync::Arc};

use async_trait::async_trait;
use futures::{StreamExt as _, stream};

use crate::{
    castore::{Digest, Directory, SizeRule},
    service::{
        Error, Result,
        directory::{DirectoryPutter, DirectoryService, DirectoryStream},
        in_turn::{Routed, first_at_hand, first_that_has, pass_over},
    },
};

/// Reads from the first of several sources that has a directory, and writes to one, or to none.
///
/// You want it wherever a store is in more than one place, or is written elsewhere than it is read. A source that has failed
/// leaves it to those after it; that a directory is absent is said only if all of them say so. A closure that breaks is
/// continued from the sources after its own. A closure comes from a source that has its root: all of it must be there, as
/// it is wherever closures are put.
///
/// It never copies anything from one source to another, and remembers nothing but which directories of a closure have
/// passed.
pub type RoutedDirectories = Routed<dyn DirectoryService>;

/// A closure on its way.
struct Passing {
    read: Arc<[Arc<dyn DirectoryService>]>,
    /// From which source it comes.
    at: usize,
    root: Digest,
    closure: DirectoryStream,
    /// What has passed already, if there is a source after this one.
    passed: HashSet<Digest>,
}

impl Passing {
    async fn next(state: Option<Self>) -> Option<(Result<Arc<Directory>>, Option<Self>)> {
        let mut passing = state?;
        loop {
            match passing.closure.next().await? {
                Ok(directory) => {
                    if passing.read.len() == 1 || passing.passed.insert(directory.digest()) {
                        return Some((Ok(directory), Some(passing)));
                    }
                }
                Err(error) => {
                    if let Err(error) = passing.go_on_elsewhere(error).await {
                        return Some((Err(error), None));
                    }
                }
            }
        }
    }

    /// Turns to a source after this one. If none has the closure, the error is that of the stream.
    async fn go_on_elsewhere(&mut self, error: Error) -> Result<()> {
        let mut failed = None;
        pass_over(error, &mut failed);
        let (after, root) = (self.at + 1, self.root);
        let ask = |one: Arc<dyn DirectoryService>| async move { one.get_closure(&root).await };
        if let Ok(Some((step, closure))) = first_that_has(&self.read[after..], ask).await {
            (self.at, self.closure) = (after + step, closure);
            return Ok(());
        }
        failed.map_or(Ok(()), Err)
    }
}

#[async_trait]
impl DirectoryService for RoutedDirectories {
    async fn get(&self, digest: &Digest) -> Result<Option<Arc<Directory>>> {
        let ask = |one: Arc<dyn DirectoryService>| async move { one.get(digest).await };
        Ok(first_that_has(&self.read, ask).await?.map(|(_, directory)| directory))
    }

    fn get_local(&self, digest: &Digest) -> Result<Option<Arc<Directory>>> {
        first_at_hand(&self.read, |one| one.get_local(digest))
    }

    async fn get_closure(&self, root: &Digest) -> Result<Option<DirectoryStream>> {
        let ask = |one: Arc<dyn DirectoryService>| async move { one.get_closure(root).await };
        let found = first_that_has(&self.read, ask).await?;
        Ok(found.map(|(at, closure)| {
            let (read, passed) = (self.read.clone(), HashSet::new());
            let passing = Passing { read, at, root: *root, closure, passed };
            stream::unfold(Some(passing), Passing::next).boxed()
        }))
    }

    async fn put(&self, directory: Arc<Directory>) -> Result<()> {
        self.target()?.put(directory).await
    }

    async fn put_closure(&self) -> Result<Box<dyn DirectoryPutter>> {
        self.target()?.put_closure().await
    }

    async fn size_rule(&self) -> Result<SizeRule> {
        self.target()?.size_rule().await
    }

    async fn sync(&self) -> Result<()> {
        match &self.write {
            Some(write) => write.sync().await,
            None => Ok(()),
        }
    }
}
