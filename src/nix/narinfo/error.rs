//! What can be wrong with a narinfo.

use super::{
    super::{
        ca::CaError,
        compression::CompressionError,
        hash::{HashAlgorithm, HashError},
        nar_url::NarUrlError,
        path_info::PathInfoError,
        signature::SignatureError,
        store_path::StorePathError,
    },
    Field, NARINFO_LEN_MAX, NARINFO_SIGNATURES_MAX, SYSTEM_LEN_MAX,
};

/// Why bytes are no narinfo. Lines are counted from 1.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NarInfoFileError {
    /// More than [`NARINFO_LEN_MAX`] bytes.
    #[error("a narinfo has at most {NARINFO_LEN_MAX} bytes, not {0}")]
    TooLong(usize),
    /// No line feed ends the last line: the rest of the text may be missing.
    #[error("line {0} of the narinfo does not end: the text is cut off")]
    CutOff(usize),
    /// A line that ends as on DOS.
    #[error("line {0} of the narinfo ends with CR LF, not with LF alone")]
    CarriageReturn(usize),
    /// A line that is not UTF-8.
    #[error("line {line} of the narinfo is not UTF-8 from its byte {at} on")]
    NotUtf8 {
        /// The line.
        line: usize,
        /// How many bytes of the line are UTF-8.
        at: usize,
    },
    /// A control character in a line.
    #[error("line {line} of the narinfo contains {character:?}")]
    Control {
        /// The line.
        line: usize,
        /// The character.
        character: char,
    },
    /// A line without a colon and a space behind its field.
    #[error("line {0} of the narinfo is no <field>: <value>")]
    NoField(usize),
    /// A field that Nix needs is not there.
    #[error("the narinfo has no {0}")]
    Missing(Field),
    /// The value of a field is wrong.
    #[error("line {line} of the narinfo, {field}: {source}")]
    Field {
        /// The line.
        line: usize,
        /// The field.
        field: Field,
        /// What is wrong.
        source: FieldError,
    },
}

/// Why text is not the value of a field.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum FieldError {
    /// A field that stands once stands again.
    #[error("it was already on line {0}")]
    Duplicate(usize),
    /// A value, or a reference, that is longer than any that is legal.
    #[error("{len} bytes, where at most {max} are legal")]
    TooLong {
        /// The length found, in bytes.
        len: usize,
        /// The longest legal one, in bytes.
        max: usize,
    },
    /// More than [`NARINFO_SIGNATURES_MAX`] signatures.
    #[error("more than {NARINFO_SIGNATURES_MAX} signatures")]
    Signatures,
    /// No store path.
    #[error(transparent)]
    StorePath(#[from] StorePathError),
    /// No URL of an archive.
    #[error(transparent)]
    Url(#[from] NarUrlError),
    /// No compression.
    #[error(transparent)]
    Compression(#[from] CompressionError),
    /// No hash.
    #[error(transparent)]
    Hash(#[from] HashError),
    /// A hash, but not a SHA-256.
    #[error("expected a hash of sha256, not of {0}")]
    Algorithm(HashAlgorithm),
    /// No number, or one of more than 64 bits.
    #[error("{0:?} is no number of bytes")]
    Number(String),
    /// No archive is empty.
    #[error("an archive cannot have 0 bytes")]
    NarSizeZero,
    /// A deriver that is no derivation.
    #[error(transparent)]
    Deriver(#[from] PathInfoError),
    /// No signature.
    #[error(transparent)]
    Signature(#[from] SignatureError),
    /// No content address.
    #[error(transparent)]
    Ca(#[from] CaError),
    /// The name of a system is empty or too long.
    #[error("the name of a system has 1 to {SYSTEM_LEN_MAX} bytes, not {0}")]
    SystemLength(usize),
    /// The name of a system contains something else than visible ASCII.
    #[error("the name of a system contains {0:?}")]
    SystemCharacter(char),
}
