//! The narinfo: the text in which a binary cache tells what it knows of a store path and where the archive is.
//!
//! Lines of `<field>: <value>`, each ended by a line feed. What Nix keeps of the path is a [`NarInfo`]; the
//! [`NarInfoFile`] adds what only the cache knows. Unknown fields are read over, and not kept. All else is strict: a
//! text that two programs could read in two ways is refused, with its line and field.

mod error;
mod fields;

pub use error::{FieldError, NarInfoFileError};
pub use fields::Field;
use fields::{Fields, Value};

use std::fmt::{self, Write as _};

use super::{
    base32,
    compression::Compression,
    hash::NixHash,
    nar_url::NarUrl,
    path_info::{Details, NarHash, NarInfo, PathInfo, PathInfoError, derivation_stem},
    signature::{PublicKey, Signature},
    store_path::{STORE_PATH_NAME_LEN_MAX, StorePath, StorePathDigest},
};
use crate::castore::Node;

/// The longest text, in bytes: enough for 16,000 references with long names.
pub const NARINFO_LEN_MAX: usize = 4 << 20;

/// The most signatures. Each may have to be verified.
pub const NARINFO_SIGNATURES_MAX: usize = 256;

/// The longest name of a system, in bytes.
pub const SYSTEM_LEN_MAX: usize = 255;

/// What Nix writes where nobody knows the deriver.
const UNKNOWN_DERIVER: &str = "unknown-deriver";

/// How long a base name can be, in bytes.
const BASE_NAME_LEN_MAX: usize =
    base32::encoded_len(StorePathDigest::LEN) + 1 + STORE_PATH_NAME_LEN_MAX;

/// What a narinfo holds. Displayed as that text, in the order in which Nix writes the fields.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NarInfoFile {
    /// The store path.
    pub store_path: StorePath,
    /// What Nix keeps of it. Only a part of that is signed: see [`NarInfo::fingerprint`].
    pub info: NarInfo,
    /// Where the archive is.
    pub archive: ArchiveFile,
    /// The platform it was built for. Not signed, and not part of a [`PathInfo`].
    pub system: Option<System>,
}

/// The file in a cache that holds an archive. Nothing of it is signed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ArchiveFile {
    /// Where it is.
    pub url: NarUrl,
    /// How it is compressed.
    pub compression: Compression,
    /// The SHA-256 of the compressed file.
    pub sha256: Option<[u8; 32]>,
    /// The length of the compressed file, in bytes.
    pub size: Option<u64>,
}

/// The name of a platform, as in `x86_64-linux`: 1 to 255 visible ASCII characters.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct System(Box<str>);

impl NarInfoFile {
    /// Reads a narinfo.
    pub fn parse(text: &[u8]) -> Result<Self, NarInfoFileError> {
        let fields = Fields::split(text)?;
        Ok(NarInfoFile {
            store_path: fields
                .require(Field::StorePath)?
                .read(|path| StorePath::from_absolute(path.as_bytes()))?,
            archive: ArchiveFile {
                url: fields.require(Field::Url)?.read(str::parse)?,
                compression: match fields.get(Field::Compression) {
                    Some(value) => value.read(str::parse)?,
                    None => Compression::Bzip2,
                },
                sha256: fields.get(Field::FileHash).map(|value| value.read(sha256)).transpose()?,
                // Nix itself writes 0 where it does not know.
                size: match fields.get(Field::FileSize) {
                    Some(value) => Some(value.read(number)?).filter(|size| *size != 0),
                    None => None,
                },
            },
            info: NarInfo {
                nar: NarHash {
                    size: fields.require(Field::NarSize)?.read(nar_size)?,
                    sha256: fields.require(Field::NarHash)?.read(sha256)?,
                },
                references: match fields.get(Field::References) {
                    Some(value) => references(value)?,
                    None => Vec::new(),
                },
                signatures: fields
                    .signatures()
                    .iter()
                    .map(|value| value.read(str::parse::<Signature>))
                    .collect::<Result<_, _>>()?,
                deriver: match fields.get(Field::Deriver) {
                    Some(value) => value.read(deriver)?,
                    None => None,
                },
                ca: match fields.get(Field::Ca).filter(|value| !value.text.is_empty()) {
                    Some(value) => Some(value.read(str::parse)?),
                    None => None,
                },
            },
            system: match fields.get(Field::System).filter(|value| !value.text.is_empty()) {
                Some(value) => Some(value.read(System::new)?),
                None => None,
            },
        })
    }

    /// What a cache tells of a store path whose archive is at `archive`. `None` as long as the archive's hash is
    /// unknown.
    pub fn from_path_info(path_info: &PathInfo, archive: ArchiveFile) -> Option<Self> {
        Some(NarInfoFile {
            store_path: path_info.store_path.clone(),
            info: path_info.nar_info()?.clone(),
            archive,
            system: None,
        })
    }

