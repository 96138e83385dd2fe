//! Reads the listing of an archive: see [`super::ListingWriter`] for the format.
//!
//! As strict as the reader of archives: names are legal, sorted and unique, fields are known and stand once, nothing
//! follows. Fields may stand in any order, since versions of Nix differ in that, and there may be white space between.
//! Everything is bounded before it is kept, and nothing recurses.

use std::io::{self, BufRead};

use super::listing_tokens::{ListingProblem, ListingReadError, Tokens};
use crate::castore::{NAME_LEN_MAX, Name, SYMLINK_TARGET_LEN_MAX, SymlinkTarget};

/// What bounds a listing.
#[derive(Debug, Clone, Copy)]
pub struct ListingLimits {
    /// How many directories may be inside of each other. 16,384 by default; each takes the memory of a name.
    pub nesting_max: usize,
    /// The longest listing, in bytes. 1 GiB by default.
    pub len_max: u64,
}

impl Default for ListingLimits {
    fn default() -> Self {
        ListingLimits { nesting_max: 16_384, len_max: 1 << 30 }
    }
}

/// The next thing in a listing. The order is that of the archive.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ListingEvent {
    /// A directory begins.
    Directory,
    /// An entry of the innermost directory. Its node follows.
    Entry(Name),
    /// The innermost directory ends.
    EndDirectory,
    /// A regular file.
    File {
        /// Its length, in bytes.
        size: u64,
        /// Whether it may be executed.
        executable: bool,
        /// Where in the archive its contents begin, if that is told.
        nar_offset: Option<u64>,
    },
    /// A symbolic link.
    Symlink(SymlinkTarget),
}

/// Reads a listing from `R`, in pieces.
#[derive(Debug)]
pub struct ListingReader<R> {
    tokens: Tokens<R>,
    limits: ListingLimits,
    /// The objects that are open, from the outermost.
    open: Vec<Object>,
    state: State,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Begin,
    Inside,
    Done,
    Failed,
}

/// An object that is not complete.
#[derive(Debug)]
enum Object {
    /// The whole, with the fields that were seen.
    Whole { has_version: bool, has_root: bool },
    /// A file, directory or symlink.
    Node(Node),
    /// The entries of a directory, with the name of the last one.
    Entries { last: Option<Name> },
}

/// What was seen of a node.
#[derive(Debug, Default)]
struct Node {
    kind: Option<Vec<u8>>,
    has_entries: bool,
    size: Option<u64>,
    executable: Option<bool>,
    nar_offset: Option<u64>,
    target: Option<SymlinkTarget>,
}

type Result<T, E = ListingProblem> = std::result::Result<T, E>;

/// The longest name of a field, or of a kind of node, in bytes.
const WORD_LEN_MAX: usize = 16;

impl<R: BufRead> ListingReader<R> {
    /// Reads a listing within the default limits.
    pub fn new(input: R) -> Self {
        Self::with_limits(input, ListingLimits::default())
    }

    /// Reads a listing within these limits.
    pub fn with_limits(input: R, limits: ListingLimits) -> Self {
        let tokens = Tokens::new(input, limits.len_max);
        ListingReader { tokens, limits, open: Vec::new(), state: State::Begin }
    }

    /// The next event. `None` once the listing was read to its end, and so was the input.
    pub fn next_event(&mut self) -> std::result::Result<Option<ListingEvent>, ListingReadError> {
        let event = self.advance();
        event.map_err(|problem| {
            self.state = State::Failed;
            ListingReadError { offset: self.tokens.offset(), problem }
        })
    }

    fn advance(&mut self) -> Result<Option<ListingEvent>> {
        match self.state {
            State::Begin => {
                self.tokens.open_object()?;
                self.open.push(Object::Whole { has_version: false, has_root: false });
                self.state = State::Inside;
            }
            State::Inside => {}
            State::Done => return Ok(None),
            State::Failed => return Err(ListingProblem::AfterError),
        }
        while let Some(object) = self.open.pop() {
            let event = match object {
                Object::Whole { has_version, has_root } => self.whole(has_version, has_root)?,
                Object::Node(node) => self.node(node)?,
                Object::Entries { last } => Some(self.entries(last)?),
            };
            if event.is_some() {
                return Ok(event);
            }
        }
        self.tokens.end()?;
        self.state = State::Done;
        Ok(None)
    }

