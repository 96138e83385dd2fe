//! Reads an archive node by node.

use std::io::Read;

use bytes::Bytes;

use super::{
    problem::{NarProblem, NarReadError},
    source::Source,
    wire::{
        CLOSE, CONTENTS, DIRECTORY, ENTRY, EXECUTABLE, MAGIC, NAME, NODE, OPEN, REGULAR, SYMLINK,
        TARGET, TYPE,
    },
};
use crate::castore::{
    NAME_LEN_MAX, Name, NameError, SYMLINK_TARGET_LEN_MAX, SymlinkTarget, SymlinkTargetError,
};

/// How many directories Nix allows inside of each other.
pub const NAR_NESTING_MAX: usize = 64;

/// The longest word of the format, in bytes.
const WORD_LEN_MAX: usize = MAGIC.len();

/// Reads an archive from `R`, in pieces, as strictly as [`NarWriter`](super::NarWriter) writes: of every tree there
/// is one archive, and whatever else is refused.
///
/// Holds one buffer of fixed size, and a name for every directory on the way to where it is. Contents of files are
/// not held: they come in pieces. Nothing that the archive announces is believed before it was compared with a bound.
#[derive(Debug)]
pub struct NarReader<R> {
    source: Source<R>,
    limits: NarLimits,
    state: State,
    /// The open directories: the name of the last entry of each.
    open: Vec<Option<Name>>,
}

/// How much an archive may ask for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct NarLimits {
    /// How many directories may be inside of each other. [`NAR_NESTING_MAX`] by default; each takes the memory of a
    /// name.
    pub nesting_max: usize,
    /// The longest archive, in bytes: where it is known, the length of this one. 2^63 - 1 by default, as no file is
    /// longer.
    pub archive_bytes_max: u64,
}

/// The next thing in an archive.
///
/// The root is one node: a file, a symlink, or a directory. After a directory come its entries, each followed by its
/// node, then the end of the directory.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum NarEvent {
    /// A directory begins.
    Directory,
    /// An entry of the innermost directory. Its node follows.
    Entry(Name),
    /// The innermost directory ends.
    EndDirectory,
    /// A regular file, to be read with [`NarReader::contents`].
    File {
        /// Whether it may be executed.
        executable: bool,
        /// Its length, in bytes. Not to be believed before the contents have come.
        len: u64,
    },
    /// A symbolic link.
    Symlink(SymlinkTarget),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    /// Nothing was read yet.
    Begin,
    /// A node has to come: the root, or that of an entry that was named.
    Node,
    /// So many bytes of a file of `len` bytes are still to come.
    File { left: u64, len: u64 },
    /// An entry of the innermost directory, or its end.
    Entry,
    /// The root is complete; nothing may follow.
    Done,
    /// The archive is complete.
    End,
    /// Something was wrong.
    Failed,
}

type Result<T> = std::result::Result<T, NarProblem>;

impl Default for NarLimits {
    fn default() -> Self {
        NarLimits { nesting_max: NAR_NESTING_MAX, archive_bytes_max: i64::MAX as u64 }
    }
}

impl<R: Read> NarReader<R> {
    /// Reads an archive of which nothing is known. `input` need not be buffered.
    pub fn new(input: R) -> Self {
        Self::with_limits(input, NarLimits::default())
    }

    /// Reads an archive that may ask for so much.
    pub fn with_limits(input: R, limits: NarLimits) -> Self {
        let source = Source::new(input, limits.archive_bytes_max);
        NarReader { source, limits, state: State::Begin, open: Vec::new() }
    }

    /// How many bytes of the archive were taken. Right after a [`NarEvent::File`], where its contents begin; after
    /// the last event, the length of the archive.
    pub fn offset(&self) -> u64 {
        self.source.offset()
    }

    /// The next event. `None` after the last, when the input was seen to end with the archive; only then is any of
    /// it known to be an archive. What of a file's contents was not asked for is read over.
    ///
    /// After an error, every further call is one.
    pub fn next_event(&mut self) -> std::result::Result<Option<NarEvent>, NarReadError> {
        self.step().map_err(|problem| self.fail(problem))
    }

    /// The next piece of the contents of the file that came last. `None` when all have come, and where there is no
    /// file. A piece is never empty.
    pub fn contents(&mut self) -> std::result::Result<Option<&[u8]>, NarReadError> {
        let State::File { left, len } = self.state else {
            return match self.state {
                State::Failed => Err(self.fail(NarProblem::AfterError)),
                _ => Ok(None),
            };
        };
        if left == 0 {
            return match self.end_file(len) {
                Ok(()) => Ok(None),
                Err(problem) => Err(self.fail(problem)),
            };
        }
        let path = &self.open;
        let offset = self.source.offset();
        match self.source.piece(left) {
            Ok(piece) => {
                self.state = State::File { left: left - piece.len() as u64, len };
                Ok(Some(piece))
            }
            Err(problem) => {
                self.state = State::Failed;
                Err(NarReadError { offset, path: escape(path), problem })
            }
        }
    }

    fn step(&mut self) -> Result<Option<NarEvent>> {
        if let State::File { mut left, len } = self.state {
            while left > 0 {
                left -= self.source.piece(left)?.len() as u64;
            }
            self.end_file(len)?;
        }
        match self.state {
            State::Begin => {
                self.expect(MAGIC, "\"nix-archive-1\"")?;
                self.node().map(Some)
            }
            State::Node => self.node().map(Some),
            State::Entry => self.entry().map(Some),
            State::Done => {
                self.source.end()?;
                self.state = State::End;
                Ok(None)
            }
            State::End => Ok(None),
            State::File { .. } | State::Failed => Err(NarProblem::AfterError),
        }
    }

