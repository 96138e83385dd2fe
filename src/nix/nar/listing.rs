//! The listing of an archive, as binary caches keep it in `<hash>.ls`: what is in it and where, without contents.
//!
//! `{"version":1,"root":…}`, where a directory is `{"type":"directory","entries":{<name>:…}}`, a file
//! `{"type":"regular","size":N,"executable":true,"narOffset":N}` (`executable` only if it is), and a symlink
//! `{"type":"symlink","target":<text>}`. Names and targets that are not UTF-8 stand there as they are, so strictly
//! this is not always JSON.

use std::io::{self, Write};

use super::writer::{NarWriteError, NarWriter};

/// Writes a listing to `W` node by node, in the order of the archive. Checks that order, and finds out where in the
/// archive each file is.
#[derive(Debug)]
pub struct ListingWriter<W> {
    out: W,
    /// The archive itself, of which only the length is kept.
    nar: NarWriter<Length>,
    /// How many bytes of contents the archive has so far.
    contents_len: u64,
    /// Whether an entry came before, in each of the open directories.
    open: Vec<bool>,
}

/// Why a listing cannot be written.
#[derive(Debug, thiserror::Error)]
pub enum ListingWriteError {
    /// The destination failed.
    #[error("cannot write the listing: {0}")]
    Io(#[from] io::Error),
    /// No archive could be listed so.
    #[error(transparent)]
    Archive(#[from] NarWriteError),
}

/// How many bytes were written.
#[derive(Debug, Default)]
struct Length(u64);

impl Write for Length {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0 += bytes.len() as u64;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

type Result<T> = std::result::Result<T, ListingWriteError>;

impl<W: Write> ListingWriter<W> {
    /// Begins a listing.
    pub fn new(mut out: W) -> Result<Self> {
        out.write_all(br#"{"version":1,"root":"#)?;
        let nar = NarWriter::new(Length::default())?;
        Ok(ListingWriter { out, nar, contents_len: 0, open: Vec::new() })
    }

    /// What is written to.
    pub fn get_mut(&mut self) -> &mut W {
        &mut self.out
    }

    /// A symbolic link.
    pub fn symlink(&mut self, target: &[u8]) -> Result<()> {
        self.nar.symlink(target)?;
        self.out.write_all(br#"{"type":"symlink","target":"#)?;
        write_text(&mut self.out, target)?;
        Ok(self.out.write_all(b"}")?)
    }

    /// A regular file of `size` bytes. Returns where in the archive its contents begin.
    pub fn file(&mut self, executable: bool, size: u64) -> Result<u64> {
        self.nar.begin_file(executable, size)?;
        let offset = self.nar.get_mut().0.saturating_add(self.contents_len);
        self.nar.contents_elsewhere(size)?;
        self.contents_len = self.contents_len.saturating_add(size);
        self.nar.end_file()?;
        let executable = if executable { r#","executable":true"# } else { "" };
        write!(self.out, r#"{{"type":"regular","size":{size}{executable},"narOffset":{offset}}}"#)?;
        Ok(offset)
    }

    /// Begins a directory.
    pub fn begin_directory(&mut self) -> Result<()> {
        self.nar.begin_directory()?;
        self.open.push(false);
        Ok(self.out.write_all(br#"{"type":"directory","entries":{"#)?)
    }

    /// Names the next entry of the directory. Its node has to follow.
    pub fn entry(&mut self, name: &[u8]) -> Result<()> {
        self.nar.entry(name)?;
        if let Some(not_first) = self.open.last_mut()
            && std::mem::replace(not_first, true)
        {
            self.out.write_all(b",")?;
        }
        write_text(&mut self.out, name)?;
        Ok(self.out.write_all(b":")?)
    }

    /// Ends the innermost directory.
    pub fn end_directory(&mut self) -> Result<()> {
        self.nar.end_directory()?;
        self.open.pop();
        Ok(self.out.write_all(b"}}")?)
    }

    /// Ends the listing, which must be complete.
    pub fn finish(self) -> Result<W> {
        self.nar.finish()?;
        let mut out = self.out;
        out.write_all(b"}")?;
        Ok(out)
    }
}

/// A string as JSON has them, except that bytes which are not UTF-8 stay as they are.
fn write_text(out: &mut impl Write, text: &[u8]) -> io::Result<()> {
    out.write_all(b"\"")?;
    let mut rest = text;
    while let Some(at) = rest.iter().position(|byte| *byte < 0x20 || b"\"\\".contains(byte)) {
        out.write_all(&rest[..at])?;
        match rest[at] {
            byte @ (b'"' | b'\\') => out.write_all(&[b'\\', byte])?,
            b'\n' => out.write_all(b"\\n")?,
            b'\r' => out.write_all(b"\\r")?,
            b'\t' => out.write_all(b"\\t")?,
            byte => write!(out, "\\u{byte:04x}")?,
        }
        rest = &rest[at + 1..];
    }
    out.write_all(rest)?;
    out.write_all(b"\"")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn writer() -> ListingWriter<Vec<u8>> {
        ListingWriter::new(Vec::new()).expect("memory takes everything")
    }

    #[test]
    fn a_tree_byte_for_byte() -> Result<()> {
        let mut listing = writer();
        let mut nar = NarWriter::new(Vec::new())?;
        listing.begin_directory()?;
        nar.begin_directory()?;
        for (name, contents) in [("a", "abc"), ("b", "defgh")] {
            listing.entry(name.as_bytes())?;
            let offset = listing.file(name == "b", contents.len() as u64)?;
            nar.entry(name.as_bytes())?;
            nar.begin_file(name == "b", contents.len() as u64)?;
            assert_eq!(nar.get_mut().len() as u64, offset, "{name}");
            nar.contents(contents.as_bytes())?;
            nar.end_file()?;
        }
        listing.entry(b"c")?;
        listing.begin_directory()?;
        listing.end_directory()?;
        listing.entry(b"d\"\\\n\x01\xff")?;
        listing.symlink(b"/x\ty")?;
        listing.end_directory()?;
        let expected: &[&[u8]] = &[
            br#"{"version":1,"root":{"type":"directory","entries":{"#,
            br#""a":{"type":"regular","size":3,"narOffset":232},"#,
            br#""b":{"type":"regular","size":5,"executable":true,"narOffset":456},"#,
            br#""c":{"type":"directory","entries":{}},"#,
            b"\"d\\\"\\\\\\n\\u0001\xff\":",
            br#"{"type":"symlink","target":"/x\ty"}}}}"#,
        ];
        let found = listing.finish()?;
        assert_eq!(found.escape_ascii().to_string(), expected.concat().escape_ascii().to_string());
        Ok(())
    }

    #[test]
    fn only_what_an_archive_could_hold_is_listed() -> Result<()> {
        let mut listing = writer();
        assert!(listing.entry(b"a").is_err() && listing.end_directory().is_err());
        listing.begin_directory()?;
        assert!(listing.symlink(b"x").is_err() && listing.file(false, 1).is_err());
        listing.entry(b"b")?;
        listing.file(false, u64::MAX)?;
        assert!(listing.entry(b"a").is_err() && listing.entry(b"..").is_err());
        assert!(listing.finish().is_err());
        Ok(())
    }
}
