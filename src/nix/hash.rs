//! Hashes as Nix writes them.

use std::{fmt, str::FromStr};

use data_encoding::{BASE64, HEXLOWER, HEXLOWER_PERMISSIVE};

use super::base32::{self, Base32Error};

/// A hash algorithm that Nix knows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum HashAlgorithm {
    /// MD5, 16 bytes.
    Md5,
    /// SHA-1, 20 bytes.
    Sha1,
    /// SHA-256, 32 bytes.
    Sha256,
    /// SHA-512, 64 bytes.
    Sha512,
}

/// A hash with its algorithm. Displayed as `<algorithm>:<base 32>`.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub enum NixHash {
    /// MD5.
    Md5([u8; 16]),
    /// SHA-1.
    Sha1([u8; 20]),
    /// SHA-256.
    Sha256([u8; 32]),
    /// SHA-512.
    Sha512([u8; 64]),
}

/// Why something is not a hash.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum HashError {
    /// The text does not say which algorithm it is.
    #[error("{0:?} names no algorithm: expected <algorithm>:<hash> or <algorithm>-<base64>")]
    NoAlgorithm(String),
    /// An algorithm that Nix does not know.
    #[error("{0:?} is none of the hash algorithms md5, sha1, sha256, sha512")]
    UnknownAlgorithm(String),
    /// Too few or too many bytes.
    #[error("a hash of {algorithm} has {} bytes, not {len}", .algorithm.digest_len())]
    Length {
        /// The algorithm.
        algorithm: HashAlgorithm,
        /// The length found, in bytes.
        len: usize,
    },
    /// Text whose length fits no spelling of this algorithm's hashes.
    #[error("no spelling of a hash of {algorithm} has {len} characters")]
    TextLength {
        /// The algorithm.
        algorithm: HashAlgorithm,
        /// The length found, in bytes of text.
        len: usize,
    },
    /// As long as hexadecimal digits, but something else.
    #[error("not hexadecimal: {0:?}")]
    Hex(String),
    /// As long as base 32, but something else.
    #[error("not base 32: {0}")]
    Base32(#[from] Base32Error),
    /// As long as base64, but something else.
    #[error("not canonical base64: {0:?}")]
    Base64(String),
}

impl HashAlgorithm {
    /// The length of its hashes, in bytes.
    pub const fn digest_len(self) -> usize {
        match self {
            HashAlgorithm::Md5 => 16,
            HashAlgorithm::Sha1 => 20,
            HashAlgorithm::Sha256 => 32,
            HashAlgorithm::Sha512 => 64,
        }
    }

    /// Its name, as in `sha256`.
    pub const fn name(self) -> &'static str {
        match self {
            HashAlgorithm::Md5 => "md5",
            HashAlgorithm::Sha1 => "sha1",
            HashAlgorithm::Sha256 => "sha256",
            HashAlgorithm::Sha512 => "sha512",
        }
    }
}

impl fmt::Display for HashAlgorithm {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for HashAlgorithm {
    type Err = HashError;

    fn from_str(text: &str) -> Result<Self, HashError> {
        match text {
            "md5" => Ok(HashAlgorithm::Md5),
            "sha1" => Ok(HashAlgorithm::Sha1),
            "sha256" => Ok(HashAlgorithm::Sha256),
            "sha512" => Ok(HashAlgorithm::Sha512),
            _ => Err(HashError::UnknownAlgorithm(text.to_owned())),
        }
    }
}

impl NixHash {
    /// Takes the bytes of a hash.
    pub fn new(algorithm: HashAlgorithm, bytes: &[u8]) -> Result<Self, HashError> {
        let bad = |_| HashError::Length { algorithm, len: bytes.len() };
        match algorithm {
            HashAlgorithm::Md5 => bytes.try_into().map(NixHash::Md5).map_err(bad),
            HashAlgorithm::Sha1 => bytes.try_into().map(NixHash::Sha1).map_err(bad),
            HashAlgorithm::Sha256 => bytes.try_into().map(NixHash::Sha256).map_err(bad),
            HashAlgorithm::Sha512 => bytes.try_into().map(NixHash::Sha512).map_err(bad),
        }
    }

    /// Reads `<algorithm>-<base64>`, the form of an SRI hash.
    pub fn from_sri(text: &str) -> Result<Self, HashError> {
        let (algorithm, hash) =
            text.split_once('-').ok_or_else(|| HashError::NoAlgorithm(text.to_owned()))?;
        let algorithm = algorithm.parse()?;
        Self::new(algorithm, &decode_base64(hash)?)
    }

    /// Reads `<algorithm>:<hash>`, where the length tells hexadecimal, base 32 and base64 apart.
    pub fn from_prefixed(text: &str) -> Result<Self, HashError> {
        let (algorithm, hash) =
            text.split_once(':').ok_or_else(|| HashError::NoAlgorithm(text.to_owned()))?;
        Self::from_unprefixed(algorithm.parse()?, hash)
    }

    /// Reads a hash that stands alone, in hexadecimal, base 32 or base64.
    pub fn from_unprefixed(algorithm: HashAlgorithm, text: &str) -> Result<Self, HashError> {
        let len = algorithm.digest_len();
        let bytes = if text.len() == 2 * len {
            HEXLOWER_PERMISSIVE
                .decode(text.as_bytes())
                .map_err(|_| HashError::Hex(text.to_owned()))?
        } else if text.len() == base32::encoded_len(len) {
            let mut bytes = vec![0; len];
            base32::decode_into(text.as_bytes(), &mut bytes)?;
            bytes
        } else if text.len() == BASE64.encode_len(len) {
            decode_base64(text)?
        } else {
            return Err(HashError::TextLength { algorithm, len: text.len() });
        };
        Self::new(algorithm, &bytes)
    }

