//! A directory, kept as its canonical message.
//!
//! The bytes that are hashed, stored and sent are the bytes that are kept; an index over them, sorted by name,
//! answers lookups by binary search. So a directory costs its message plus 24 bytes an entry, names and targets are
//! borrowed from it, and encoding is free. Only canonical messages can be represented.

mod wire;

use std::fmt;

use bytes::{Bytes, BytesMut};

use self::wire::{Parser, encode_entry, list_tag};
use super::{Digest, Name, NameError, Node, NodeRef, SymlinkTargetError};

/// The longest canonical message of a directory that is accepted, in bytes: about 200,000 entries with long names.
pub const DIRECTORY_LEN_MAX: usize = 64 << 20;

/// How the `size` of a directory is computed.
///
/// The protocol documents one rule; the programs in the wild have used another since late 2024. The size is part of
/// the parent's message and so of its digest: a tree has a different digest under each.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum SizeRule {
    /// The number of entries plus the sum of the sizes of the sub-directories.
    #[default]
    Documented,
    /// Twice the number of entries plus the sum of the sizes of the sub-directories.
    Doubled,
}

/// An immutable directory. Cheap to share behind an `Arc`; two are equal if their digests are.
pub struct Directory {
    digest: Digest,
    /// The size by the documented rule; the doubled one is this plus the number of entries.
    size: u64,
    encoded: Bytes,
    /// Sorted by name over all three kinds.
    index: Box<[Slot]>,
}

/// Where an entry lies in the encoded message.
#[derive(Clone, Copy)]
struct Slot {
    /// The size of a file or directory; unused for symlinks.
    size: u64,
    name_at: u32,
    /// The digest of a file or directory, or the target of a symlink.
    value_at: u32,
    target_len: u16,
    name_len: u8,
    kind: Kind,
}

#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Kind {
    Directory,
    File,
    Executable,
    Symlink,
}

/// A name and what it stands for, borrowed from a [`Directory`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Entry<'a> {
    /// A legal name.
    pub name: &'a [u8],
    /// What it stands for.
    pub node: NodeRef<'a>,
}

/// Why bytes or entries make no directory.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum DirectoryError {
    /// An entry's name is illegal.
    #[error("illegal name in a directory: {0}")]
    Name(#[from] NameError),
    /// A symlink's target is illegal.
    #[error("illegal target of the symlink \"{name}\": {source}")]
    Target {
        /// The symlink's name, escaped.
        name: String,
        /// What is wrong with the target.
        source: SymlinkTargetError,
    },
    /// A digest is not 32 bytes long.
    #[error("the digest of \"{name}\" has {len} bytes instead of 32")]
    DigestLength {
        /// The entry's name, escaped.
        name: String,
        /// The length found, in bytes.
        len: usize,
    },
    /// A name stands before one that sorts lower.
    #[error("the entry \"{0}\" is out of order")]
    Unsorted(String),
    /// A name occurs twice.
    #[error("the name \"{0}\" occurs twice")]
    Duplicate(String),
    /// The sizes of the sub-directories add up to more than 64 bits hold.
    #[error("the sizes of the sub-directories overflow")]
    SizeOverflow,
    /// The message is longer than [`DIRECTORY_LEN_MAX`].
    #[error("the directory's message has {0} bytes, more than {DIRECTORY_LEN_MAX}")]
    TooLong(usize),
    /// The bytes are no canonical `Directory` message.
    #[error("not a canonical directory message: {what} at byte {at}")]
    Malformed {
        /// What was wrong.
        what: &'static str,
        /// Where, in bytes from the start of the message.
        at: usize,
    },
}

impl Directory {
    /// Takes a canonical message. Anything else, also what a lenient parser would read, is refused.
    pub fn decode(encoded: Bytes) -> Result<Self, DirectoryError> {
        if encoded.len() > DIRECTORY_LEN_MAX {
            return Err(DirectoryError::TooLong(encoded.len()));
        }
        let mut parser = Parser { bytes: &encoded, at: 0 };
        let mut slots = Vec::new();
        let mut sum = 0u64;
        let mut last: Option<(u8, Slot)> = None;
        while parser.at < encoded.len() {
            let (tag, slot) = parser.entry()?;
            let name = slot.name(&encoded);
            if let Some((last_tag, last_slot)) = last
                && (tag < last_tag || (tag == last_tag && name < last_slot.name(&encoded)))
            {
                return Err(DirectoryError::Unsorted(name.escape_ascii().to_string()));
            }
            if slot.kind == Kind::Directory {
                sum = sum.checked_add(slot.size).ok_or(DirectoryError::SizeOverflow)?;
            }
            last = Some((tag, slot));
            slots.push(slot);
        }
        // Both rules must fit, so that neither needs to fail later.
        let entries = slots.len() as u64;
        sum.checked_add(2 * entries).ok_or(DirectoryError::SizeOverflow)?;

        slots.sort_by(|a, b| a.name(&encoded).cmp(b.name(&encoded)));
        if let Some(twice) = slots.windows(2).find(|w| w[0].name(&encoded) == w[1].name(&encoded)) {
            let name = twice[0].name(&encoded);
            return Err(DirectoryError::Duplicate(name.escape_ascii().to_string()));
        }
        Ok(Directory {
            digest: Digest::of(&encoded),
            size: sum + entries,
            index: slots.into(),
            encoded,
        })
    }

