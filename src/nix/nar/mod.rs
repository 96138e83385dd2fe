//! Nix archives (NAR): the canonical serialisation of a file tree, whose SHA-256 Nix signs.

mod hasher;
mod wire;
mod writer;

pub use hasher::NarHasher;
pub use writer::{NarWriteError, NarWriter};
