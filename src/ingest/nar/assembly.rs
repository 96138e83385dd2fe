//! Directories, built from what an archive holds.

use std::sync::Arc;

use tokio::runtime::Handle;

use super::IngestNarError;
use crate::{
    castore::{
        DIRECTORY_LEN_MAX, Directory, DirectoryBuilder, DirectoryError, Name, Node, SizeRule,
        SymlinkTarget,
    },
    ingest::{Counts, sink::DirectorySink},
    service::{blob::Put, directory::DirectoryService},
};

/// The fewest bytes that an entry takes in the message of a directory, besides its name and target.
const ENTRY_LEN_MIN: usize = 7;

/// What a digest adds to that.
const DIGEST_LEN: usize = 32;

/// What comes next in an archive. The name is that in the directory around it; the root has none.
pub(super) enum Step {
    Begin { name: Option<Name> },
    End,
    Symlink { name: Option<Name>, target: SymlinkTarget },
    File { name: Option<Name>, executable: bool, size: u64 },
}

/// The tree as far as it is known.
pub(super) struct Assembly<'a> {
    runtime: &'a Handle,
    size_rule: SizeRule,
    sink: DirectorySink<'a>,
    open: Vec<Open>,
    /// How long the messages of the open directories are together at least, in bytes.
    open_len: usize,
    root: Option<Node>,
    counts: Counts,
}

/// A directory that has not ended yet.
struct Open {
    /// Its name in the one around it.
    name: Option<Name>,
    builder: DirectoryBuilder,
    len: usize,
}

impl<'a> Assembly<'a> {
    pub(super) fn new(
        directories: &'a dyn DirectoryService,
        size_rule: SizeRule,
        runtime: &'a Handle,
    ) -> Self {
        Assembly {
            runtime,
            size_rule,
            sink: DirectorySink::new(directories),
            open: Vec::new(),
            open_len: 0,
            root: None,
            counts: Counts::default(),
        }
    }

    /// Takes the next steps, and what became of the contents of the files among them.
    pub(super) fn add(&mut self, steps: Vec<Step>, puts: Vec<Put>) -> Result<(), IngestNarError> {
        let mut puts = puts.into_iter();
        for step in steps {
            match step {
                Step::Begin { name } => {
                    self.open.push(Open { name, builder: Directory::builder(), len: 0 });
                }
                Step::End => self.end_directory()?,
                Step::Symlink { name, target } => self.node(name, Node::Symlink { target })?,
                Step::File { name, executable, size } => {
                    let Put { digest, is_new } = puts.next().ok_or(IngestNarError::Stopped)?;
                    let (new_files, new_bytes) = if is_new { (1, size) } else { (0, 0) };
                    self.counts += Counts { files: 1, bytes: size, new_files, new_bytes };
                    self.node(name, Node::File { digest, size, executable })?;
                }
            }
        }
        Ok(())
    }

    /// Puts the directories that wait. Returns the root.
    pub(super) fn finish(self) -> Result<(Node, Counts), IngestNarError> {
        self.runtime.block_on(self.sink.finish())?;
        let root = self.root.ok_or(IngestNarError::Stopped)?;
        Ok((root, self.counts))
    }

    fn node(&mut self, name: Option<Name>, node: Node) -> Result<(), IngestNarError> {
        let (Some(around), Some(name)) = (self.open.last_mut(), name) else {
            self.root = Some(node);
            return Ok(());
        };
        let value_len = match &node {
            Node::Symlink { target } => target.as_bytes().len(),
            Node::Directory { .. } | Node::File { .. } => DIGEST_LEN,
        };
        let len = ENTRY_LEN_MIN + name.as_bytes().len() + value_len;
        around.builder.add(name, node);
        around.len += len;
        self.open_len += len;
        // A directory must not grow without end before it is found to be too long.
        match self.open_len > DIRECTORY_LEN_MAX {
            true => Err(self.wrong(DirectoryError::TooLong(self.open_len))),
            false => Ok(()),
        }
    }

    fn end_directory(&mut self) -> Result<(), IngestNarError> {
        let Some(mut open) = self.open.pop() else { return Err(IngestNarError::Stopped) };
        self.open_len -= open.len;
        let directory = match open.builder.build() {
            Ok(directory) => Arc::new(directory),
            Err(source) => {
                self.open.push(open);
                return Err(self.wrong(source));
            }
        };
        let node = directory.node(self.size_rule);
        self.runtime.block_on(self.sink.put(directory))?;
        self.node(open.name, node)
    }

    /// What is wrong with the innermost directory.
    fn wrong(&self, source: DirectoryError) -> IngestNarError {
        let names = self.open.iter().filter_map(|open| open.name.as_ref());
        let names: Vec<_> = names.map(|name| name.as_bytes().escape_ascii().to_string()).collect();
        IngestNarError::Directory { path: names.join("/"), source }
    }
}
