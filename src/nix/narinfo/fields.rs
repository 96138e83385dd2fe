//! The lines of a narinfo, before their values are read.

use std::fmt;

use super::{
    super::nar_url::NAR_URL_LEN_MAX, FieldError, NARINFO_LEN_MAX, NARINFO_SIGNATURES_MAX,
    NarInfoFileError,
};

/// The longest value of a field that is neither a list nor a URL, in bytes. Errors repeat some of them.
const VALUE_LEN_MAX: usize = 1024;

/// A field of a narinfo. Displayed as it is written there.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Field {
    /// The absolute store path.
    StorePath,
    /// Where the archive is.
    Url,
    /// How the archive is compressed.
    Compression,
    /// The hash of the compressed archive.
    FileHash,
    /// The length of the compressed archive.
    FileSize,
    /// The hash of the archive.
    NarHash,
    /// The length of the archive.
    NarSize,
    /// The base names that the contents mention.
    References,
    /// The base name of the derivation.
    Deriver,
    /// The platform.
    System,
    /// A signature: the only field that may stand more than once.
    Sig,
    /// The content address.
    Ca,
}

/// A value with where it stands.
#[derive(Debug, Clone, Copy)]
pub(super) struct Value<'a> {
    pub(super) line: usize,
    pub(super) field: Field,
    pub(super) text: &'a str,
}

/// The values of all known fields.
#[derive(Debug, Default)]
pub(super) struct Fields<'a> {
    single: [Option<Value<'a>>; Field::ALL.len()],
    signatures: Vec<Value<'a>>,
}

impl Field {
    pub(super) const ALL: [Field; 12] = [
        Field::StorePath,
        Field::Url,
        Field::Compression,
        Field::FileHash,
        Field::FileSize,
        Field::NarHash,
        Field::NarSize,
        Field::References,
        Field::Deriver,
        Field::System,
        Field::Sig,
        Field::Ca,
    ];

    /// How it is written.
    pub const fn name(self) -> &'static str {
        match self {
            Field::StorePath => "StorePath",
            Field::Url => "URL",
            Field::Compression => "Compression",
            Field::FileHash => "FileHash",
            Field::FileSize => "FileSize",
            Field::NarHash => "NarHash",
            Field::NarSize => "NarSize",
            Field::References => "References",
            Field::Deriver => "Deriver",
            Field::System => "System",
            Field::Sig => "Sig",
            Field::Ca => "CA",
        }
    }

    const fn len_max(self) -> usize {
        match self {
            Field::References => NARINFO_LEN_MAX,
            Field::Url => NAR_URL_LEN_MAX,
            Field::StorePath
            | Field::Compression
            | Field::FileHash
            | Field::FileSize
            | Field::NarHash
            | Field::NarSize
            | Field::Deriver
            | Field::System
            | Field::Sig
            | Field::Ca => VALUE_LEN_MAX,
        }
    }
}

impl fmt::Display for Field {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl<'a> Value<'a> {
    /// Reads the text; an error says where.
    pub(super) fn read<T, E: Into<FieldError>>(
        self,
        read: impl FnOnce(&'a str) -> Result<T, E>,
    ) -> Result<T, NarInfoFileError> {
        read(self.text).map_err(|source| self.error(source.into()))
    }

    /// Checks the length of a part of this value.
    pub(super) fn check_len(self, part: &str, max: usize) -> Result<(), NarInfoFileError> {
        match part.len() {
            len if len > max => Err(self.error(FieldError::TooLong { len, max })),
            _ => Ok(()),
        }
    }

    fn error(self, source: FieldError) -> NarInfoFileError {
        NarInfoFileError::Field { line: self.line, field: self.field, source }
    }
}

impl<'a> Fields<'a> {
    /// Finds the known fields in a narinfo.
    pub(super) fn split(text: &'a [u8]) -> Result<Self, NarInfoFileError> {
        if text.len() > NARINFO_LEN_MAX {
            return Err(NarInfoFileError::TooLong(text.len()));
        }
        let mut fields = Fields::default();
        for (at, line) in text.split_inclusive(|byte| *byte == b'\n').enumerate() {
            if let Some(value) = read_line(at + 1, line)? {
                fields.add(value)?;
            }
        }
        Ok(fields)
    }

    fn add(&mut self, value: Value<'a>) -> Result<(), NarInfoFileError> {
        value.check_len(value.text, value.field.len_max())?;
        if value.field == Field::Sig {
            if self.signatures.len() == NARINFO_SIGNATURES_MAX {
                return Err(value.error(FieldError::Signatures));
            }
            self.signatures.push(value);
            return Ok(());
        }
        match self.single[value.field as usize].replace(value) {
            Some(first) => Err(value.error(FieldError::Duplicate(first.line))),
            None => Ok(()),
        }
    }

    /// The value of a field that stands at most once.
    pub(super) fn get(&self, field: Field) -> Option<Value<'a>> {
        self.single[field as usize]
    }

    /// The value of a field that has to stand there.
    pub(super) fn require(&self, field: Field) -> Result<Value<'a>, NarInfoFileError> {
        self.get(field).ok_or(NarInfoFileError::Missing(field))
    }

    /// All signatures, in the order in which they stand there.
    pub(super) fn signatures(&self) -> &[Value<'a>] {
        &self.signatures
    }
}

/// The value of a line, which may end with a line feed. `None` if nobody knows its field.
fn read_line(line: usize, bytes: &[u8]) -> Result<Option<Value<'_>>, NarInfoFileError> {
    let bytes = bytes.strip_suffix(b"\n").ok_or(NarInfoFileError::CutOff(line))?;
    if bytes.ends_with(b"\r") {
        return Err(NarInfoFileError::CarriageReturn(line));
    }
    let text = str::from_utf8(bytes)
        .map_err(|error| NarInfoFileError::NotUtf8 { line, at: error.valid_up_to() })?;
    if let Some(character) = text.chars().find(|c| c.is_control()) {
        return Err(NarInfoFileError::Control { line, character });
    }
    let (name, text) = text
        .split_once(": ")
        .filter(|(name, _)| !name.is_empty() && !name.contains([':', ' ']))
        .ok_or(NarInfoFileError::NoField(line))?;
    let field = Field::ALL.into_iter().find(|field| field.name() == name);
    Ok(field.map(|field| Value { line, field, text }))
}
