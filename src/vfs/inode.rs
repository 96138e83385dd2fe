//! Inodes and their numbers.
//!
//! Numbers come from content and place, so they are the same after a remount and need no counter:
//!
//! * a file's from its digest and whether it is executable. Equal files share an inode, and with it the kernel's
//!   page cache; plain and executable twins do not, or one of them would have the other's mode.
//! * a symlink's from its target.
//! * a directory's from its place: its parent's number and its name. Two places never share one, even when their
//!   contents are equal, since the kernel lets a directory be in one place only and would move it.

use crate::castore::{Digest, NodeRef};

/// An inode number. Never 0, which means "none" to the kernel.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Ino(u64);

impl Ino {
    /// The root of the mount.
    pub const ROOT: Ino = Ino(1);

    /// The first number that is handed to anything but the root. What lies below is kept free.
    const FIRST: u64 = 16;

    /// The highest bits are left to others: an overlay file system on top writes there which of its layers a number is
    /// from (`xino=on`), and only then gives directories numbers that last.
    const MAX: u64 = u64::MAX >> 4;

    /// The number as the kernel has it. Any value is possible there; the table knows which ones exist.
    pub fn from_raw(raw: u64) -> Self {
        Ino(raw)
    }

    /// The number for the kernel.
    pub fn raw(self) -> u64 {
        self.0
    }

    /// The number that a node found under `name` in `parent` should have.
    pub(super) fn derive(parent: Ino, name: &[u8], node: NodeRef<'_>) -> Self {
        match node {
            NodeRef::File { digest, executable, .. } => {
                let [a, b, c, d, e, f, g, h, ..] = *digest.as_bytes();
                let number = u64::from_le_bytes([a, b, c, d, e, f, g, h]);
                Ino::above_reserved((number & !1) | u64::from(executable))
            }
            NodeRef::Symlink { target } => Ino::hashed(b"symlink", target),
            NodeRef::Directory { .. } => Ino::hashed(&parent.0.to_le_bytes(), name),
        }
    }

    /// The number to try when `self` means something else already.
    pub(super) fn next(self) -> Self {
        // Steps of two keep the bit that tells executable files from plain ones.
        Ino::above_reserved(self.0.wrapping_add(2))
    }

    fn hashed(scope: &[u8], bytes: &[u8]) -> Self {
        let mut hasher = blake3::Hasher::new();
        hasher.update(scope).update(&[0]).update(bytes);
        let [a, b, c, d, e, f, g, h, ..] = *hasher.finalize().as_bytes();
        Ino::above_reserved(u64::from_le_bytes([a, b, c, d, e, f, g, h]))
    }

    fn above_reserved(number: u64) -> Self {
        let number = number & Ino::MAX;
        Ino(if number < Ino::FIRST { number + Ino::FIRST } else { number })
    }
}

/// What an inode number stands for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Inode {
    /// The root of the mount: the store directory.
    Root,
    /// A directory below the root.
    Directory {
        /// The digest of its message.
        digest: Digest,
        /// What its parent says of its size.
        size: u64,
        /// The directory it lies in.
        parent: Ino,
    },
    /// A regular file.
    File {
        /// The digest of its contents.
        digest: Digest,
        /// The length of its contents in bytes.
        size: u64,
        /// Whether it may be executed.
        executable: bool,
    },
    /// A symbolic link.
    Symlink {
        /// Where it points.
        target: Box<[u8]>,
    },
}

impl Inode {
    pub(super) fn new(parent: Ino, node: NodeRef<'_>) -> Self {
        match node {
            NodeRef::Directory { digest, size } => Inode::Directory { digest, size, parent },
            NodeRef::File { digest, size, executable } => Inode::File { digest, size, executable },
            NodeRef::Symlink { target } => Inode::Symlink { target: target.into() },
        }
    }

    /// The attributes the kernel sees.
    pub fn attributes(&self, ino: Ino) -> Attributes {
        let (kind, permissions, size) = match self {
            Inode::Root => (FileKind::Directory, 0o555, 0),
            Inode::Directory { size, .. } => (FileKind::Directory, 0o555, *size),
            Inode::File { size, executable: false, .. } => (FileKind::File, 0o444, *size),
            Inode::File { size, executable: true, .. } => (FileKind::File, 0o555, *size),
            Inode::Symlink { target } => (FileKind::Symlink, 0o777, target.len() as u64),
        };
        Attributes { ino, kind, permissions, size }
    }
}

/// The kind of a file, as `d_type` and `st_mode` tell it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FileKind {
    /// A directory.
    Directory,
    /// A regular file.
    File,
    /// A symbolic link.
    Symlink,
}

impl From<NodeRef<'_>> for FileKind {
    fn from(node: NodeRef<'_>) -> Self {
        match node {
            NodeRef::Directory { .. } => FileKind::Directory,
            NodeRef::File { .. } => FileKind::File,
            NodeRef::Symlink { .. } => FileKind::Symlink,
        }
    }
}

/// What differs between inodes of what `stat` tells. The rest is the same for all: owner and group 0, all times 1
/// second after the epoch, one link, 512-byte blocks as the size needs them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Attributes {
    /// The inode number.
    pub ino: Ino,
    /// The kind of file.
    pub kind: FileKind,
    /// The permission bits.
    pub permissions: u32,
    /// In bytes; for a directory the number of entries below it, as its parent states it.
    pub size: u64,
}

impl Attributes {
    /// Everything's modification, change and access time, in seconds since the epoch, as Nix sets it.
    pub const TIME_SECONDS: u64 = 1;

    /// Everything's link count. For directories too: 1 means "not counted", as on btrfs, and spares fetching a
    /// directory only to count its sub-directories.
    pub const LINKS: u32 = 1;

    /// The size of the unit of [`Attributes::blocks`], in bytes.
    pub const BLOCK_SIZE: u64 = 512;

    /// How many blocks of 512 bytes the contents take.
    pub fn blocks(&self) -> u64 {
        self.size.div_ceil(Self::BLOCK_SIZE)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(executable: bool) -> NodeRef<'static> {
        NodeRef::File { digest: Digest::of(b"x"), size: 1, executable }
    }

    #[test]
    fn files_share_a_number_only_with_their_like() {
        let other = Ino::from_raw(77);
        let plain = Ino::derive(Ino::ROOT, b"a", file(false));
        assert_eq!(plain, Ino::derive(other, b"b", file(false)));
        assert_ne!(plain, Ino::derive(Ino::ROOT, b"a", file(true)));
    }

    #[test]
    fn directories_never_share_a_number_with_another_place() {
        let node = NodeRef::Directory { digest: Digest::EMPTY, size: 0 };
        let here = Ino::derive(Ino::ROOT, b"a", node);
        assert_eq!(here, Ino::derive(Ino::ROOT, b"a", node));
        assert_ne!(here, Ino::derive(Ino::ROOT, b"b", node));
        assert_ne!(here, Ino::derive(here, b"a", node));
    }

    #[test]
    fn the_reserved_numbers_are_never_handed_out() {
        for number in 0..Ino::FIRST {
            assert!(Ino::above_reserved(number).raw() >= Ino::FIRST);
            assert!(Ino::above_reserved(u64::MAX - number).raw() <= Ino::MAX);
        }
        assert!(Ino::from_raw(u64::MAX).next().raw() >= Ino::FIRST);
    }
}
