//! The names in one directory.

use bytes::Bytes;
use rustix::{
    fd::OwnedFd,
    fs::{FileType, RawDir},
};

use super::{ImportError, place::Place};
use crate::castore::{DIRECTORY_LEN_MAX, DirectoryError};

/// The buffer for one call for names, in bytes.
const BUFFER_LEN: usize = 64 << 10;

/// The fewest bytes that a symlink takes in the message of a directory, besides its name.
const SYMLINK_LEN_MIN: usize = 7;

/// The fewest bytes that a file or directory takes in the message of a directory, besides its name.
const OTHER_LEN_MIN: usize = 38;

/// The entries of a directory in the order of names, one behind the other in memory: a directory may have a million.
#[derive(Debug)]
pub(super) struct Listing {
    names: Bytes,
    slots: Vec<Slot>,
    next: usize,
}

#[derive(Debug, Clone, Copy)]
struct Slot {
    at: u32,
    len: u16,
    kind: FileType,
}

impl Slot {
    fn name(self, names: &[u8]) -> &[u8] {
        &names[self.at as usize..][..usize::from(self.len)]
    }
}

impl Listing {
    /// Reads and sorts the names. More than a directory in a store can hold are refused before they are all read.
    pub(super) fn read(directory: &OwnedFd, place: &Place) -> Result<Self, ImportError> {
        let mut buffer = Vec::with_capacity(BUFFER_LEN);
        let mut entries = RawDir::new(directory, buffer.spare_capacity_mut());
        let mut names = Vec::new();
        let mut slots = Vec::new();
        let mut message_len_min = 0;
        while let Some(entry) = entries.next() {
            let entry = entry.map_err(|error| ImportError::Io {
                what: "list",
                path: place.path(),
                source: error.into(),
            })?;
            let name = entry.file_name().to_bytes();
            if matches!(name, b"." | b"..") {
                continue;
            }
            let kind = entry.file_type();
            message_len_min += name.len()
                + match kind {
                    FileType::Symlink | FileType::Unknown => SYMLINK_LEN_MIN,
                    _ => OTHER_LEN_MIN,
                };
            if message_len_min > DIRECTORY_LEN_MAX {
                let source = DirectoryError::TooLong(message_len_min);
                return Err(ImportError::Directory { path: place.path(), source });
            }
            // The names together are shorter than DIRECTORY_LEN_MAX, one name than the buffer for all.
            slots.push(Slot { at: names.len() as u32, len: name.len() as u16, kind });
            names.extend_from_slice(name);
        }
        slots.sort_unstable_by(|a, b| a.name(&names).cmp(b.name(&names)));
        Ok(Listing { names: names.into(), slots, next: 0 })
    }
}

impl Iterator for Listing {
    /// A name, and what it seems to stand for.
    type Item = (Bytes, FileType);

    fn next(&mut self) -> Option<Self::Item> {
        let slot = *self.slots.get(self.next)?;
        self.next += 1;
        let at = slot.at as usize;
        Some((self.names.slice(at..at + usize::from(slot.len)), slot.kind))
    }
}
