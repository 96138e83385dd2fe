//! Where a blob is cut into chunks.

use bytes::{Bytes, BytesMut};
use fastcdc::v2020::FastCDC;

/// The mean length of a chunk, in bytes.
const CHUNK_LEN_MEAN: usize = 256 << 10;

/// No chunk but the last of a blob is shorter, in bytes. A blob of at most this is one chunk.
pub(super) const CUT_LEN_MIN: usize = CHUNK_LEN_MEAN / 2;

/// No chunk of ours is longer, in bytes.
pub(super) const CUT_LEN_MAX: usize = CHUNK_LEN_MEAN * 2;

/// Cuts contents that come piece by piece, by FastCDC in its form of 2020 with normalization level 1. Equal contents are
/// cut in equal places, by everybody who writes such stores; that is what makes chunks worth sharing.
#[derive(Debug, Default)]
pub(super) struct Chunker {
    /// What is not cut yet: fewer bytes than the longest chunk has, unless something was just added.
    rest: BytesMut,
}

impl Chunker {
    /// Adds a piece.
    pub(super) fn push(&mut self, piece: &[u8]) {
        self.rest.extend_from_slice(piece);
    }

    /// The next chunk, if it is certain where it ends.
    pub(super) fn next(&mut self) -> Option<Bytes> {
        (self.rest.len() >= CUT_LEN_MAX).then(|| self.cut())
    }

    /// The next chunk, if nothing more comes.
    pub(super) fn next_at_end(&mut self) -> Option<Bytes> {
        (!self.rest.is_empty()).then(|| self.cut())
    }

    fn cut(&mut self) -> Bytes {
        let len = first_len(&self.rest);
        self.rest.split_to(len).freeze()
    }
}

/// Cuts all of `contents` without copying it.
pub(super) fn chunks_of(mut contents: Bytes) -> impl Iterator<Item = Bytes> {
    std::iter::from_fn(move || {
        (!contents.is_empty()).then(|| contents.split_to(first_len(&contents)))
    })
}

/// How long the first chunk of what is not empty is.
fn first_len(contents: &[u8]) -> usize {
    let window = &contents[..contents.len().min(CUT_LEN_MAX)];
    let first = FastCDC::new(window, CUT_LEN_MIN, CHUNK_LEN_MEAN, CUT_LEN_MAX).next();
    first.map_or(window.len(), |chunk| chunk.length)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn noise(len: usize) -> Vec<u8> {
        let mut bytes = vec![0; len];
        blake3::Hasher::new().update(b"chunker").finalize_xof().fill(&mut bytes);
        bytes
    }

    #[test]
    fn pieces_of_any_length_are_cut_as_the_whole_is() {
        let contents = noise(5_000_003);
        let whole = FastCDC::new(&contents, CUT_LEN_MIN, CHUNK_LEN_MEAN, CUT_LEN_MAX);
        let expected: Vec<usize> = whole.map(|chunk| chunk.length).collect();
        assert!(expected.len() > 10);
        let at_once: Vec<_> = chunks_of(contents.clone().into()).map(|chunk| chunk.len()).collect();
        assert_eq!(at_once, expected);
        for piece_len in [1 << 20, 100_000, 999_983, 5_000_003] {
            let (mut chunker, mut cut) = (Chunker::default(), Vec::new());
            for piece in contents.chunks(piece_len) {
                chunker.push(piece);
                cut.extend(std::iter::from_fn(|| chunker.next()));
                assert!(chunker.rest.len() < CUT_LEN_MAX);
            }
            cut.extend(std::iter::from_fn(|| chunker.next_at_end()));
            assert_eq!(cut.iter().map(Bytes::len).collect::<Vec<_>>(), expected, "{piece_len}");
            assert_eq!(cut.concat(), contents);
        }
    }

    /// Cuts that were recorded once: others must find the same chunks in the same contents.
    #[test]
    fn the_places_of_cuts_never_change() {
        let lens: Vec<_> = chunks_of(noise(2_000_000).into()).map(|chunk| chunk.len()).collect();
        assert_eq!(lens, [409_142, 317_033, 258_115, 303_252, 165_232, 413_969, 133_257]);
        let zeros: Vec<_> = chunks_of(vec![0; 1_100_000].into()).map(|chunk| chunk.len()).collect();
        assert_eq!(zeros, [CUT_LEN_MAX, CUT_LEN_MAX, 1_100_000 - 2 * CUT_LEN_MAX]);
        assert_eq!(chunks_of(noise(CUT_LEN_MIN).into()).count(), 1);
        assert_eq!(chunks_of(Bytes::new()).count(), 0);
    }
}
