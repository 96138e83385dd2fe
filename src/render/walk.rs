//! Walks a tree in the order of an archive.

use std::sync::Arc;

use super::RenderError;
use crate::{
    castore::{Directory, Node, NodeRef},
    service::directory::DirectoryService,
};

/// Visits every node below a root. Holds the directories on the way to where it is.
#[derive(Debug)]
pub struct TreeWalk {
    directories: Arc<dyn DirectoryService>,
    root: Option<Node>,
    /// The directories it is in, with the index of the next entry of each. A stack of our own: how deep a tree is must
    /// not decide how much of the thread's stack is used.
    open: Vec<(Arc<Directory>, usize)>,
}

/// What comes next.
#[derive(Debug)]
pub enum Step {
    /// The root.
    Root(Node),
    /// An entry of the innermost directory: which one, and the index.
    Entry(Arc<Directory>, usize),
    /// The end of the innermost directory.
    EndDirectory,
}

impl Step {
    /// The name of an entry, and the node. `None` at the end of a directory.
    pub fn node(&self) -> Option<(Option<&[u8]>, NodeRef<'_>)> {
        match self {
            Step::Root(node) => Some((None, node.as_ref())),
            Step::Entry(directory, index) => {
                directory.get(*index).map(|entry| (Some(entry.name), entry.node))
            }
            Step::EndDirectory => None,
        }
    }
}

impl TreeWalk {
    /// Walks the tree of `root`.
    pub fn new(directories: Arc<dyn DirectoryService>, root: Node) -> Self {
        TreeWalk { directories, root: Some(root), open: Vec::new() }
    }

    /// The next step. `None` at the end. A directory that is stepped on is entered.
    pub async fn next(&mut self) -> Result<Option<Step>, RenderError> {
        let step = match (self.root.take(), self.open.last_mut()) {
            (Some(root), _) => Step::Root(root),
            (None, None) => return Ok(None),
            (None, Some((directory, next))) if *next < directory.len() => {
                *next += 1;
                Step::Entry(directory.clone(), *next - 1)
            }
            (None, Some(_)) => {
                self.open.pop();
                return Ok(Some(Step::EndDirectory));
            }
        };
        if let Some((_, NodeRef::Directory { digest, .. })) = step.node() {
            let directory = self.directories.get(&digest).await?;
            let missing = || RenderError::Missing(format!("directory {digest}"));
            self.open.push((directory.ok_or_else(missing)?, 0));
        }
        Ok(Some(step))
    }
}
