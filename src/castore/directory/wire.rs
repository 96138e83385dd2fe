//! The canonical `Directory` message: the one spelling that is read, and written.

use bytes::{BufMut as _, BytesMut};

use super::{DirectoryError, Kind, Slot};
use crate::castore::{Name, Node, check_name, check_target};

// The wire format: a tag is `field << 3 | type`, where type 2 is a length and so many bytes, and type 0 a varint.
pub(super) const TAG_DIRECTORY: u8 = 0x0a;
pub(super) const TAG_FILE: u8 = 0x12;
pub(super) const TAG_SYMLINK: u8 = 0x1a;
pub(super) const TAG_NAME: u8 = 0x0a;
pub(super) const TAG_VALUE: u8 = 0x12;
pub(super) const TAG_SIZE: u8 = 0x18;
pub(super) const TAG_EXECUTABLE: u8 = 0x20;

/// Reads the one canonical spelling of a `Directory` message.
pub(super) struct Parser<'a> {
    pub(super) bytes: &'a [u8],
    pub(super) at: usize,
}

impl Parser<'_> {
    fn malformed<T>(&self, what: &'static str) -> Result<T, DirectoryError> {
        Err(DirectoryError::Malformed { what, at: self.at })
    }

    fn byte(&mut self) -> Result<u8, DirectoryError> {
        match self.bytes.get(self.at) {
            Some(&byte) => {
                self.at += 1;
                Ok(byte)
            }
            None => self.malformed("the message ends too early"),
        }
    }

    fn varint(&mut self) -> Result<u64, DirectoryError> {
        let mut value = 0u64;
        for shift in (0..64).step_by(7) {
            let byte = self.byte()?;
            let bits = u64::from(byte & 0x7f);
            if shift == 63 && bits > 1 {
                return self.malformed("a number of more than 64 bits");
            }
            value |= bits << shift;
            if byte & 0x80 == 0 {
                if byte == 0 && shift > 0 {
                    return self.malformed("a number with needless bytes");
                }
                return Ok(value);
            }
        }
        self.malformed("a number of more than 64 bits")
    }

    /// A length and so many bytes: where they start and how many they are.
    fn span(&mut self) -> Result<(usize, usize), DirectoryError> {
        let len = self.varint()?;
        let left = self.bytes.len() - self.at;
        match usize::try_from(len) {
            Ok(len) if len <= left => {
                let start = self.at;
                self.at += len;
                Ok((start, len))
            }
            _ => self.malformed("a length that leads past the end"),
        }
    }

    /// The span behind `tag`; an absent field is an empty one.
    fn field(&mut self, tag: u8, end: usize) -> Result<(usize, usize), DirectoryError> {
        if self.at < end && self.bytes[self.at] == tag {
            self.at += 1;
            let span = self.span()?;
            if span.1 == 0 {
                return self.malformed("a default value that is spelled out");
            }
            return Ok(span);
        }
        Ok((self.at, 0))
    }

    fn number(&mut self, tag: u8, end: usize) -> Result<u64, DirectoryError> {
        if self.at < end && self.bytes[self.at] == tag {
            self.at += 1;
            let value = self.varint()?;
            if value == 0 {
                return self.malformed("a default value that is spelled out");
            }
            return Ok(value);
        }
        Ok(0)
    }

    /// The next entry, and the tag of the list it stands in.
    pub(super) fn entry(&mut self) -> Result<(u8, Slot), DirectoryError> {
        let tag = self.byte()?;
        if !matches!(tag, TAG_DIRECTORY | TAG_FILE | TAG_SYMLINK) {
            self.at -= 1;
            return self.malformed("an unknown field");
        }
        let (start, len) = self.span()?;
        let end = start + len;
        self.at = start;

        let (name_at, name_len) = self.field(TAG_NAME, end)?;
        let name = &self.bytes[name_at..name_at + name_len];
        check_name(name)?;
        let escaped = || name.escape_ascii().to_string();
        let (value_at, value_len) = self.field(TAG_VALUE, end)?;
        let mut slot = Slot {
            size: 0,
            // The message is shorter than DIRECTORY_LEN_MAX, a name than 256, a target than 4096.
            name_at: name_at as u32,
            value_at: value_at as u32,
            target_len: 0,
            name_len: name_len as u8,
            kind: Kind::Symlink,
        };
        if tag == TAG_SYMLINK {
            check_target(&self.bytes[value_at..value_at + value_len])
                .map_err(|source| DirectoryError::Target { name: escaped(), source })?;
            slot.target_len = value_len as u16;
        } else {
            if value_len != 32 {
                return Err(DirectoryError::DigestLength { name: escaped(), len: value_len });
            }
            slot.size = self.number(TAG_SIZE, end)?;
            slot.kind = match tag {
                TAG_DIRECTORY => Kind::Directory,
                _ => match self.number(TAG_EXECUTABLE, end)? {
                    0 => Kind::File,
                    1 => Kind::Executable,
                    _ => return self.malformed("a truth value other than 0 and 1"),
                },
            };
        }
        if self.at != end {
            return self.malformed("an unknown field or a wrong length");
        }
        Ok((tag, slot))
    }
}

/// The tag of the list that a node stands in. Lists come in the order of their tags.
pub(super) fn list_tag(node: &Node) -> u8 {
    match node {
        Node::Directory { .. } => TAG_DIRECTORY,
        Node::File { .. } => TAG_FILE,
        Node::Symlink { .. } => TAG_SYMLINK,
    }
}

/// Appends an entry of a `Directory` message.
pub(super) fn encode_entry(out: &mut BytesMut, name: &Name, node: &Node) {
    let name = name.as_bytes();
    let (value, size, executable) = match node {
        Node::Directory { digest, size } => (&digest.as_bytes()[..], *size, false),
        Node::File { digest, size, executable } => (&digest.as_bytes()[..], *size, *executable),
        Node::Symlink { target } => (target.as_bytes(), 0, false),
    };
    let size_len = if size == 0 { 0 } else { 1 + varint_len(size) };
    let len = 1
        + varint_len(name.len() as u64)
        + name.len()
        + 1
        + varint_len(value.len() as u64)
        + value.len()
        + size_len
        + if executable { 2 } else { 0 };

    out.put_u8(list_tag(node));
    put_varint(out, len as u64);
    out.put_u8(TAG_NAME);
    put_varint(out, name.len() as u64);
    out.put_slice(name);
    out.put_u8(TAG_VALUE);
    put_varint(out, value.len() as u64);
    out.put_slice(value);
    if size != 0 {
        out.put_u8(TAG_SIZE);
        put_varint(out, size);
    }
    if executable {
        out.put_slice(&[TAG_EXECUTABLE, 1]);
    }
}

fn varint_len(value: u64) -> usize {
    (64 - (value | 1).leading_zeros() as usize).div_ceil(7)
}

fn put_varint(out: &mut BytesMut, mut value: u64) {
    while value >= 0x80 {
        out.put_u8(value as u8 | 0x80);
        value >>= 7;
    }
    out.put_u8(value as u8);
}