    /// A directory without entries.
    pub fn empty() -> Self {
        Directory { digest: Digest::EMPTY, size: 0, encoded: Bytes::new(), index: Box::default() }
    }

    /// Starts a directory from entries in any order.
    pub fn builder() -> DirectoryBuilder {
        DirectoryBuilder::default()
    }

    /// The digest of the canonical message.
    pub fn digest(&self) -> Digest {
        self.digest
    }

    /// The size that a parent states for this directory.
    pub fn size(&self, rule: SizeRule) -> u64 {
        match rule {
            SizeRule::Documented => self.size,
            SizeRule::Doubled => self.size + self.index.len() as u64,
        }
    }

    /// Whether a parent may state `size` for this directory, by either rule.
    pub fn has_size(&self, size: u64) -> bool {
        size == self.size(SizeRule::Documented) || size == self.size(SizeRule::Doubled)
    }

    /// The node by which a parent refers to this directory.
    pub fn node(&self, rule: SizeRule) -> Node {
        Node::Directory { digest: self.digest, size: self.size(rule) }
    }

    /// The canonical message.
    pub fn encoded(&self) -> &Bytes {
        &self.encoded
    }

    /// The number of entries.
    pub fn len(&self) -> usize {
        self.index.len()
    }

    /// Whether there are no entries.
    pub fn is_empty(&self) -> bool {
        self.index.is_empty()
    }

    /// The memory this takes, in bytes.
    pub fn memory(&self) -> usize {
        size_of::<Self>() + self.encoded.len() + size_of_val::<[Slot]>(&self.index)
    }

    /// The entry at `index` in the order of names.
    pub fn get(&self, index: usize) -> Option<Entry<'_>> {
        self.index.get(index).map(|slot| slot.entry(&self.encoded))
    }

    /// The entry of that name.
    pub fn find(&self, name: &[u8]) -> Option<Entry<'_>> {
        let at = self.index.binary_search_by(|slot| slot.name(&self.encoded).cmp(name)).ok()?;
        self.get(at)
    }

    /// All entries, in the order of names.
    pub fn entries(&self) -> Entries<'_> {
        Entries { directory: self, next: 0 }
    }

    /// The digests and stated sizes of the sub-directories, in the order of names.
    pub fn directories(&self) -> impl Iterator<Item = (Digest, u64)> + '_ {
        self.entries().filter_map(|entry| match entry.node {
            NodeRef::Directory { digest, size } => Some((digest, size)),
            NodeRef::File { .. } | NodeRef::Symlink { .. } => None,
        })
    }
}

impl PartialEq for Directory {
    fn eq(&self, other: &Self) -> bool {
        self.digest == other.digest
    }
}

impl Eq for Directory {}

impl fmt::Debug for Directory {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_map()
            .entries(self.entries().map(|e| (e.name.escape_ascii().to_string(), e.node)))
            .finish()
    }
}

/// The entries of a directory, in the order of names.
#[derive(Debug, Clone)]
pub struct Entries<'a> {
    directory: &'a Directory,
    next: usize,
}

impl<'a> Iterator for Entries<'a> {
    type Item = Entry<'a>;

    fn next(&mut self) -> Option<Entry<'a>> {
        let entry = self.directory.get(self.next)?;
        self.next += 1;
        Some(entry)
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        let left = self.directory.len() - self.next;
        (left, Some(left))
    }
}

impl ExactSizeIterator for Entries<'_> {}

impl Slot {
    fn name<'a>(&self, encoded: &'a [u8]) -> &'a [u8] {
        &encoded[self.name_at as usize..][..usize::from(self.name_len)]
    }

    fn entry<'a>(&self, encoded: &'a [u8]) -> Entry<'a> {
        let value = &encoded[self.value_at as usize..];
        let digest = || {
            let bytes: [u8; 32] = value[..32].try_into().expect("the parser saw 32 bytes here");
            Digest::from(bytes)
        };
        let node = match self.kind {
            Kind::Directory => NodeRef::Directory { digest: digest(), size: self.size },
            Kind::File | Kind::Executable => NodeRef::File {
                digest: digest(),
                size: self.size,
                executable: self.kind == Kind::Executable,
            },
            Kind::Symlink => NodeRef::Symlink { target: &value[..usize::from(self.target_len)] },
        };
        Entry { name: self.name(encoded), node }
    }
}

/// Collects entries in any order.
#[derive(Debug, Default)]
pub struct DirectoryBuilder {
    entries: Vec<(Name, Node)>,
}

impl DirectoryBuilder {
    /// Adds an entry. That its name is new is checked by [`DirectoryBuilder::build`].
    pub fn add(&mut self, name: Name, node: Node) -> &mut Self {
        self.entries.push((name, node));
        self
    }

    /// Sorts, encodes and hashes.
    pub fn build(&mut self) -> Result<Directory, DirectoryError> {
        let mut entries = std::mem::take(&mut self.entries);
        entries
            .sort_by(|(a, a_node), (b, b_node)| (list_tag(a_node), a).cmp(&(list_tag(b_node), b)));
        let mut out = BytesMut::with_capacity(entries.len() * 96);
        for (name, node) in &entries {
            encode_entry(&mut out, name, node);
        }
        Directory::decode(out.freeze())
    }
}

#[cfg(test)]
mod tests;
