//! The size and hash of an archive.

use std::io::{self, Write};

use sha2::{Digest as _, Sha256};

use crate::nix::NarHash;

/// Takes an archive and keeps its size and hash only.
#[derive(Debug, Default, Clone)]
pub struct NarHasher {
    sha256: Sha256,
    size: u64,
}

impl NarHasher {
    /// The size and hash of what was written.
    pub fn finish(self) -> NarHash {
        NarHash { size: self.size, sha256: self.sha256.finalize().into() }
    }
}

impl Write for NarHasher {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.sha256.update(bytes);
        self.size += bytes.len() as u64;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
