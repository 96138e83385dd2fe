//! The hash of an archive that holds its own store path.
//!
//! Nobody can know a path that depends on its own digest. So the digest is left out: each place where it stands is
//! hashed as zeros, and after the archive the places are, as decimal numbers with a bar before each.

use std::io::{self, Write};

use sha2::{Digest as _, Sha256};

use super::store_path::StorePathDigest;

/// How long the text of a digest is, in bytes.
const NEEDLE_LEN: usize = 32;

/// Takes an archive and keeps its SHA-256 only, without what it says of itself.
#[derive(Debug, Clone)]
pub struct SelfReferenceHasher {
    sha256: Sha256,
    needle: [u8; NEEDLE_LEN],
    /// By how much to go on when this byte is seen where the needle would end.
    skip: [u8; 256],
    /// What was written and not hashed yet, because the needle may begin in it.
    waiting: Vec<u8>,
    /// How many bytes were hashed.
    hashed: u64,
    /// Hashed behind the archive: where the needle stood.
    places: Vec<u64>,
}

impl SelfReferenceHasher {
    /// Begins the hash of an archive whose store path has this digest.
    pub fn new(digest: StorePathDigest) -> Self {
        let needle: [u8; NEEDLE_LEN] =
            digest.to_string().into_bytes().try_into().expect("a digest is displayed as 32 digits");
        let mut skip = [NEEDLE_LEN as u8; 256];
        for (at, byte) in needle[..NEEDLE_LEN - 1].iter().enumerate() {
            skip[usize::from(*byte)] = (NEEDLE_LEN - 1 - at) as u8;
        }
        let (waiting, places) = (Vec::new(), Vec::new());
        SelfReferenceHasher { sha256: Sha256::new(), needle, skip, waiting, hashed: 0, places }
    }

    /// The hash of what was written.
    pub fn finish(mut self) -> [u8; 32] {
        self.sha256.update(&self.waiting);
        for place in self.places {
            self.sha256.update(format!("|{place}"));
        }
        self.sha256.finalize().into()
    }

    /// Blanks the needle wherever it stands in what waits.
    fn blank(&mut self) {
        let mut end = NEEDLE_LEN;
        while let Some(window) = self.waiting.get_mut(end.wrapping_sub(NEEDLE_LEN)..end) {
            let last = window[NEEDLE_LEN - 1];
            if *window == self.needle {
                window.fill(0);
                self.places.push(self.hashed + (end - NEEDLE_LEN) as u64);
                end += NEEDLE_LEN;
            } else {
                end += usize::from(self.skip[usize::from(last)]);
            }
        }
    }
}

impl Write for SelfReferenceHasher {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        // Not more at once than is worth copying.
        let bytes = &bytes[..bytes.len().min(64 << 10)];
        self.waiting.extend_from_slice(bytes);
        self.blank();
        let done = self.waiting.len().saturating_sub(NEEDLE_LEN - 1);
        self.sha256.update(&self.waiting[..done]);
        self.waiting.drain(..done);
        self.hashed += done as u64;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const DIGEST: &str = "aaaabaaaabaaaabaaaabaaaabaaaabaa";

    fn hash(pieces: &[&[u8]]) -> [u8; 32] {
        let mut hasher = SelfReferenceHasher::new(DIGEST.parse().expect("a digest"));
        for piece in pieces {
            hasher.write_all(piece).expect("it takes everything");
        }
        hasher.finish()
    }

    #[test]
    fn each_place_is_blanked_and_told_however_the_archive_comes() {
        let text = format!("x{DIGEST}y{DIGEST}{DIGEST}aaaabaaaab");
        let zeros = "\0".repeat(NEEDLE_LEN);
        let expected = Sha256::digest(format!("x{zeros}y{zeros}{zeros}aaaabaaaab|1|34|66"));
        for len in 1..text.len() {
            let pieces: Vec<_> = text.as_bytes().chunks(len).collect();
            assert_eq!(hash(&pieces), *expected, "in pieces of {len}");
        }
        // Longer than what is taken at once.
        let long = [&[b'z'; (64 << 10) - 5][..], DIGEST.as_bytes()].concat();
        let blanked = [&[b'z'; (64 << 10) - 5][..], zeros.as_bytes(), b"|65531"].concat();
        assert_eq!(hash(&[&long]), *Sha256::digest(blanked));
    }

    #[test]
    fn places_that_lie_over_each_other_count_from_the_first() {
        // It is found at 0; that one at 5, which begins within it, is gone then.
        let text = format!("{DIGEST}{}", &DIGEST[27..]);
        let expected = format!("{}{}|0", "\0".repeat(NEEDLE_LEN), &DIGEST[27..]);
        assert_eq!(hash(&[text.as_bytes()]), *Sha256::digest(expected));
    }

    #[test]
    fn without_references_to_itself_it_is_the_plain_hash() {
        for text in ["", "a", &DIGEST[1..], "b".repeat(1000).as_str()] {
            assert_eq!(hash(&[text.as_bytes()]), *Sha256::digest(text));
        }
    }
}