    fn fail(&mut self, problem: NarProblem) -> NarReadError {
        // Between two entries, the last one is complete, and not where the problem is.
        let path = match (self.state, self.open.split_last()) {
            (State::Entry, Some((_, outer))) => outer,
            _ => &self.open,
        };
        let path = escape(path);
        self.state = State::Failed;
        NarReadError { offset: self.source.begun(), path, problem }
    }

    fn node(&mut self) -> Result<NarEvent> {
        self.expect(OPEN, "\"(\"")?;
        self.expect(TYPE, "\"type\"")?;
        let expected = "\"regular\", \"symlink\" or \"directory\"";
        match self.word(expected)? {
            REGULAR => self.file(),
            SYMLINK => self.symlink(),
            DIRECTORY => self.directory(),
            other => Err(unexpected(expected, other)),
        }
    }

    fn directory(&mut self) -> Result<NarEvent> {
        let nesting_max = self.limits.nesting_max;
        if self.open.len() >= nesting_max {
            return Err(NarProblem::Nesting(nesting_max));
        }
        self.open.push(None);
        self.state = State::Entry;
        Ok(NarEvent::Directory)
    }

    fn file(&mut self) -> Result<NarEvent> {
        let expected = "\"executable\" or \"contents\"";
        let executable = match self.word(expected)? {
            EXECUTABLE => {
                self.expect(b"", "\"\"")?;
                self.expect(CONTENTS, "\"contents\"")?;
                true
            }
            CONTENTS => false,
            other => return Err(unexpected(expected, other)),
        };
        let len = self.source.length()?;
        self.state = State::File { left: len, len };
        Ok(NarEvent::File { executable, len })
    }

    fn end_file(&mut self, len: u64) -> Result<()> {
        self.source.padding(len)?;
        self.close_node()
    }

    fn symlink(&mut self) -> Result<NarEvent> {
        self.expect(TARGET, "\"target\"")?;
        let target = match self.source.string(SYMLINK_TARGET_LEN_MAX)? {
            Ok(target) => SymlinkTarget::try_from(Bytes::copy_from_slice(target))?,
            Err(len) => return Err(SymlinkTargetError::TooLong(saturating(len)).into()),
        };
        self.close_node()?;
        Ok(NarEvent::Symlink(target))
    }

    /// An entry, up to its node, or the end of the innermost directory.
    fn entry(&mut self) -> Result<NarEvent> {
        let expected = "\"entry\" or \")\"";
        match self.word(expected)? {
            ENTRY => {}
            CLOSE => {
                self.open.pop();
                self.closed()?;
                return Ok(NarEvent::EndDirectory);
            }
            other => return Err(unexpected(expected, other)),
        }
        self.expect(OPEN, "\"(\"")?;
        self.expect(NAME, "\"name\"")?;
        let name = match self.source.string(NAME_LEN_MAX)? {
            Ok(name) => Name::try_from(Bytes::copy_from_slice(name))?,
            Err(len) => return Err(NameError::TooLong(saturating(len)).into()),
        };
        let last = self.open.last_mut().expect("entries are only read inside of a directory");
        if let Some(last) = last.as_ref().filter(|last| **last >= name) {
            let [name, last] = [&name, last].map(|name| name.as_bytes().escape_ascii().to_string());
            return Err(NarProblem::Unsorted { name, last });
        }
        *last = Some(name.clone());
        self.state = State::Node;
        self.expect(NODE, "\"node\"")?;
        Ok(NarEvent::Entry(name))
    }

    /// A file or symlink is complete but for its end.
    fn close_node(&mut self) -> Result<()> {
        self.expect(CLOSE, "\")\"")?;
        self.closed()
    }

    /// A node is complete: with it the entry that holds it, or the archive.
    fn closed(&mut self) -> Result<()> {
        self.state = match self.open.is_empty() {
            true => State::Done,
            false => {
                self.expect(CLOSE, "\")\"")?;
                State::Entry
            }
        };
        Ok(())
    }

    /// The next word, known or not.
    fn word(&mut self, expected: &'static str) -> Result<&[u8]> {
        self.source
            .string(WORD_LEN_MAX)?
            .map_err(|len| NarProblem::Word { expected, found: format!("a string of {len} bytes") })
    }

    fn expect(&mut self, word: &[u8], expected: &'static str) -> Result<()> {
        match self.word(expected)? {
            found if found == word => Ok(()),
            found => Err(unexpected(expected, found)),
        }
    }
}

fn unexpected(expected: &'static str, found: &[u8]) -> NarProblem {
    NarProblem::Word { expected, found: format!("\"{}\"", found.escape_ascii()) }
}

/// A length for an error's message.
fn saturating(len: u64) -> usize {
    usize::try_from(len).unwrap_or(usize::MAX)
}

fn escape(path: &[Option<Name>]) -> String {
    let names = path.iter().flatten().map(|name| name.as_bytes().escape_ascii().to_string());
    names.collect::<Vec<_>>().join("/")
}

#[cfg(test)]
#[path = "reader_tests.rs"]
mod tests;
