//! The bytes of an archive as strings: lengths checked before anything else, padding checked behind.

use std::{
    fmt,
    io::{self, Read},
    ops::Range,
};

use super::{problem::NarProblem, wire::padding};

/// How much is read at once, in bytes. More than any string that has to be held, and pieces that hash well.
const BUFFER_LEN: usize = 128 << 10;

/// The bytes that a length takes.
const LENGTH_LEN: usize = 8;

type Result<T> = std::result::Result<T, NarProblem>;

/// Reads strings from `R` through one buffer of fixed size.
pub(super) struct Source<R> {
    input: R,
    buffer: Box<[u8]>,
    /// What of the buffer is read and not yet taken.
    ready: Range<usize>,
    /// How many bytes were taken.
    offset: u64,
    /// How many bytes had been taken when the last string, piece or padding began.
    begun: u64,
    /// How many bytes may be taken.
    offset_max: u64,
}

impl<R: Read> Source<R> {
    pub(super) fn new(input: R, offset_max: u64) -> Self {
        let buffer = vec![0; BUFFER_LEN].into_boxed_slice();
        Source { input, buffer, ready: 0..0, offset: 0, begun: 0, offset_max }
    }

    /// How many bytes were taken.
    pub(super) fn offset(&self) -> u64 {
        self.offset
    }

    /// Where what was last asked for begins: where to look for what is wrong with it.
    pub(super) fn begun(&self) -> u64 {
        self.begun
    }

    /// Reads some more, to where there is room. Returns how much; nothing at the end.
    fn read_some(&mut self) -> Result<usize> {
        loop {
            match self.input.read(&mut self.buffer[self.ready.end..]) {
                Ok(len) => {
                    self.ready.end += len;
                    return Ok(len);
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error.into()),
            }
        }
    }

    /// Takes `len` bytes, at most [`BUFFER_LEN`].
    fn take(&mut self, len: usize) -> Result<&[u8]> {
        if self.ready.len() < len {
            self.buffer.copy_within(self.ready.clone(), 0);
            self.ready = 0..self.ready.len();
            while self.ready.len() < len {
                if self.read_some()? == 0 {
                    return Err(NarProblem::CutOff);
                }
            }
        }
        Ok(self.taken(len))
    }

    /// The first `len` bytes of what is ready, which are then taken.
    fn taken(&mut self, len: usize) -> &[u8] {
        let start = self.ready.start;
        self.ready.start += len;
        self.offset += len as u64;
        &self.buffer[start..start + len]
    }

    /// Takes the length of a string, which fits into the longest legal archive with its padding.
    pub(super) fn length(&mut self) -> Result<u64> {
        self.begun = self.offset;
        if self.offset_max - self.offset < LENGTH_LEN as u64 {
            return Err(NarProblem::TooLong(self.offset_max));
        }
        let bytes = self.take(LENGTH_LEN)?;
        let len = u64::from_le_bytes(bytes.try_into().expect("so many were taken"));
        let left = self.offset_max - self.offset;
        match len.checked_add(padding(len) as u64) {
            Some(padded) if padded <= left => Ok(len),
            Some(_) | None => Err(NarProblem::Length { len, left }),
        }
    }

    /// Takes a string of at most `len_max` bytes, or says how long it is instead.
    pub(super) fn string(&mut self, len_max: usize) -> Result<std::result::Result<&[u8], u64>> {
        let announced = self.length()?;
        let len = match usize::try_from(announced) {
            Ok(len) if len <= len_max => len,
            Ok(_) | Err(_) => return Ok(Err(announced)),
        };
        let string = self.take(len + padding(announced))?;
        let (string, zeros) = string.split_at(len);
        if zeros.iter().any(|byte| *byte != 0) {
            return Err(NarProblem::Padding);
        }
        Ok(Ok(string))
    }

    /// Takes a piece of a string of which `left` bytes are left: one at least, unless none is.
    pub(super) fn piece(&mut self, left: u64) -> Result<&[u8]> {
        self.begun = self.offset;
        if left > 0 && self.ready.is_empty() {
            self.ready = 0..0;
            if self.read_some()? == 0 {
                return Err(NarProblem::CutOff);
            }
        }
        let len = usize::try_from(left).map_or(self.ready.len(), |left| left.min(self.ready.len()));
        Ok(self.taken(len))
    }

    /// Takes what fills up a string of `len` bytes.
    pub(super) fn padding(&mut self, len: u64) -> Result<()> {
        self.begun = self.offset;
        match self.take(padding(len))?.iter().all(|byte| *byte == 0) {
            true => Ok(()),
            false => Err(NarProblem::Padding),
        }
    }

    /// Checks that nothing is left.
    pub(super) fn end(&mut self) -> Result<()> {
        self.begun = self.offset;
        if !self.ready.is_empty() {
            return Err(NarProblem::Trailing);
        }
        self.ready = 0..0;
        match self.read_some()? {
            0 => Ok(()),
            _ => Err(NarProblem::Trailing),
        }
    }
}

impl<R> fmt::Debug for Source<R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (offset, offset_max) = (self.offset, self.offset_max);
        write!(f, "Source {{ offset: {offset}, offset_max: {offset_max}, .. }}")
    }
}