    /// Which algorithm it is of.
    pub const fn algorithm(&self) -> HashAlgorithm {
        match self {
            NixHash::Md5(_) => HashAlgorithm::Md5,
            NixHash::Sha1(_) => HashAlgorithm::Sha1,
            NixHash::Sha256(_) => HashAlgorithm::Sha256,
            NixHash::Sha512(_) => HashAlgorithm::Sha512,
        }
    }

    /// The bytes, as many as the algorithm says.
    pub const fn as_bytes(&self) -> &[u8] {
        match self {
            NixHash::Md5(bytes) => bytes,
            NixHash::Sha1(bytes) => bytes,
            NixHash::Sha256(bytes) => bytes,
            NixHash::Sha512(bytes) => bytes,
        }
    }

    /// The bytes in hexadecimal, without the algorithm.
    pub fn to_hex(&self) -> String {
        HEXLOWER.encode(self.as_bytes())
    }

    /// `<algorithm>-<base64>`.
    pub fn to_sri(&self) -> String {
        format!("{}-{}", self.algorithm(), BASE64.encode(self.as_bytes()))
    }
}

fn decode_base64(text: &str) -> Result<Vec<u8>, HashError> {
    BASE64.decode(text.as_bytes()).map_err(|_| HashError::Base64(text.to_owned()))
}

impl fmt::Display for NixHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.algorithm(), base32::encode(self.as_bytes()))
    }
}

impl fmt::Debug for NixHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl FromStr for NixHash {
    type Err = HashError;

    /// Accepts what [`NixHash::from_prefixed`] and [`NixHash::from_sri`] accept.
    fn from_str(text: &str) -> Result<Self, HashError> {
        if text.contains(':') { Self::from_prefixed(text) } else { Self::from_sri(text) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const BASE64: &str = "WJG1tSLV3whtD/CxEPvZ0hu0/HFjrzTQgoai6Eb2vgM=";
    const BASE32: &str = "00xyyr3fi8l6hb839bv3f7yb86yjv7xi1cgh1xnhipym4asvb4aq";
    const HEX: &str = "5891b5b522d5df086d0ff0b110fbd9d21bb4fc7163af34d08286a2e846f6be03";

    #[test]
    fn every_spelling_of_a_hash_is_the_same_hash() {
        let hash: NixHash = format!("sha256:{BASE32}").parse().expect("legal");
        for text in [
            format!("sha256:{HEX}"),
            format!("sha256:{}", HEX.to_uppercase()),
            format!("sha256:{BASE64}"),
            format!("sha256-{BASE64}"),
        ] {
            assert_eq!(text.parse(), Ok(hash), "{text}");
        }
        assert_eq!(hash.to_string(), format!("sha256:{BASE32}"));
        assert_eq!(hash.to_sri(), format!("sha256-{BASE64}"));
        assert_eq!(hash.to_hex(), HEX);
    }

    #[test]
    fn every_algorithm_has_its_length() {
        use HashAlgorithm::*;
        for algorithm in [Md5, Sha1, Sha256, Sha512] {
            assert_eq!(algorithm.name().parse(), Ok(algorithm));
            let bytes = vec![7; algorithm.digest_len()];
            let hash = NixHash::new(algorithm, &bytes).expect("the right length");
            assert_eq!((hash.algorithm(), hash.as_bytes()), (algorithm, &bytes[..]));
            assert_eq!(hash.to_string().parse(), Ok(hash));
            assert_eq!(hash.to_sri().parse(), Ok(hash));
            assert_eq!(format!("{algorithm}:{}", hash.to_hex()).parse(), Ok(hash));
            for len in [algorithm.digest_len() - 1, algorithm.digest_len() + 1] {
                assert_eq!(
                    NixHash::new(algorithm, &vec![7; len]),
                    Err(HashError::Length { algorithm, len })
                );
            }
        }
    }

    #[test]
    fn each_other_text_has_its_error() {
        let parse = |text: &str| text.parse::<NixHash>();
        let own = str::to_owned;
        assert_eq!(parse(BASE32), Err(HashError::NoAlgorithm(own(BASE32))));
        assert_eq!(parse("blake3-AAAA"), Err(HashError::UnknownAlgorithm(own("blake3"))));
        assert_eq!(parse("SHA256:00"), Err(HashError::UnknownAlgorithm(own("SHA256"))));
        let algorithm = HashAlgorithm::Sha256;
        assert_eq!(parse("sha256:00"), Err(HashError::TextLength { algorithm, len: 2 }));
        assert_eq!(parse("sha256-AAAA"), Err(HashError::Length { algorithm, len: 3 }));
        let text = "g".repeat(64);
        assert_eq!(parse(&format!("sha256:{text}")), Err(HashError::Hex(text)));
        let text = "e".repeat(52);
        assert_eq!(
            parse(&format!("sha256:{text}")),
            Err(HashError::Base32(Base32Error::Digit { byte: b'e', at: 51 }))
        );
        // The last character has bits that belong to no byte; the padding is missing.
        for text in [BASE64.replace("gM=", "gN="), BASE64.replace('=', "")] {
            assert_eq!(parse(&format!("sha256-{text}")), Err(HashError::Base64(text)));
        }
        let text = BASE64.replace("gM=", "gN=");
        assert_eq!(parse(&format!("sha256:{text}")), Err(HashError::Base64(text)));
    }
}