    /// Goes on with the outermost object.
    fn whole(&mut self, has_version: bool, has_root: bool) -> Result<Option<ListingEvent>> {
        match self.tokens.key(WORD_LEN_MAX)?.as_deref() {
            Some(b"version") if !has_version => match self.tokens.number()? {
                1 => self.open.push(Object::Whole { has_version: true, has_root }),
                other => return Err(ListingProblem::Version(other)),
            },
            Some(b"root") if !has_root => {
                self.open.push(Object::Whole { has_version, has_root: true });
                self.tokens.open_object()?;
                self.open.push(Object::Node(Node::default()));
            }
            Some(other) => return Err(unexpected(other)),
            None if !has_version => return Err(ListingProblem::Missing("version")),
            None if !has_root => return Err(ListingProblem::Missing("root")),
            None => {}
        }
        Ok(None)
    }

    /// Goes on with a node. What it is is told once it is complete, or its entries begin.
    fn node(&mut self, mut node: Node) -> Result<Option<ListingEvent>> {
        let tokens = &mut self.tokens;
        match tokens.key(WORD_LEN_MAX)?.as_deref() {
            Some(b"type") if node.kind.is_none() => node.kind = Some(tokens.text(WORD_LEN_MAX)?),
            Some(b"size") if node.size.is_none() => node.size = Some(tokens.number()?),
            Some(b"narOffset") if node.nar_offset.is_none() => {
                node.nar_offset = Some(tokens.number()?);
            }
            Some(b"executable") if node.executable.is_none() => {
                node.executable = Some(tokens.boolean()?);
            }
            Some(b"target") if node.target.is_none() => {
                let target = tokens.text(SYMLINK_TARGET_LEN_MAX)?;
                node.target = Some(SymlinkTarget::try_from(&target[..])?);
            }
            Some(b"entries") if !node.has_entries => {
                tokens.open_object()?;
                node.has_entries = true;
                self.open.push(Object::Node(node));
                self.open.push(Object::Entries { last: None });
                // Two objects for each directory, and the outermost.
                if self.open.len() / 2 > self.limits.nesting_max {
                    return Err(ListingProblem::Nesting(self.limits.nesting_max));
                }
                return Ok(Some(ListingEvent::Directory));
            }
            Some(other) => return Err(unexpected(other)),
            None => return node.complete(),
        }
        self.open.push(Object::Node(node));
        Ok(None)
    }

    /// Goes on with the entries of a directory.
    fn entries(&mut self, last: Option<Name>) -> Result<ListingEvent> {
        let Some(name) = self.tokens.key(NAME_LEN_MAX)? else {
            return Ok(ListingEvent::EndDirectory);
        };
        let name = Name::try_from(&name[..])?;
        if last.is_some_and(|last| last.as_bytes() >= name.as_bytes()) {
            return Err(ListingProblem::Unsorted(name.as_bytes().escape_ascii().to_string()));
        }
        self.open.push(Object::Entries { last: Some(name.clone()) });
        self.tokens.open_object()?;
        self.open.push(Object::Node(Node::default()));
        Ok(ListingEvent::Entry(name))
    }
}

impl Node {
    /// What it was. `None` for a directory, of which all was told.
    fn complete(self) -> Result<Option<ListingEvent>> {
        let is_file_field =
            self.size.is_some() || self.executable.is_some() || self.nar_offset.is_some();
        match (self.kind.as_deref(), self.target) {
            (Some(b"regular"), None) if !self.has_entries => {
                let size = self.size.ok_or(ListingProblem::Missing("size"))?;
                let (executable, nar_offset) = (self.executable == Some(true), self.nar_offset);
                Ok(Some(ListingEvent::File { size, executable, nar_offset }))
            }
            (Some(b"symlink"), Some(target)) if !self.has_entries && !is_file_field => {
                Ok(Some(ListingEvent::Symlink(target)))
            }
            (Some(b"directory"), None) if self.has_entries && !is_file_field => Ok(None),
            (None, _) => Err(ListingProblem::Missing("type")),
            (Some(b"symlink"), None) => Err(ListingProblem::Missing("target")),
            (Some(b"directory"), None) if !is_file_field => Err(ListingProblem::Missing("entries")),
            (Some(kind), _) => Err(ListingProblem::Kind(kind.escape_ascii().to_string())),
        }
    }
}

fn unexpected(key: &[u8]) -> ListingProblem {
    ListingProblem::Field(key.escape_ascii().to_string())
}

impl From<io::Error> for ListingProblem {
    fn from(error: io::Error) -> Self {
        ListingProblem::Io(error)
    }
}

#[cfg(test)]
#[path = "listing_reader_tests.rs"]
mod tests;
