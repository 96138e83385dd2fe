//! Store paths.

use std::{cmp::Ordering, fmt, str::FromStr};

use super::base32::{self, Base32Error};

/// The directory that all store paths are in.
pub const STORE_DIR: &str = "/nix/store";

/// The longest name of a store path, in bytes.
pub const STORE_PATH_NAME_LEN_MAX: usize = 211;

/// How many characters the digest takes at the start of a base name.
const DIGEST_TEXT_LEN: usize = base32::encoded_len(StorePathDigest::LEN);

/// What tells a store path from all others: 20 bytes, displayed as 32 digits of base 32.
///
/// Ordered as the text is.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct StorePathDigest([u8; 20]);

/// Bytes that are no [`StorePathDigest`], because they are not 20.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the digest of a store path is {} bytes, not {len}", StorePathDigest::LEN)]
pub struct StorePathDigestError {
    /// The length found, in bytes.
    pub len: usize,
}

/// A path in the store. Displayed as its base name, `<digest>-<name>`, and ordered by it.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct StorePath {
    digest: StorePathDigest,
    name: Box<str>,
}

/// Why bytes are no name of a store path.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum StorePathNameError {
    /// No bytes at all.
    #[error("the name of a store path must not be empty")]
    Empty,
    /// More than [`STORE_PATH_NAME_LEN_MAX`] bytes.
    #[error("the name of a store path has at most {STORE_PATH_NAME_LEN_MAX} bytes, not {0}")]
    TooLong(usize),
    /// `.` or `..`, or one of these with a dash behind it: Nix keeps them for itself.
    #[error("{0:?} must not begin the name of a store path")]
    Dots(&'static str),
    /// A byte that is neither a letter nor a digit nor one of `+-._?=`.
    #[error("the name \"{name}\" of a store path contains \"{}\"", .byte.escape_ascii())]
    Byte {
        /// The name, escaped.
        name: String,
        /// The byte.
        byte: u8,
    },
}

/// Why bytes are no store path.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum StorePathError {
    /// An absolute path that leads elsewhere.
    #[error("\"{0}\" is not in {STORE_DIR}")]
    NotInStore(String),
    /// Something inside of a store path, where the store path itself is wanted.
    #[error("\"{0}\" is inside of a store path")]
    Inner(String),
    /// Too short to hold a digest and the dash behind it.
    #[error("\"{0}\" is too short for a store path")]
    TooShort(String),
    /// The first 32 characters are no digest.
    #[error("\"{base_name}\" does not begin with the digest of a store path: {source}")]
    Digest {
        /// The base name, escaped.
        base_name: String,
        /// What is wrong.
        source: Base32Error,
    },
    /// Something else than a dash behind the digest.
    #[error("\"{0}\" has no dash between digest and name")]
    NoDash(String),
    /// The name is illegal.
    #[error(transparent)]
    Name(#[from] StorePathNameError),
}

impl StorePathDigest {
    /// The length in bytes.
    pub const LEN: usize = 20;

    /// The 20 bytes.
    pub fn as_bytes(&self) -> &[u8; 20] {
        &self.0
    }
}

impl From<[u8; 20]> for StorePathDigest {
    fn from(bytes: [u8; 20]) -> Self {
        StorePathDigest(bytes)
    }
}

impl TryFrom<&[u8]> for StorePathDigest {
    type Error = StorePathDigestError;

    fn try_from(bytes: &[u8]) -> Result<Self, StorePathDigestError> {
        bytes.try_into().map(StorePathDigest).map_err(|_| StorePathDigestError { len: bytes.len() })
    }
}

impl FromStr for StorePathDigest {
    type Err = Base32Error;

    fn from_str(text: &str) -> Result<Self, Base32Error> {
        base32::decode(text.as_bytes()).map(StorePathDigest)
    }
}

impl Ord for StorePathDigest {
    /// The text begins with the bits of the last byte.
    fn cmp(&self, other: &Self) -> Ordering {
        self.0.iter().rev().cmp(other.0.iter().rev())
    }
}

impl PartialOrd for StorePathDigest {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl fmt::Display for StorePathDigest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&base32::encode(&self.0))
    }
}

