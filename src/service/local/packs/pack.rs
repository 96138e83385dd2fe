//! One pack: what it looks like, how it is appended to and read.
//!
//! ```text
//! pack  := entry*
//! entry := "lzb1" length:u32le digest:32 contents:length
//! ```

use std::{fs::File, io, os::unix::fs::FileExt as _, sync::Arc};

use super::{super::writeback::Writeback, PACKED_LEN_MAX};
use crate::{
    castore::Digest,
    service::blob::{LocalBlob, LocalPlace, ReadOnce},
};

const MAGIC: [u8; 4] = *b"lzb1";
const HEADER_LEN: usize = 40;

/// What a blob takes of a pack, in bytes.
pub fn entry_len(contents: &[u8]) -> u64 {
    (HEADER_LEN + contents.len()) as u64
}

/// Where a packed blob lies.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Place {
    pub(super) pack: u32,
    /// Where its contents begin in the pack, in bytes.
    pub(super) start: u64,
    /// Its length in bytes.
    pub(super) len: u32,
}

/// A pack that is open for reading.
#[derive(Debug, Clone)]
pub(super) struct Readable {
    pub(super) file: Arc<File>,
    /// Up to where the database knew it when it was opened, in bytes.
    pub(super) known_len: u64,
    /// What was read of it for good.
    pub(super) passed: Arc<ReadOnce>,
}

/// A pack to which this process, which holds its lock, appends.
#[derive(Debug, Clone)]
pub(super) struct Pack {
    pub(super) number: u32,
    /// Open for writing, and locked.
    pub(super) file: Arc<File>,
    pub(super) len: u64,
    /// What is to be appended; empty between one write and the next.
    entries: Vec<u8>,
    writeback: Writeback,
}

impl Readable {
    /// The blob at `place`.
    pub(super) fn blob(&self, place: &Place) -> LocalBlob {
        let in_pack = LocalPlace::Part { start: place.start, passed: self.passed.clone() };
        LocalBlob { file: self.file.clone(), place: in_pack, size: place.len.into() }
    }

    /// The blob that comes behind the one at `place`, if there is one that the database knew.
    pub(super) fn behind(&self, place: &Place) -> Option<(Digest, Place)> {
        let at = place.start + u64::from(place.len);
        let start = at + HEADER_LEN as u64;
        if start > self.known_len {
            return None;
        }
        let mut header = [0; HEADER_LEN];
        self.file.read_exact_at(&mut header, at).ok()?;
        let (digest, len) = parse_header(&header)?;
        let whole = start + u64::from(len) <= self.known_len;
        whole.then_some((digest, Place { pack: place.pack, start, len }))
    }
}

/// The digest and the length that a header tells, if it is one.
fn parse_header(header: &[u8; HEADER_LEN]) -> Option<(Digest, u32)> {
    let (magic, rest) = header.split_at(MAGIC.len());
    let (len, digest) = rest.split_at(size_of::<u32>());
    let len = u32::from_le_bytes(len.try_into().ok()?);
    let is_one = magic == MAGIC && len as usize <= PACKED_LEN_MAX;
    is_one.then_some((Digest::try_from(digest).ok()?, len))
}

impl Pack {
    /// A pack that has `len` bytes, as far as is known.
    pub(super) fn new(number: u32, file: Arc<File>, len: u64) -> Self {
        Pack { number, file, len, entries: Vec::new(), writeback: Writeback::from(len) }
    }

    /// Adds a blob to what [`Pack::write`] will append. Returns where it will lie.
    pub(super) fn add(&mut self, digest: &Digest, contents: &[u8]) -> Place {
        let len = contents.len() as u32;
        self.entries.extend_from_slice(&MAGIC);
        self.entries.extend_from_slice(&len.to_le_bytes());
        self.entries.extend_from_slice(digest.as_bytes());
        let start = self.len + self.entries.len() as u64;
        self.entries.extend_from_slice(contents);
        Place { pack: self.number, start, len }
    }

    /// Appends what was added. If that fails, what comes next is written over it.
    pub(super) fn write(&mut self) -> io::Result<()> {
        let written = self.file.write_all_at(&self.entries, self.len);
        let len = self.entries.len() as u64;
        self.entries.clear();
        written?;
        self.len += len;
        self.writeback.advance(&self.file, self.len);
        Ok(())
    }

    /// The blobs from the pack's known end on that are what their headers say, up to the first that is not, of a file
    /// of `file_len` bytes. The pack then ends behind them.
    pub(super) fn whole_entries(&mut self, file_len: u64) -> io::Result<Vec<(Digest, Place)>> {
        let mut found = Vec::new();
        let mut contents = Vec::new();
        while file_len.saturating_sub(self.len) >= HEADER_LEN as u64 {
            let mut header = [0; HEADER_LEN];
            self.file.read_exact_at(&mut header, self.len)?;
            let start = self.len + HEADER_LEN as u64;
            let Some((digest, len)) = parse_header(&header) else { break };
            if u64::from(len) > file_len - start {
                break;
            }
            contents.resize(len as usize, 0);
            self.file.read_exact_at(&mut contents, start)?;
            if Digest::of(&contents) != digest {
                break;
            }
            found.push((digest, Place { pack: self.number, start, len }));
            self.len = start + u64::from(len);
        }
        Ok(found)
    }
}

/// What the pack of that number is called.
pub(super) fn file_name(number: u32) -> String {
    format!("{number:08}.pack")
}

/// The number of a pack with a name as we write it.
pub(super) fn parse_file_name(text: &str) -> Option<u32> {
    let number = text.strip_suffix(".pack")?.parse().ok()?;
    (file_name(number) == text).then_some(number)
}