    /// What is known of the store path, whose contents were found to be `node`. What only the cache knows is dropped.
    pub fn into_path_info(self, node: Node) -> PathInfo {
        PathInfo { store_path: self.store_path, node, details: Details::NarInfo(self.info) }
    }

    /// The signatures that one of `keys` made. They vouch for the path, its references, and the hash and size of its
    /// archive, and for nothing else.
    pub fn valid_signatures(&self, keys: &[PublicKey]) -> Vec<&Signature> {
        self.info.valid_signatures(&self.store_path, keys)
    }
}

impl System {
    /// Checks a name.
    pub fn new(name: &str) -> Result<Self, FieldError> {
        if name.is_empty() || name.len() > SYSTEM_LEN_MAX {
            return Err(FieldError::SystemLength(name.len()));
        }
        match name.chars().find(|c| !c.is_ascii_graphic()) {
            Some(character) => Err(FieldError::SystemCharacter(character)),
            None => Ok(System(name.into())),
        }
    }

    /// The name.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for System {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.0, f)
    }
}

impl fmt::Display for NarInfoFile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut line = |field: Field, value: &dyn fmt::Display| writeln!(f, "{field}: {value}");
        let (archive, info) = (&self.archive, &self.info);
        line(Field::StorePath, &self.store_path.absolute())?;
        line(Field::Url, &archive.url)?;
        line(Field::Compression, &archive.compression)?;
        if let Some(sha256) = archive.sha256 {
            line(Field::FileHash, &NixHash::Sha256(sha256))?;
        }
        if let Some(size) = archive.size {
            line(Field::FileSize, &size)?;
        }
        line(Field::NarHash, &NixHash::Sha256(info.nar.sha256))?;
        line(Field::NarSize, &info.nar.size)?;
        line(Field::References, &spaced(&info.references))?;
        if let Some(deriver) = &info.deriver {
            line(Field::Deriver, deriver)?;
        }
        if let Some(system) = &self.system {
            line(Field::System, &system.as_str())?;
        }
        for signature in &info.signatures {
            line(Field::Sig, signature)?;
        }
        info.ca.as_ref().map_or(Ok(()), |ca| line(Field::Ca, ca))
    }
}

/// The base names with a space between any two.
fn spaced(paths: &[StorePath]) -> String {
    let mut out = String::new();
    for path in paths {
        let space = if out.is_empty() { "" } else { " " };
        write!(out, "{space}{path}").expect("a string takes everything");
    }
    out
}

/// A SHA-256 in any spelling that Nix reads: with a colon in hexadecimal, base 32 or base64, or as SRI.
fn sha256(text: &str) -> Result<[u8; 32], FieldError> {
    let hash = match text.contains(':') {
        true => NixHash::from_prefixed(text)?,
        false => NixHash::from_sri(text)?,
    };
    match hash {
        NixHash::Sha256(sha256) => Ok(sha256),
        NixHash::Md5(_) | NixHash::Sha1(_) | NixHash::Sha512(_) => {
            Err(FieldError::Algorithm(hash.algorithm()))
        }
    }
}

/// Digits alone, without a sign and without zeros before them.
fn number(text: &str) -> Result<u64, FieldError> {
    let bad = || FieldError::Number(text.to_owned());
    let plain = text.bytes().all(|byte| byte.is_ascii_digit());
    if !plain || (text.len() > 1 && text.starts_with('0')) {
        return Err(bad());
    }
    text.parse().map_err(|_| bad())
}

fn nar_size(text: &str) -> Result<u64, FieldError> {
    match number(text)? {
        0 => Err(FieldError::NarSizeZero),
        size => Ok(size),
    }
}

fn deriver(base_name: &str) -> Result<Option<StorePath>, FieldError> {
    if base_name == UNKNOWN_DERIVER {
        return Ok(None);
    }
    let deriver = StorePath::from_base_name(base_name.as_bytes())?;
    match derivation_stem(&deriver) {
        Some(_) => Ok(Some(deriver)),
        None => Err(PathInfoError::Deriver(deriver).into()),
    }
}

fn references(value: Value<'_>) -> Result<Vec<StorePath>, NarInfoFileError> {
    let base_names = value.text.split(' ').filter(|base_name| !base_name.is_empty());
    base_names
        .map(|base_name| {
            // The whole line may be long, and an error should not be.
            value.check_len(base_name, BASE_NAME_LEN_MAX)?;
            Value { text: base_name, ..value }.read(str::parse)
        })
        .collect()
}

#[cfg(test)]
#[path = "narinfo_tests.rs"]
mod tests;