impl fmt::Debug for StorePathDigest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// Checks that `name` may be the name of a store path, and returns it as the ASCII that it is.
pub fn check_store_path_name(name: &[u8]) -> Result<&str, StorePathNameError> {
    let illegal =
        |byte: u8| StorePathNameError::Byte { name: name.escape_ascii().to_string(), byte };
    match name {
        [] => return Err(StorePathNameError::Empty),
        _ if name.len() > STORE_PATH_NAME_LEN_MAX => {
            return Err(StorePathNameError::TooLong(name.len()));
        }
        b"." => return Err(StorePathNameError::Dots(".")),
        b".." => return Err(StorePathNameError::Dots("..")),
        _ if name.starts_with(b".-") => return Err(StorePathNameError::Dots(".-")),
        _ if name.starts_with(b"..-") => return Err(StorePathNameError::Dots("..-")),
        _ => {}
    }
    let legal = |byte: &u8| byte.is_ascii_alphanumeric() || b"+-._?=".contains(byte);
    match name.iter().find(|byte| !legal(byte)) {
        Some(&byte) => Err(illegal(byte)),
        None => Ok(str::from_utf8(name).expect("every byte was seen to be ASCII")),
    }
}

impl StorePath {
    /// Puts a store path together.
    pub fn new(digest: StorePathDigest, name: &str) -> Result<Self, StorePathNameError> {
        let name = check_store_path_name(name.as_bytes())?.into();
        Ok(StorePath { digest, name })
    }

    /// Reads `<digest>-<name>`.
    pub fn from_base_name(base_name: &[u8]) -> Result<Self, StorePathError> {
        let escaped = || base_name.escape_ascii().to_string();
        let Some((digest, [dash, name @ ..])) = base_name.split_at_checked(DIGEST_TEXT_LEN) else {
            return Err(StorePathError::TooShort(escaped()));
        };
        let digest = base32::decode(digest)
            .map_err(|source| StorePathError::Digest { base_name: escaped(), source })?;
        if *dash != b'-' {
            return Err(StorePathError::NoDash(escaped()));
        }
        let name = check_store_path_name(name)?.into();
        Ok(StorePath { digest: StorePathDigest(digest), name })
    }

    /// Reads `/nix/store/<digest>-<name>`.
    pub fn from_absolute(path: &[u8]) -> Result<Self, StorePathError> {
        match Self::split_absolute(path)? {
            (store_path, None) => Ok(store_path),
            (_, Some(_)) => Err(StorePathError::Inner(path.escape_ascii().to_string())),
        }
    }

    /// Reads `/nix/store/<digest>-<name>`, or a path that leads on from there: whatever is behind the slash is
    /// returned as it is. It may be empty, and is not checked.
    pub fn split_absolute(path: &[u8]) -> Result<(Self, Option<&[u8]>), StorePathError> {
        let rest = path
            .strip_prefix(STORE_DIR.as_bytes())
            .and_then(|rest| rest.strip_prefix(b"/"))
            .ok_or_else(|| StorePathError::NotInStore(path.escape_ascii().to_string()))?;
        match rest.iter().position(|&byte| byte == b'/') {
            Some(slash) => Ok((Self::from_base_name(&rest[..slash])?, Some(&rest[slash + 1..]))),
            None => Ok((Self::from_base_name(rest)?, None)),
        }
    }

    /// The whole path, as `/nix/store/<digest>-<name>`.
    pub fn absolute(&self) -> String {
        format!("{STORE_DIR}/{self}")
    }

    /// The 20 bytes that tell it from all others.
    pub fn digest(&self) -> StorePathDigest {
        self.digest
    }

    /// What follows the first dash.
    pub fn name(&self) -> &str {
        &self.name
    }
}

impl FromStr for StorePath {
    type Err = StorePathError;

    /// Reads the base name; for absolute paths, see [`StorePath::from_absolute`].
    fn from_str(base_name: &str) -> Result<Self, StorePathError> {
        Self::from_base_name(base_name.as_bytes())
    }
}

impl fmt::Display for StorePath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}", self.digest, self.name)
    }
}

impl fmt::Debug for StorePath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

#[cfg(test)]
#[path = "store_path_tests.rs"]
mod tests;
