//! A page of a directory's listing.

use std::sync::Arc;

use super::wire::{self, Reply};
use crate::vfs::{Error, FileKind, Ino, NodeRef, Vfs};

/// One reply to READDIR or READDIRPLUS. Offsets are places in the listing: 0 is `.`, 1 is `..`, then the entries.
pub(super) struct Page {
    vfs: Arc<Vfs>,
    ino: Ino,
    plus: bool,
    /// The offset of what comes next.
    next: u64,
    /// How long the reply may become, in bytes.
    len: usize,
    pub(super) reply: Reply,
}

/// How many offsets come before the first entry.
const DOTS: u64 = 2;

impl Page {
    /// The page of the directory `ino` that begins at `offset` and takes at most `len` bytes, with attributes if `plus`.
    pub(super) fn new(vfs: Arc<Vfs>, ino: Ino, plus: bool, offset: u64, len: usize) -> Self {
        Page { vfs, ino, plus, next: offset, len, reply: Reply::empty() }
    }

    /// The place among the entries of what comes next.
    pub(super) fn index(&self) -> usize {
        usize::try_from(self.next.saturating_sub(DOTS)).unwrap_or(usize::MAX)
    }

    fn fits(&self, name: &[u8]) -> bool {
        let entry = if self.plus { wire::ENTRY_OUT_LEN } else { 0 };
        self.reply.len() + entry + wire::dirent_len(name) <= self.len
    }

    pub(super) fn dots(&mut self) -> Result<(), Error> {
        while self.next < DOTS {
            let (name, ino) = match self.next {
                0 => (&b"."[..], self.ino),
                _ => (&b".."[..], self.vfs.parent(self.ino)?),
            };
            if !self.fits(name) {
                break;
            }
            if self.plus {
                self.reply.no_entry_out();
            }
            self.reply.dirent(ino.raw(), self.next + 1, FileKind::Directory, name);
            self.next += 1;
        }
        Ok(())
    }

    /// Adds the next entry. `false` if there is no room for it: it is then not handed to the kernel either.
    pub(super) fn add(&mut self, name: &[u8], node: NodeRef<'_>) -> Result<bool, Error> {
        if self.next < DOTS || !self.fits(name) {
            return Ok(false);
        }
        let ino = match self.plus {
            true => {
                let attributes = self.vfs.remember(self.ino, name, node)?;
                self.reply.entry_out(&attributes);
                attributes.ino
            }
            false => self.vfs.number(self.ino, name, node),
        };
        self.reply.dirent(ino.raw(), self.next + 1, FileKind::from(node), name);
        self.next += 1;
        Ok(true)
    }
}
