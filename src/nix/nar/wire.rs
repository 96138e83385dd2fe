//! The words of the format. Every one is a length in 8 little-endian bytes, so many bytes, and zeros up to a multiple
//! of 8.

pub(super) const MAGIC: &[u8] = b"nix-archive-1";
pub(super) const OPEN: &[u8] = b"(";
pub(super) const CLOSE: &[u8] = b")";
pub(super) const TYPE: &[u8] = b"type";
pub(super) const REGULAR: &[u8] = b"regular";
pub(super) const EXECUTABLE: &[u8] = b"executable";
pub(super) const CONTENTS: &[u8] = b"contents";
pub(super) const SYMLINK: &[u8] = b"symlink";
pub(super) const TARGET: &[u8] = b"target";
pub(super) const DIRECTORY: &[u8] = b"directory";
pub(super) const ENTRY: &[u8] = b"entry";
pub(super) const NAME: &[u8] = b"name";
pub(super) const NODE: &[u8] = b"node";

/// How many zeros follow a word of `len` bytes.
pub(super) fn padding(len: u64) -> usize {
    (len.wrapping_neg() % 8) as usize
}
