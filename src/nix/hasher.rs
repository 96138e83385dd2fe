//! Hashing by any algorithm that Nix knows.

use std::io::{self, Write};

use md5::Md5;
use sha1::Sha1;
use sha2::{Digest as _, Sha256, Sha512};

use super::hash::{HashAlgorithm, NixHash};

/// Takes bytes and keeps their hash only.
#[derive(Debug, Clone)]
pub struct NixHasher(State);

#[derive(Debug, Clone)]
enum State {
    Md5(Md5),
    Sha1(Sha1),
    Sha256(Sha256),
    Sha512(Sha512),
}

impl NixHasher {
    /// Begins a hash.
    pub fn new(algorithm: HashAlgorithm) -> Self {
        NixHasher(match algorithm {
            HashAlgorithm::Md5 => State::Md5(Md5::new()),
            HashAlgorithm::Sha1 => State::Sha1(Sha1::new()),
            HashAlgorithm::Sha256 => State::Sha256(Sha256::new()),
            HashAlgorithm::Sha512 => State::Sha512(Sha512::new()),
        })
    }

    /// The hash of what was written.
    pub fn finish(self) -> NixHash {
        match self.0 {
            State::Md5(hasher) => NixHash::Md5(hasher.finalize().into()),
            State::Sha1(hasher) => NixHash::Sha1(hasher.finalize().into()),
            State::Sha256(hasher) => NixHash::Sha256(hasher.finalize().into()),
            State::Sha512(hasher) => NixHash::Sha512(hasher.finalize().into()),
        }
    }
}

impl Write for NixHasher {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match &mut self.0 {
            State::Md5(hasher) => hasher.update(bytes),
            State::Sha1(hasher) => hasher.update(bytes),
            State::Sha256(hasher) => hasher.update(bytes),
            State::Sha512(hasher) => hasher.update(bytes),
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_algorithm_gives_its_known_hash() {
        for (algorithm, hex) in [
            (HashAlgorithm::Md5, "b1946ac92492d2347c6235b4d2611184"),
            (HashAlgorithm::Sha1, "f572d396fae9206628714fb2ce00f72e94f2258f"),
            (
                HashAlgorithm::Sha256,
                "5891b5b522d5df086d0ff0b110fbd9d21bb4fc7163af34d08286a2e846f6be03",
            ),
            (
                HashAlgorithm::Sha512,
                "e7c22b994c59d9cf2b48e549b1e24666636045930d3da7c1acb299d1c3b7f931\
                 f94aae41edda2c2b207a36e10f8bcb8d45223e54878f5b316e7ce3b6bc019629",
            ),
        ] {
            let mut hasher = NixHasher::new(algorithm);
            hasher.write_all(b"hel").expect("it takes everything");
            hasher.write_all(b"lo\n").expect("it takes everything");
            assert_eq!(hasher.finish().to_hex(), hex);
        }
    }
}
