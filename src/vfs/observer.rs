//! Who is told what is read.

use super::Ino;

/// What was done with a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Access {
    /// It was opened.
    Open,
    /// A part of it was asked for.
    Read {
        /// How many bytes.
        len: u64,
        /// Whether they are not on this machine.
        fetched: bool,
    },
}

/// Is told of each access while it happens, so it must be quick.
pub trait Observer: Send + Sync {
    /// An inode was found under `name` in `parent`.
    fn placed(&self, parent: Ino, name: &[u8], ino: Ino);

    /// The thread `reader`, 0 if it is unknown, accesses a file.
    fn accessed(&self, ino: Ino, reader: u32, access: Access);
}
