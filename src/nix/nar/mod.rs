//! Nix archives (NAR): the canonical serialisation of a file tree, whose SHA-256 Nix signs.

mod hasher;
mod hashing;
mod listing;
mod listing_reader;
mod listing_tokens;
mod problem;
mod reader;
mod source;
mod wire;
mod writer;

pub use hasher::NarHasher;
pub use hashing::HashingReader;
pub use listing::{ListingWriteError, ListingWriter};
pub use listing_reader::{ListingEvent, ListingLimits, ListingReader};
pub use listing_tokens::{ListingProblem, ListingReadError};
pub use problem::{NarProblem, NarReadError};
pub use reader::{NAR_NESTING_MAX, NarEvent, NarLimits, NarReader};
pub use writer::{NarWriteError, NarWriter};
