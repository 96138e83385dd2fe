//! What makes a store path content-addressed.

use std::{fmt, str::FromStr};

use super::{
    base32,
    hash::{HashAlgorithm, HashError, NixHash},
};

/// How the contents of a store path determine its digest. Displayed and read as in the `CA` field of a narinfo.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Ca {
    /// A file with references, by its SHA-256: `text:sha256:<hash>`. What `builtins.toFile` makes, and derivations.
    Text([u8; 32]),
    /// A file that is not executable, by the hash of its bytes: `fixed:<algorithm>:<hash>`.
    Flat(NixHash),
    /// Anything, by the hash of its archive: `fixed:r:<algorithm>:<hash>`.
    Nar(NixHash),
}

/// Why text is no content address.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CaError {
    /// Neither `text:` nor `fixed:`.
    #[error("{0:?} is no content address: expected text:… or fixed:…")]
    Kind(String),
    /// `text:` with another algorithm than SHA-256.
    #[error("a text is addressed by sha256, not by {0}")]
    TextAlgorithm(HashAlgorithm),
    /// What follows is no `<algorithm>:<hash>`.
    #[error("wrong hash in a content address: {0}")]
    Hash(#[from] HashError),
}

impl Ca {
    /// The hash, of whatever it is.
    pub const fn hash(&self) -> NixHash {
        match self {
            Ca::Text(sha256) => NixHash::Sha256(*sha256),
            Ca::Flat(hash) | Ca::Nar(hash) => *hash,
        }
    }
}

impl fmt::Display for Ca {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Ca::Text(sha256) => write!(f, "text:sha256:{}", base32::encode(sha256)),
            Ca::Flat(hash) => write!(f, "fixed:{hash}"),
            Ca::Nar(hash) => write!(f, "fixed:r:{hash}"),
        }
    }
}

impl FromStr for Ca {
    type Err = CaError;

    fn from_str(text: &str) -> Result<Self, CaError> {
        if let Some(hash) = text.strip_prefix("text:") {
            return match NixHash::from_prefixed(hash)? {
                NixHash::Sha256(sha256) => Ok(Ca::Text(sha256)),
                other => Err(CaError::TextAlgorithm(other.algorithm())),
            };
        }
        let Some(rest) = text.strip_prefix("fixed:") else {
            return Err(CaError::Kind(text.to_owned()));
        };
        match rest.strip_prefix("r:") {
            Some(hash) => Ok(Ca::Nar(NixHash::from_prefixed(hash)?)),
            None => Ok(Ca::Flat(NixHash::from_prefixed(rest)?)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_form_is_read_and_printed() {
        for (text, ca) in [
            (format!("text:sha256:{}", "0".repeat(52)), Ca::Text([0; 32])),
            (format!("fixed:md5:{}", "0".repeat(26)), Ca::Flat(NixHash::Md5([0; 16]))),
            (format!("fixed:sha1:{}", "0".repeat(32)), Ca::Flat(NixHash::Sha1([0; 20]))),
            (format!("fixed:sha256:{}", "0".repeat(52)), Ca::Flat(NixHash::Sha256([0; 32]))),
            (format!("fixed:sha512:{}", "0".repeat(103)), Ca::Flat(NixHash::Sha512([0; 64]))),
            (format!("fixed:r:sha256:{}", "0".repeat(52)), Ca::Nar(NixHash::Sha256([0; 32]))),
            (format!("fixed:r:sha1:{}", "0".repeat(32)), Ca::Nar(NixHash::Sha1([0; 20]))),
        ] {
            assert_eq!(text.parse(), Ok(ca));
            assert_eq!(ca.to_string(), text);
        }
    }

    #[test]
    fn each_other_form_has_its_error() {
        let parse = |text: &str| text.parse::<Ca>();
        assert_eq!(parse("source:x"), Err(CaError::Kind("source:x".to_owned())));
        let sha1 = "0".repeat(32);
        assert_eq!(
            parse(&format!("text:sha1:{sha1}")),
            Err(CaError::TextAlgorithm(HashAlgorithm::Sha1))
        );
        assert_eq!(
            parse(&format!("text:r:sha1:{sha1}")),
            Err(CaError::Hash(HashError::UnknownAlgorithm("r".to_owned())))
        );
        for prefix in ["text:", "fixed:", "fixed:r:"] {
            assert_eq!(
                parse(&format!("{prefix}sha256")),
                Err(CaError::Hash(HashError::NoAlgorithm("sha256".to_owned())))
            );
            let algorithm = HashAlgorithm::Sha256;
            assert_eq!(
                parse(&format!("{prefix}sha256:00")),
                Err(CaError::Hash(HashError::TextLength { algorithm, len: 2 }))
            );
        }
    }
}
