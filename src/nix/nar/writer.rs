//! Writes an archive node by node.

use std::io::{self, Write};

use super::wire::{
    CLOSE, CONTENTS, DIRECTORY, ENTRY, EXECUTABLE, MAGIC, NAME, NODE, OPEN, REGULAR, SYMLINK,
    TARGET, TYPE, padding,
};
use crate::castore::{NameError, check_name};

/// Writes an archive to `W`, in pieces, without holding any of it.
///
/// The root is one node. A directory is begun, then each entry is named and its node written, then the directory is
/// ended. A file is begun with its length, its contents follow in pieces, then it is ended.
#[derive(Debug)]
pub struct NarWriter<W> {
    out: W,
    state: State,
    /// The open directories: the name of the last entry of each.
    open: Vec<Option<Vec<u8>>>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    /// A node has to come: the root, or that of an entry that was named.
    Node,
    /// So many bytes of a file of `len` bytes are still to come.
    File { left: u64, len: u64 },
    /// An entry of the innermost directory, or its end.
    Entry,
    /// The root is complete.
    Done,
}

/// Why an archive cannot be written.
#[derive(Debug, thiserror::Error)]
pub enum NarWriteError {
    /// The destination failed.
    #[error("cannot write the archive: {0}")]
    Io(#[from] io::Error),
    /// A name is not legal.
    #[error(transparent)]
    Name(#[from] NameError),
    /// The names of a directory do not come in strictly increasing order.
    #[error("the entry \"{0}\" is out of order")]
    Unsorted(String),
    /// A file has more or less contents than was announced.
    #[error("a file was announced with {announced} bytes, and has {difference} {more_or_fewer}")]
    Size {
        /// The length that was announced, in bytes.
        announced: u64,
        /// By how much it is off, in bytes.
        difference: u64,
        /// In which direction.
        more_or_fewer: &'static str,
    },
    /// What was called cannot come here.
    #[error("{0} cannot come here in an archive")]
    Order(&'static str),
}

type Result<T> = std::result::Result<T, NarWriteError>;

impl<W: Write> NarWriter<W> {
    /// Begins an archive.
    pub fn new(mut out: W) -> Result<Self> {
        word(&mut out, MAGIC)?;
        Ok(NarWriter { out, state: State::Node, open: Vec::new() })
    }

    /// What is written to.
    pub fn get_mut(&mut self) -> &mut W {
        &mut self.out
    }

    fn words(&mut self, words: &[&[u8]]) -> Result<()> {
        for bytes in words {
            word(&mut self.out, bytes)?;
        }
        Ok(())
    }

    fn expect(&self, state: State, what: &'static str) -> Result<()> {
        if self.state == state { Ok(()) } else { Err(NarWriteError::Order(what)) }
    }

    /// A node is complete: with it the entry that holds it, or the archive.
    fn close_node(&mut self) -> Result<()> {
        self.words(&[CLOSE])?;
        self.state = match self.open.is_empty() {
            true => State::Done,
            false => {
                self.words(&[CLOSE])?;
                State::Entry
            }
        };
        Ok(())
    }

    /// A symbolic link.
    pub fn symlink(&mut self, target: &[u8]) -> Result<()> {
        self.expect(State::Node, "a symlink")?;
        self.words(&[OPEN, TYPE, SYMLINK, TARGET, target])?;
        self.close_node()
    }

    /// Begins a regular file of `len` bytes.
    pub fn begin_file(&mut self, executable: bool, len: u64) -> Result<()> {
        self.expect(State::Node, "a file")?;
        self.words(&[OPEN, TYPE, REGULAR])?;
        if executable {
            self.words(&[EXECUTABLE, b""])?;
        }
        self.words(&[CONTENTS])?;
        self.out.write_all(&len.to_le_bytes())?;
        self.state = State::File { left: len, len };
        Ok(())
    }

    /// The next piece of the file's contents.
    pub fn contents(&mut self, piece: &[u8]) -> Result<()> {
        self.contents_elsewhere(piece.len() as u64)?;
        Ok(self.out.write_all(piece)?)
    }

    /// The next `piece_len` bytes of the file's contents, which somebody else puts there: for whoever keeps what is
    /// between the files apart.
    pub fn contents_elsewhere(&mut self, piece_len: u64) -> Result<()> {
        let State::File { left, len } = self.state else {
            return Err(NarWriteError::Order("contents"));
        };
        let left = left.checked_sub(piece_len).ok_or_else(|| NarWriteError::Size {
            announced: len,
            difference: piece_len - left,
            more_or_fewer: "more",
        })?;
        self.state = State::File { left, len };
        Ok(())
    }

    /// Ends a file, all of whose contents have come.
    pub fn end_file(&mut self) -> Result<()> {
        match self.state {
            State::File { left: 0, len } => {
                self.out.write_all(&[0; 8][..padding(len)])?;
                self.close_node()
            }
            State::File { left, len } => Err(NarWriteError::Size {
                announced: len,
                difference: left,
                more_or_fewer: "fewer",
            }),
            State::Node | State::Entry | State::Done => Err(NarWriteError::Order("a file's end")),
        }
    }

    /// Begins a directory.
    pub fn begin_directory(&mut self) -> Result<()> {
        self.expect(State::Node, "a directory")?;
        self.words(&[OPEN, TYPE, DIRECTORY])?;
        self.open.push(None);
        self.state = State::Entry;
        Ok(())
    }

    /// Names the next entry of the directory. Its node has to follow.
    pub fn entry(&mut self, name: &[u8]) -> Result<()> {
        self.expect(State::Entry, "an entry")?;
        check_name(name)?;
        let last = self.open.last_mut().ok_or(NarWriteError::Order("an entry"))?;
        if last.as_deref().is_some_and(|last| last >= name) {
            return Err(NarWriteError::Unsorted(name.escape_ascii().to_string()));
        }
        *last = Some(name.to_vec());
        self.words(&[ENTRY, OPEN, NAME, name, NODE])?;
        self.state = State::Node;
        Ok(())
    }

    /// Ends the innermost directory.
    pub fn end_directory(&mut self) -> Result<()> {
        self.expect(State::Entry, "a directory's end")?;
        self.open.pop();
        self.close_node()
    }

    /// Ends the archive, which must be complete.
    pub fn finish(self) -> Result<W> {
        self.expect(State::Done, "the end")?;
        Ok(self.out)
    }
}

fn word(out: &mut impl Write, bytes: &[u8]) -> io::Result<()> {
    let len = bytes.len() as u64;
    // Most words are short: one write instead of three.
    let mut short = [0; 64];
    let padded = 8 + bytes.len() + padding(len);
    if padded <= short.len() {
        short[..8].copy_from_slice(&len.to_le_bytes());
        short[8..8 + bytes.len()].copy_from_slice(bytes);
        return out.write_all(&short[..padded]);
    }
    out.write_all(&len.to_le_bytes())?;
    out.write_all(bytes)?;
    out.write_all(&[0; 8][..padding(len)])
}

#[cfg(test)]
mod tests {
    use super::*;

    fn writer() -> NarWriter<Vec<u8>> {
        NarWriter::new(Vec::new()).expect("memory takes everything")
    }

    #[test]
    fn a_small_file_byte_for_byte() -> Result<()> {
        let mut nar = writer();
        nar.begin_file(true, 3)?;
        nar.contents(b"ab")?;
        nar.contents(b"c")?;
        nar.end_file()?;
        let words: [&[u8]; 9] = [
            b"nix-archive-1",
            b"(",
            b"type",
            b"regular",
            b"executable",
            b"",
            b"contents",
            b"abc",
            b")",
        ];
        let mut expected = Vec::new();
        for bytes in words {
            expected.extend_from_slice(&(bytes.len() as u64).to_le_bytes());
            expected.extend_from_slice(bytes);
            expected.resize(expected.len().next_multiple_of(8), 0);
        }
        assert_eq!(nar.finish()?, expected);
        Ok(())
    }

    #[test]
    fn names_must_increase() -> Result<()> {
        for (first, second) in [("b", "a"), ("a", "a"), ("aa", "a")] {
            let mut nar = writer();
            nar.begin_directory()?;
            nar.entry(first.as_bytes())?;
            nar.symlink(b"x")?;
            assert!(matches!(nar.entry(second.as_bytes()), Err(NarWriteError::Unsorted(_))));
        }
        let mut nar = writer();
        nar.begin_directory()?;
        assert!(matches!(nar.entry(b".."), Err(NarWriteError::Name(_))));
        Ok(())
    }

    #[test]
    fn a_file_has_the_length_it_was_announced_with() -> Result<()> {
        let mut nar = writer();
        nar.begin_file(false, 2)?;
        assert!(matches!(
            nar.contents(b"abc"),
            Err(NarWriteError::Size { announced: 2, difference: 1, more_or_fewer: "more" })
        ));
        nar.contents(b"a")?;
        assert!(matches!(
            nar.end_file(),
            Err(NarWriteError::Size { announced: 2, difference: 1, more_or_fewer: "fewer" })
        ));
        Ok(())
    }

    #[test]
    fn what_is_out_of_place_is_refused() -> Result<()> {
        let mut nar = writer();
        assert!(
            nar.entry(b"a").is_err() && nar.end_directory().is_err() && nar.end_file().is_err()
        );
        assert!(nar.contents(b"").is_err());
        nar.begin_directory()?;
        assert!(nar.symlink(b"x").is_err() && nar.begin_file(false, 0).is_err());
        nar.entry(b"a")?;
        assert!(nar.entry(b"b").is_err() && nar.end_directory().is_err());
        nar.symlink(b"x")?;
        nar.end_directory()?;
        assert!(nar.symlink(b"x").is_err());
        nar.finish().map(drop)
    }
}
