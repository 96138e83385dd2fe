//! The least of JSON that a listing needs, from a stream, with bounds.

use std::io::{self, BufRead};

use crate::castore::{NameError, SymlinkTargetError};

/// Why a listing cannot be read, with where that was found.
#[derive(Debug, thiserror::Error)]
#[error("byte {offset} of the listing: {problem}")]
pub struct ListingReadError {
    /// Where in the listing, in bytes.
    pub offset: u64,
    /// What is wrong.
    #[source]
    pub problem: ListingProblem,
}

/// What is wrong with a listing.
#[derive(Debug, thiserror::Error)]
pub enum ListingProblem {
    /// The source failed.
    #[error("cannot read on: {0}")]
    Io(io::Error),
    /// The bytes end before the listing does.
    #[error("the listing is cut off")]
    CutOff,
    /// The listing does not end where it should at the latest.
    #[error("the listing is longer than {0} bytes")]
    TooLong(u64),
    /// Something else than what can stand here.
    #[error("expected {expected}, found '{}'", found.escape_ascii())]
    Expected {
        /// What can stand here.
        expected: &'static str,
        /// What does.
        found: u8,
    },
    /// A text that is longer than any legal one.
    #[error("a text of more than {0} bytes")]
    TextLength(usize),
    /// A backslash before something that means nothing.
    #[error("a backslash that means nothing")]
    Escape,
    /// A number of more than 64 bits.
    #[error("a number of more than 64 bits")]
    Number,
    /// Another version of the format.
    #[error("version {0} of the format is unknown")]
    Version(u64),
    /// A field that is not known here, or that stands twice.
    #[error("the field \"{0}\" does not belong here, or stands twice")]
    Field(String),
    /// A field that must be there.
    #[error("there is no {0}")]
    Missing(&'static str),
    /// A type that is unknown, or has fields of another.
    #[error("a \"{0}\" has no such fields, or is no type")]
    Kind(String),
    /// An illegal name.
    #[error(transparent)]
    Name(#[from] NameError),
    /// An illegal symlink target.
    #[error(transparent)]
    Target(#[from] SymlinkTargetError),
    /// A name that does not come after the one before it.
    #[error("the entry \"{0}\" is out of order, or there twice")]
    Unsorted(String),
    /// More directories inside of each other than are allowed.
    #[error("more than {0} directories inside of each other")]
    Nesting(usize),
    /// Something was wrong before.
    #[error("reading goes on after an error")]
    AfterError,
}

type Result<T> = std::result::Result<T, ListingProblem>;

/// Takes tokens from a stream.
#[derive(Debug)]
pub(super) struct Tokens<R> {
    input: R,
    offset: u64,
    len_max: u64,
    /// Whether an object was opened last, so that no comma comes.
    is_first: bool,
}

impl<R: BufRead> Tokens<R> {
    pub(super) fn new(input: R, len_max: u64) -> Self {
        Tokens { input, offset: 0, len_max, is_first: false }
    }

    /// How much was read, in bytes.
    pub(super) fn offset(&self) -> u64 {
        self.offset
    }

    /// The next byte, which stays there.
    fn peek(&mut self) -> Result<Option<u8>> {
        loop {
            match self.input.fill_buf() {
                Ok(bytes) => return Ok(bytes.first().copied()),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error.into()),
            }
        }
    }

    fn next(&mut self) -> Result<u8> {
        let byte = self.peek()?.ok_or(ListingProblem::CutOff)?;
        if self.offset == self.len_max {
            return Err(ListingProblem::TooLong(self.len_max));
        }
        self.input.consume(1);
        self.offset += 1;
        Ok(byte)
    }

    /// The next byte that is no white space, which is taken.
    fn solid(&mut self) -> Result<u8> {
        loop {
            match self.next()? {
                b' ' | b'\n' | b'\r' | b'\t' => {}
                byte => return Ok(byte),
            }
        }
    }

    fn expect(&mut self, byte: u8, expected: &'static str) -> Result<()> {
        match self.solid()? {
            found if found == byte => Ok(()),
            found => Err(ListingProblem::Expected { expected, found }),
        }
    }

    /// The beginning of an object.
    pub(super) fn open_object(&mut self) -> Result<()> {
        self.expect(b'{', "'{'")?;
        self.is_first = true;
        Ok(())
    }

    /// The key of the next member of the innermost object, and its colon. `None` at its end.
    pub(super) fn key(&mut self, len_max: usize) -> Result<Option<Vec<u8>>> {
        let is_first = std::mem::replace(&mut self.is_first, false);
        match self.solid()? {
            b'}' => return Ok(None),
            b'"' if is_first => {}
            b',' if !is_first => self.expect(b'"', "'\"'")?,
            found => {
                let expected = if is_first { "'\"' or '}'" } else { "',' or '}'" };
                return Err(ListingProblem::Expected { expected, found });
            }
        }
        let key = self.rest_of_text(len_max)?;
        self.expect(b':', "':'")?;
        Ok(Some(key))
    }

    /// A text of at most so many bytes.
    pub(super) fn text(&mut self, len_max: usize) -> Result<Vec<u8>> {
        self.expect(b'"', "'\"'")?;
        self.rest_of_text(len_max)
    }

    fn rest_of_text(&mut self, len_max: usize) -> Result<Vec<u8>> {
        let mut text = Vec::new();
        loop {
            match self.next()? {
                b'"' => return Ok(text),
                b'\\' => self.escape(&mut text)?,
                found @ ..0x20 => {
                    let expected = "a backslash before a control character";
                    return Err(ListingProblem::Expected { expected, found });
                }
                byte => text.push(byte),
            }
            if text.len() > len_max {
                return Err(ListingProblem::TextLength(len_max));
            }
        }
    }

    fn escape(&mut self, text: &mut Vec<u8>) -> Result<()> {
        text.push(match self.next()? {
            byte @ (b'"' | b'\\' | b'/') => byte,
            b'b' => 0x08,
            b'f' => 0x0c,
            b'n' => b'\n',
            b'r' => b'\r',
            b't' => b'\t',
            b'u' => {
                let mut utf8 = [0; 4];
                text.extend_from_slice(self.character()?.encode_utf8(&mut utf8).as_bytes());
                return Ok(());
            }
            _ => return Err(ListingProblem::Escape),
        });
        Ok(())
    }

    /// What follows `\u`: one unit of UTF-16, or two.
    fn character(&mut self) -> Result<char> {
        let first = self.unit()?;
        let mut units = vec![first];
        if (0xd800..0xdc00).contains(&first) {
            if (self.next()?, self.next()?) != (b'\\', b'u') {
                return Err(ListingProblem::Escape);
            }
            units.push(self.unit()?);
        }
        match char::decode_utf16(units).next() {
            Some(Ok(character)) => Ok(character),
            Some(Err(_)) | None => Err(ListingProblem::Escape),
        }
    }

    fn unit(&mut self) -> Result<u16> {
        let mut unit = 0;
        for _ in 0..4 {
            let digit = char::from(self.next()?).to_digit(16).ok_or(ListingProblem::Escape)?;
            unit = unit << 4 | digit as u16;
        }
        Ok(unit)
    }

    /// A number without sign, fraction or exponent.
    pub(super) fn number(&mut self) -> Result<u64> {
        let digit = |byte: u8| byte.is_ascii_digit().then(|| u64::from(byte - b'0'));
        let first = self.solid()?;
        let expected = "a number of bytes";
        let mut number = digit(first).ok_or(ListingProblem::Expected { expected, found: first })?;
        while let Some(next) = self.peek()?.and_then(digit) {
            let longer = number.checked_mul(10).and_then(|number| number.checked_add(next));
            // JSON has no zeros in front.
            number = longer.filter(|_| number != 0).ok_or(ListingProblem::Number)?;
            self.next()?;
        }
        Ok(number)
    }

    /// `true` or `false`.
    pub(super) fn boolean(&mut self) -> Result<bool> {
        let (value, rest) = match self.solid()? {
            b't' => (true, &b"rue"[..]),
            b'f' => (false, &b"alse"[..]),
            found => return Err(ListingProblem::Expected { expected: "true or false", found }),
        };
        for expected in rest {
            let found = self.next()?;
            if found != *expected {
                return Err(ListingProblem::Expected { expected: "true or false", found });
            }
        }
        Ok(value)
    }

    /// The end of the input: only white space may be left.
    pub(super) fn end(&mut self) -> Result<()> {
        match self.solid() {
            Ok(found) => Err(ListingProblem::Expected { expected: "the end", found }),
            Err(ListingProblem::CutOff) => Ok(()),
            Err(error) => Err(error),
        }
    }
}
