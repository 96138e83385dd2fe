//! An archive that is looked at before anything of it is stored.

use std::{
    fs::File,
    io::{self, Read, Seek as _, Write as _},
};

use rustix::fs::{CWD, Mode, OFlags, openat};

use super::IngestNarError;
use crate::{
    nix::{
        ClaimCheck, ContentClaim, NarHash, NixHasher,
        nar::{HashingReader, NarEvent, NarLimits, NarReader},
    },
    service::Error,
};

/// What errors call the place.
const ENDPOINT: &str = "the directory for temporary files";

/// A file without a name, in the directory for temporary files: nothing is left of it, whatever happens.
pub fn unnamed_file() -> io::Result<File> {
    let flags = OFlags::TMPFILE | OFlags::RDWR | OFlags::CLOEXEC;
    Ok(openat(CWD, std::env::temp_dir(), flags, Mode::RUSR | Mode::WUSR)?.into())
}

/// Reads `input` to its end and finds out whether it is the archive that was announced. Returns it, in a file without a
/// name that stands at its beginning. Blocks.
///
/// You want it before [`ingest_nar`](super::ingest_nar) where what was stored cannot be taken back: of an archive that is
/// wrong, nothing is left then. It costs that the archive is written and read once more.
pub fn spool_nar(input: impl Read, expected: NarHash) -> Result<File, IngestNarError> {
    let mut file = unnamed_file().map_err(|error| Error::unavailable(ENDPOINT, error))?;
    let limits = NarLimits { archive_bytes_max: expected.size, ..NarLimits::default() };
    let mut hashing = HashingReader::new(Tee { input, copy: &mut file });
    let mut archive = NarReader::with_limits(&mut hashing, limits);
    while archive.next_event()?.is_some() {
        // The contents that are not asked for are passed over, and checked for being there.
        while archive.contents()?.is_some() {}
    }
    let found = hashing.finish();
    if found != expected {
        return Err(IngestNarError::Differs { expected, found });
    }
    file.rewind().map_err(|error| Error::unavailable(ENDPOINT, error))?;
    Ok(file)
}

/// Whether the archive in `file`, which stands at its beginning and does so again afterwards, is as `claim` says. Blocks.
pub fn is_spooled_as_claimed(
    file: &mut File,
    claim: &ContentClaim,
) -> Result<bool, IngestNarError> {
    let failed = |error: io::Error| Error::unavailable(ENDPOINT, error);
    let is_so = match claim.check() {
        ClaimCheck::Archive(mut hasher) => {
            io::copy(file, &mut hasher).map_err(failed)?;
            hasher.is_so()
        }
        ClaimCheck::File(expected) => {
            let mut archive = NarReader::new(&mut *file);
            match archive.next_event()? {
                Some(NarEvent::File { executable: false, .. }) => {
                    let mut hasher = NixHasher::new(expected.algorithm());
                    while let Some(piece) = archive.contents()? {
                        hasher.write_all(piece).map_err(failed)?;
                    }
                    hasher.finish() == expected
                }
                _ => false,
            }
        }
    };
    file.rewind().map_err(failed)?;
    Ok(is_so)
}

/// Copies what is read.
struct Tee<'a, R> {
    input: R,
    copy: &'a mut File,
}

impl<R: Read> Read for Tee<'_, R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let len = self.input.read(buffer)?;
        let written = self.copy.write_all(&buffer[..len]);
        written.map_err(|error| io::Error::other(Error::unavailable(ENDPOINT, error)))?;
        Ok(len)
    }
}

#[cfg(test)]
mod tests {
    use sha2::{Digest as _, Sha256};

    use super::*;
    use crate::nix::{NixHash, StorePathDigest, nar::NarWriter};

    fn archive() -> Vec<u8> {
        let mut nar = NarWriter::new(Vec::new()).expect("memory");
        nar.begin_directory().expect("memory");
        for name in ["a", "b"] {
            nar.entry(name.as_bytes()).expect("in order");
            nar.begin_file(false, 100_001).expect("memory");
            nar.contents(&[7; 100_001]).expect("memory");
            nar.end_file().expect("memory");
        }
        nar.end_directory().expect("memory");
        nar.finish().expect("whole")
    }

    fn hash(archive: &[u8]) -> NarHash {
        NarHash { size: archive.len() as u64, sha256: Sha256::digest(archive).into() }
    }

    #[test]
    fn an_archive_that_is_as_announced_comes_back_from_its_beginning() {
        let archive = archive();
        let mut file = spool_nar(&archive[..], hash(&archive)).expect("it is as announced");
        let mut read = Vec::new();
        file.read_to_end(&mut read).expect("it reads");
        assert!(read == archive);
    }

    /// The claims about an archive, each by its kind; the rendered ones are tested with real paths elsewhere.
    #[test]
    fn a_claim_is_found_true_or_false_before_anything_is_stored() {
        let mut nar = NarWriter::new(Vec::new()).expect("memory");
        nar.begin_file(false, 5).expect("memory");
        nar.contents(b"hello").expect("memory");
        nar.end_file().expect("memory");
        let (file, tree) = (nar.finish().expect("whole"), archive());
        let own = StorePathDigest::from([7; 20]);
        let sha256 = |bytes: &[u8]| NixHash::Sha256(Sha256::digest(bytes).into());
        let besides = |digest| ContentClaim::ArchiveBesidesItself {
            sha256: Sha256::digest(&tree).into(),
            digest,
        };
        for (archive, claim, is_so) in [
            (&tree, ContentClaim::Archive(sha256(&tree)), true),
            (&tree, ContentClaim::Archive(sha256(&file)), false),
            (&tree, besides(own), true),
            (&file, besides(own), false),
            (&file, ContentClaim::File(sha256(b"hello")), true),
            (&file, ContentClaim::File(sha256(b"other")), false),
            (&tree, ContentClaim::File(sha256(b"hello")), false),
        ] {
            let mut spooled = spool_nar(&archive[..], hash(archive)).expect("it is as announced");
            let found = is_spooled_as_claimed(&mut spooled, &claim).expect("it reads");
            assert_eq!(found, is_so, "{claim:?}");
            let mut read = Vec::new();
            spooled.read_to_end(&mut read).expect("it reads");
            assert!(read == *archive, "it stands at its beginning");
        }
    }

    #[test]
    fn any_other_is_refused() {
        let good = archive();
        let mut flipped = good.clone();
        flipped[500] ^= 1;
        let mut unsorted = good.clone();
        let at = unsorted.windows(9).rposition(|w| w[0] == 1 && w[8] == b'b').expect("the name b");
        unsorted[at + 8] = b'a';
        assert!(matches!(
            spool_nar(&flipped[..], hash(&good)),
            Err(IngestNarError::Differs { .. })
        ));
        for (bad, said) in [
            (&unsorted[..], hash(&unsorted)),
            (&good[..good.len() - 8], hash(&good)),
            (&[&good[..], b"12345678"].concat()[..], hash(&good)),
        ] {
            let refused = spool_nar(bad, said);
            assert!(matches!(refused, Err(IngestNarError::Archive(_))), "{refused:?}");
        }
    }
}
