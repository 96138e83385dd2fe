//! A file of a cache, as it arrives, held to what was told of it.

use std::io::{self, Read};

use sha2::{Digest as _, Sha256};

use super::fault::CacheFault;
use crate::nix::ArchiveFile;

/// How much longer than its archive a file may be at most, as a part of the archive and in bytes: what cannot be
/// compressed takes a little more than before.
const OVERHEAD_PART: u64 = 8;
const OVERHEAD_BYTES: u64 = 1 << 20;

/// Reads a file, and compares its length and hash with what was told before it tells of the end.
#[derive(Debug)]
pub(super) struct CheckedFile<R> {
    input: R,
    size: Option<u64>,
    sha256: Option<[u8; 32]>,
    len_max: u64,
    len: u64,
    /// There if there is something to compare with.
    hasher: Option<Sha256>,
    ended: bool,
}

/// The longest file that an archive of `nar_size` bytes may have, in bytes.
pub(super) fn file_len_max(nar_size: u64) -> u64 {
    nar_size.saturating_add(nar_size / OVERHEAD_PART).saturating_add(OVERHEAD_BYTES)
}

impl<R: Read> CheckedFile<R> {
    /// Of `file`, which should come out of `input`, and hold an archive of `nar_size` bytes.
    pub(super) fn new(input: R, file: &ArchiveFile, nar_size: u64) -> Self {
        CheckedFile {
            input,
            size: file.size,
            sha256: file.sha256,
            len_max: file_len_max(nar_size),
            len: 0,
            hasher: file.sha256.map(|_| Sha256::new()),
            ended: false,
        }
    }

    fn came(&mut self, bytes: &[u8]) -> Result<(), CacheFault> {
        self.len += bytes.len() as u64;
        if let Some(expected) = self.size.filter(|size| self.len > *size) {
            return Err(CacheFault::FileSize { expected, found: "more bytes".to_owned() });
        }
        if self.len > self.len_max {
            return Err(CacheFault::Inflated(self.len_max));
        }
        if let Some(hasher) = &mut self.hasher {
            hasher.update(bytes);
        }
        Ok(())
    }

    fn end(&mut self) -> Result<(), CacheFault> {
        self.ended = true;
        if let Some(expected) = self.size.filter(|size| self.len != *size) {
            return Err(CacheFault::FileSize { expected, found: format!("{} bytes", self.len) });
        }
        let found = self.hasher.take().map(|hasher| <[u8; 32]>::from(hasher.finalize()));
        match (self.sha256, found) {
            (Some(expected), Some(found)) if expected != found => {
                Err(CacheFault::FileHash { expected, found })
            }
            _ => Ok(()),
        }
    }
}

impl<R: Read> Read for CheckedFile<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if buffer.is_empty() || self.ended {
            return Ok(0);
        }
        let len = self.input.read(buffer)?;
        let checked = match len {
            0 => self.end(),
            len => self.came(&buffer[..len]),
        };
        checked.map_err(io::Error::other)?;
        Ok(len)
    }
}
