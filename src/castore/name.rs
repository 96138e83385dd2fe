//! The name of a directory's entry.

use std::fmt;

use bytes::Bytes;

/// The longest name, in bytes.
pub const NAME_LEN_MAX: usize = 255;

/// A legal name: 1 to 255 bytes, no `/`, no NUL, neither `.` nor `..`. It need not be UTF-8.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Name(Bytes);

/// Why bytes are no legal name.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NameError {
    /// No bytes at all.
    #[error("a name must not be empty")]
    Empty,
    /// More than [`NAME_LEN_MAX`] bytes.
    #[error("a name has at most {NAME_LEN_MAX} bytes, not {0}")]
    TooLong(usize),
    /// `.` or `..`.
    #[error("{0:?} is not a name")]
    Dots(&'static str),
    /// A `/` or a NUL.
    #[error("the name \"{name}\" contains {byte:?}")]
    Byte {
        /// The name, escaped.
        name: String,
        /// The byte that is not allowed.
        byte: char,
    },
}

/// Checks that `name` is legal, without making one.
pub fn check_name(name: &[u8]) -> Result<(), NameError> {
    match name {
        [] => Err(NameError::Empty),
        b"." => Err(NameError::Dots(".")),
        b".." => Err(NameError::Dots("..")),
        _ if name.len() > NAME_LEN_MAX => Err(NameError::TooLong(name.len())),
        _ => match name.iter().find(|byte| matches!(byte, b'/' | 0)) {
            Some(&byte) => Err(NameError::Byte {
                name: name.escape_ascii().to_string(),
                byte: char::from(byte),
            }),
            None => Ok(()),
        },
    }
}

impl Name {
    /// The bytes of the name.
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }
}

impl AsRef<[u8]> for Name {
    fn as_ref(&self) -> &[u8] {
        &self.0
    }
}

impl TryFrom<Bytes> for Name {
    type Error = NameError;

    fn try_from(bytes: Bytes) -> Result<Self, NameError> {
        check_name(&bytes)?;
        Ok(Name(bytes))
    }
}

impl TryFrom<&[u8]> for Name {
    type Error = NameError;

    fn try_from(bytes: &[u8]) -> Result<Self, NameError> {
        check_name(bytes)?;
        Ok(Name(Bytes::copy_from_slice(bytes)))
    }
}

impl TryFrom<&str> for Name {
    type Error = NameError;

    fn try_from(text: &str) -> Result<Self, NameError> {
        Name::try_from(text.as_bytes())
    }
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0.escape_ascii())
    }
}

impl fmt::Debug for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "\"{self}\"")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn any_other_byte_is_legal() {
        for name in [&b"a"[..], b"...", b".a", b"\xff\xfe\n", &[b'x'; 255]] {
            assert_eq!(Name::try_from(name).map(|n| n.as_bytes().to_vec()), Ok(name.to_vec()));
        }
    }

    #[test]
    fn each_illegal_form_has_its_error() {
        assert_eq!(check_name(b""), Err(NameError::Empty));
        assert_eq!(check_name(b"."), Err(NameError::Dots(".")));
        assert_eq!(check_name(b".."), Err(NameError::Dots("..")));
        assert_eq!(check_name(&[b'x'; 256]), Err(NameError::TooLong(256)));
        let byte = |name: &str, byte| NameError::Byte { name: name.to_owned(), byte };
        assert_eq!(check_name(b"a/b"), Err(byte("a/b", '/')));
        assert_eq!(check_name(b"a\0"), Err(byte("a\\x00", '\0')));
    }
}
