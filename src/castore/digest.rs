//! The digest of a blob or a directory.

use std::{fmt, str::FromStr};

use data_encoding::{BASE64, BASE64_NOPAD, HEXLOWER, HEXLOWER_PERMISSIVE};

/// The BLAKE3 hash of a blob's bytes, or of a directory's canonical message: 32 bytes.
///
/// Printed as `blake3-` and padded base64, the form of an SRI hash.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Digest([u8; 32]);

/// Why something is not a digest.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum DigestError {
    /// The bytes are too few or too many.
    #[error("a digest is 32 bytes, not {0}")]
    Length(usize),
    /// The text is none of the three forms.
    #[error("{0:?} is no digest: expected blake3-<base64>, b3:<base64> or 64 hexadecimal digits")]
    Text(String),
}

impl Digest {
    /// The digest of no bytes at all: of the empty blob, and of the empty directory.
    pub const EMPTY: Digest = Digest([
        0xaf, 0x13, 0x49, 0xb9, 0xf5, 0xf9, 0xa1, 0xa6, 0xa0, 0x40, 0x4d, 0xea, 0x36, 0xdc, 0xc9,
        0x49, 0x9b, 0xcb, 0x25, 0xc9, 0xad, 0xc1, 0x12, 0xb7, 0xcc, 0x9a, 0x93, 0xca, 0xe4, 0x1f,
        0x32, 0x62,
    ]);

    /// Hashes `bytes`.
    pub fn of(bytes: &[u8]) -> Self {
        Digest(*blake3::hash(bytes).as_bytes())
    }

    /// The 32 bytes.
    pub fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }

    /// 64 lower-case hexadecimal digits, as in file names.
    pub fn to_hex(&self) -> String {
        HEXLOWER.encode(&self.0)
    }

    /// `b3:` and padded base64, the form the older dialect uses.
    pub fn to_b3(&self) -> String {
        format!("b3:{}", BASE64.encode(&self.0))
    }
}

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "blake3-{}", BASE64.encode(&self.0))
    }
}

impl fmt::Debug for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl From<[u8; 32]> for Digest {
    fn from(bytes: [u8; 32]) -> Self {
        Digest(bytes)
    }
}

impl From<blake3::Hash> for Digest {
    fn from(hash: blake3::Hash) -> Self {
        Digest(*hash.as_bytes())
    }
}

impl TryFrom<&[u8]> for Digest {
    type Error = DigestError;

    fn try_from(bytes: &[u8]) -> Result<Self, DigestError> {
        bytes.try_into().map(Digest).map_err(|_| DigestError::Length(bytes.len()))
    }
}

impl FromStr for Digest {
    type Err = DigestError;

    /// Accepts `blake3-` or `b3:` with base64, padded or not, and 64 hexadecimal digits.
    fn from_str(text: &str) -> Result<Self, DigestError> {
        let bad = || DigestError::Text(text.to_owned());
        let bytes = match text.strip_prefix("blake3-").or(text.strip_prefix("b3:")) {
            Some(base64) => BASE64_NOPAD.decode(base64.trim_end_matches('=').as_bytes()),
            None => HEXLOWER_PERMISSIVE.decode(text.as_bytes()),
        }
        .map_err(|_| bad())?;
        Digest::try_from(bytes.as_slice()).map_err(|_| bad())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_empty_digest_is_the_hash_of_nothing() {
        assert_eq!(Digest::of(b""), Digest::EMPTY);
    }

    #[test]
    fn all_three_text_forms_are_read() {
        let digest = Digest::of(b"hello");
        for text in [digest.to_string(), digest.to_b3(), digest.to_hex()] {
            assert_eq!(text.parse(), Ok(digest), "{text}");
        }
        assert_eq!(digest.to_hex().to_uppercase().parse(), Ok(digest));
        assert_eq!(digest.to_string().trim_end_matches('=').parse(), Ok(digest));
        assert_eq!(Digest::EMPTY.to_b3(), "b3:rxNJufX5oaagQE3qNtzJSZvLJcmtwRK3zJqTyuQfMmI=");
    }

    #[test]
    fn other_texts_are_refused() {
        for text in ["", "b3:", "blake3-AAAA", "sha256-rxNJ", &"0".repeat(63), &"g".repeat(64)] {
            assert_eq!(text.parse::<Digest>(), Err(DigestError::Text(text.to_owned())));
        }
        assert_eq!(Digest::try_from(&[0u8; 31][..]), Err(DigestError::Length(31)));
        assert_eq!(Digest::try_from(&[0u8; 33][..]), Err(DigestError::Length(33)));
    }
}
