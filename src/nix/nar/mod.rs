//! Nix archives (NAR): the canonical serialisation of a file tree, whose SHA-256 Nix signs.

mod hasher;
mod hashing;
mod listing;
mod problem;
mod reader;
mod source;
mod wire;
mod writer;

pub use hasher::NarHasher;
pub use hashing::HashingReader;
pub use listing::{ListingWriteError, ListingWriter};
pub use problem::{NarProblem, NarReadError};
pub use reader::{NAR_NESTING_MAX, NarEvent, NarLimits, NarReader};
pub use writer::{NarWriteError, NarWriter};
