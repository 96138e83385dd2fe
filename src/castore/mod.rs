//! The castore model: contents addressed by BLAKE3.
//!
//! A *blob* is a run of bytes; a *directory* names blobs, symlink targets and other directories. Everything here is
//! pure: no I/O, no protobuf library, no async. What can be constructed is valid: a [`Directory`] is always
//! canonical, a [`Name`] always legal.

mod chunks;
mod closure;
mod digest;
mod directory;
mod name;
mod node;
pub mod outboard;

pub use chunks::{Chunk, ChunkList, ChunkListError};
pub use closure::{ClosureError, LeavesFirst, RootFirst};
pub use digest::{Digest, DigestError};
pub use directory::{
    DIRECTORY_LEN_MAX, Directory, DirectoryBuilder, DirectoryError, Entries, Entry, SizeRule,
};
pub use name::{NAME_LEN_MAX, Name, NameError, check_name};
pub use node::{
    Node, NodeRef, SYMLINK_TARGET_LEN_MAX, SymlinkTarget, SymlinkTargetError, check_target,
};
