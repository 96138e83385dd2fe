//! The size and hash of an archive that is being read.

use std::io::{self, Read, Write as _};

use super::hasher::NarHasher;
use crate::nix::NarHash;

/// Hands on what it reads from `R`, and keeps its size and hash: for whoever must know whether the archive is the one
/// that was announced. Read from it by reference, `NarReader::new(&mut hashing)`; once that has seen the end, all of
/// the archive was hashed and nothing else.
#[derive(Debug)]
pub struct HashingReader<R> {
    input: R,
    hasher: NarHasher,
}

impl<R: Read> HashingReader<R> {
    /// Hashes what will be read from `input`.
    pub fn new(input: R) -> Self {
        HashingReader { input, hasher: NarHasher::default() }
    }

    /// The size and hash of what was read.
    pub fn finish(self) -> NarHash {
        self.hasher.finish()
    }
}

impl<R: Read> Read for HashingReader<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let len = self.input.read(buffer)?;
        self.hasher.write_all(&buffer[..len])?;
        Ok(len)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::nix::nar::{NarEvent, NarReader, NarWriter};

    #[test]
    fn the_hash_is_that_of_the_whole_archive() {
        let mut writer = NarWriter::new(Vec::new()).expect("memory");
        writer.begin_file(false, 300_001).expect("in order");
        writer.contents(&[7; 300_001]).expect("as announced");
        writer.end_file().expect("complete");
        let bytes = writer.finish().expect("complete");

        let mut hashing = HashingReader::new(&bytes[..]);
        let mut reader = NarReader::new(&mut hashing);
        let file = NarEvent::File { executable: false, len: 300_001 };
        assert_eq!(reader.next_event().expect("legal"), Some(file));
        // Also what nobody asked for is hashed.
        assert_eq!(reader.next_event().expect("legal"), None);

        let mut expected = NarHasher::default();
        expected.write_all(&bytes).expect("a hasher takes everything");
        assert_eq!(hashing.finish(), expected.finish());
    }
}
