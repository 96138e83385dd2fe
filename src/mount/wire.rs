//! FUSE messages, as `include/uapi/linux/fuse.h` of the Linux kernel lays them out, protocol 7.31 and later.
//!
//! Every message is a header and fixed-size fields in the machine's byte order, then names or data. Reading is
//! bounds-checked throughout: over virtiofs the other side is a guest.

use std::cell::Cell;

use crate::vfs::{Attributes, FileKind, Statfs};

/// The length of the header of a request, in bytes.
pub const IN_HEADER_LEN: usize = 40;
/// The length of the header of a reply, in bytes.
pub const OUT_HEADER_LEN: usize = 16;
/// The protocol's major version.
pub const MAJOR: u32 = 7;
/// The oldest minor version that is spoken.
pub const MINOR_MIN: u32 = 31;
/// The newest minor version that is known.
pub const MINOR: u32 = 40;

/// The kinds of requests.
#[allow(missing_docs)]
pub mod op {
    pub const LOOKUP: u32 = 1;
    pub const FORGET: u32 = 2;
    pub const GETATTR: u32 = 3;
    pub const SETATTR: u32 = 4;
    pub const READLINK: u32 = 5;
    pub const SYMLINK: u32 = 6;
    pub const MKNOD: u32 = 8;
    pub const MKDIR: u32 = 9;
    pub const UNLINK: u32 = 10;
    pub const RMDIR: u32 = 11;
    pub const RENAME: u32 = 12;
    pub const LINK: u32 = 13;
    pub const OPEN: u32 = 14;
    pub const READ: u32 = 15;
    pub const WRITE: u32 = 16;
    pub const STATFS: u32 = 17;
    pub const RELEASE: u32 = 18;
    pub const SETXATTR: u32 = 21;
    pub const GETXATTR: u32 = 22;
    pub const LISTXATTR: u32 = 23;
    pub const REMOVEXATTR: u32 = 24;
    pub const INIT: u32 = 26;
    pub const OPENDIR: u32 = 27;
    pub const READDIR: u32 = 28;
    pub const RELEASEDIR: u32 = 29;
    pub const CREATE: u32 = 35;
    pub const INTERRUPT: u32 = 36;
    pub const DESTROY: u32 = 38;
    pub const BATCH_FORGET: u32 = 42;
    pub const FALLOCATE: u32 = 43;
    pub const READDIRPLUS: u32 = 44;
    pub const RENAME2: u32 = 45;
    pub const COPY_FILE_RANGE: u32 = 47;
    pub const TMPFILE: u32 = 51;
}

/// What INIT negotiates.
#[allow(missing_docs)]
pub mod init {
    pub const ASYNC_READ: u64 = 1 << 0;
    pub const DO_READDIRPLUS: u64 = 1 << 13;
    pub const READDIRPLUS_AUTO: u64 = 1 << 14;
    pub const ASYNC_DIO: u64 = 1 << 15;
    pub const NO_OPEN_SUPPORT: u64 = 1 << 17;
    pub const PARALLEL_DIROPS: u64 = 1 << 18;
    pub const MAX_PAGES: u64 = 1 << 22;
    pub const CACHE_SYMLINKS: u64 = 1 << 23;
    pub const NO_OPENDIR_SUPPORT: u64 = 1 << 24;
    pub const EXPLICIT_INVAL_DATA: u64 = 1 << 25;
    /// There are more than 32 flags.
    pub const INIT_EXT: u64 = 1 << 30;
    pub const PASSTHROUGH: u64 = 1 << 37;
}

/// How an opened file is to be treated.
#[allow(missing_docs)]
pub mod fopen {
    pub const KEEP_CACHE: u32 = 1 << 1;
    pub const CACHE_DIR: u32 = 1 << 3;
    pub const NOFLUSH: u32 = 1 << 5;
    pub const PASSTHROUGH: u32 = 1 << 7;
}

/// A request that is no legal message.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("request {opcode} ends after {len} bytes, too early for its fields")]
pub struct TooShort {
    /// The kind of request.
    pub opcode: u32,
    /// How long the whole request is, in bytes.
    pub len: usize,
}

/// A request: its header, and its fields, which are read in order.
#[derive(Debug, Clone, Copy)]
pub struct Request<'a> {
    /// The kind; see [`op`].
    pub opcode: u32,
    /// What the reply is to be addressed to.
    pub unique: u64,
    /// The inode number it is about.
    pub nodeid: u64,
    /// The thread that asks, as it is called in our PID namespace; 0 if it is not in it.
    pub thread: u32,
    len: usize,
    fields: &'a [u8],
}

impl<'a> Request<'a> {
    /// Takes a message apart. The length in its header must be that of the message.
    pub fn parse(message: &'a [u8]) -> Result<Self, TooShort> {
        let mut request = Request {
            opcode: 0,
            unique: 0,
            nodeid: 0,
            thread: 0,
            len: message.len(),
            fields: message,
        };
        let len = request.u32()?;
        request.opcode = request.u32()?;
        request.unique = request.u64()?;
        request.nodeid = request.u64()?;
        request.skip(2 * 4)?; // user, group
        request.thread = request.u32()?;
        request.skip(4)?; // extensions, padding
        if len as usize != message.len() {
            return Err(request.too_short());
        }
        Ok(request)
    }

    fn too_short(&self) -> TooShort {
        TooShort { opcode: self.opcode, len: self.len }
    }

    /// The next `len` bytes.
    pub fn bytes(&mut self, len: usize) -> Result<&'a [u8], TooShort> {
        let (bytes, rest) = self.fields.split_at_checked(len).ok_or(self.too_short())?;
        self.fields = rest;
        Ok(bytes)
    }

    /// Passes over `len` bytes.
    pub fn skip(&mut self, len: usize) -> Result<(), TooShort> {
        self.bytes(len).map(|_| ())
    }

    /// The next 4 bytes as a number.
    pub fn u32(&mut self) -> Result<u32, TooShort> {
        let bytes = self.bytes(4)?;
        Ok(u32::from_ne_bytes(bytes.try_into().expect("4 bytes were asked for")))
    }

    /// The next 8 bytes as a number.
    pub fn u64(&mut self) -> Result<u64, TooShort> {
        let bytes = self.bytes(8)?;
        Ok(u64::from_ne_bytes(bytes.try_into().expect("8 bytes were asked for")))
    }

    /// The bytes up to the next NUL, which is passed over.
    pub fn name(&mut self) -> Result<&'a [u8], TooShort> {
        let len = self.fields.iter().position(|byte| *byte == 0).ok_or(self.too_short())?;
        let name = self.bytes(len)?;
        self.skip(1)?;
        Ok(name)
    }
}

thread_local! {
    /// Room for a thread's next reply.
    static SPARE: Cell<Vec<u8>> = const { Cell::new(Vec::new()) };
}

/// Room that is kept for the next reply, in bytes; a longer one is given back.
const SPARE_LEN_MAX: usize = 64 << 10;

/// Keeps the room of a message that was sent, so that the thread's next one needs none.
pub fn recycle(message: Vec<u8>) {
    if message.capacity() <= SPARE_LEN_MAX {
        SPARE.set(message);
    }
}

/// The fields of a reply, written in order after room for the header.
#[derive(Debug)]
pub struct Reply(Vec<u8>);

impl Reply {
    /// Without fields, with room for `len` bytes of them.
    pub fn with_capacity(len: usize) -> Self {
        let mut bytes = SPARE.take();
        bytes.clear();
        bytes.reserve(OUT_HEADER_LEN + len);
        bytes.resize(OUT_HEADER_LEN, 0);
        Reply(bytes)
    }

    /// Without fields.
    pub fn empty() -> Self {
        Self::with_capacity(0)
    }

    /// The length of the fields so far, in bytes.
    pub fn len(&self) -> usize {
        self.0.len() - OUT_HEADER_LEN
    }

    /// Whether there are no fields.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Appends a number of 2 bytes.
    pub fn u16(&mut self, value: u16) {
        self.bytes(&value.to_ne_bytes());
    }

    /// Appends a number of 4 bytes.
    pub fn u32(&mut self, value: u32) {
        self.bytes(&value.to_ne_bytes());
    }

    /// Appends a number of 8 bytes.
    pub fn u64(&mut self, value: u64) {
        self.bytes(&value.to_ne_bytes());
    }

    /// Appends bytes as they are.
    pub fn bytes(&mut self, bytes: &[u8]) {
        self.0.extend_from_slice(bytes);
    }

    /// Appends `len` zero bytes.
    pub fn zeros(&mut self, len: usize) {
        self.0.resize(self.0.len() + len, 0);
    }

    /// Fills in the header: the whole message, to be sent.
    pub fn finish(mut self, unique: u64) -> Vec<u8> {
        let header = header(self.0.len(), 0, unique);
        self.0[..OUT_HEADER_LEN].copy_from_slice(&header);
        self.0
    }

    /// `struct fuse_attr`.
    fn attributes(&mut self, attributes: &Attributes) {
        let time = Attributes::TIME_SECONDS;
        self.u64(attributes.ino.raw());
        self.u64(attributes.size);
        self.u64(attributes.blocks());
        for seconds in [time; 3] {
            self.u64(seconds);
        }
        self.zeros(3 * 4); // nanoseconds
        self.u32(mode(attributes.kind) | attributes.permissions);
        self.u32(Attributes::LINKS);
        self.zeros(3 * 4); // owner, group, device
        self.u32(PREFERRED_IO_SIZE);
        self.u32(0); // flags
    }

    /// `struct fuse_attr_out`: the attributes, to be kept for ever.
    pub fn attr_out(&mut self, attributes: &Attributes) {
        self.u64(FOREVER_SECONDS);
        self.u64(0); // nanoseconds, padding
        self.attributes(attributes);
    }

    /// `struct fuse_entry_out`: an entry, to be kept for ever.
    pub fn entry_out(&mut self, attributes: &Attributes) {
        self.u64(attributes.ino.raw());
        self.u64(0); // generation
        self.u64(FOREVER_SECONDS);
        self.u64(FOREVER_SECONDS);
        self.u64(0); // nanoseconds of both
        self.attributes(attributes);
    }

    /// `struct fuse_entry_out` that says, for ever, that there is no such entry.
    pub fn negative_entry_out(&mut self) {
        self.zeros(2 * 8);
        self.u64(FOREVER_SECONDS);
        self.zeros(ENTRY_OUT_LEN - 3 * 8);
    }

    /// `struct fuse_entry_out` that tells the kernel nothing.
    pub fn no_entry_out(&mut self) {
        self.zeros(ENTRY_OUT_LEN);
    }

    /// `struct fuse_dirent`: `next` is the offset that continues after it.
    pub fn dirent(&mut self, ino: u64, next: u64, kind: FileKind, name: &[u8]) {
        self.u64(ino);
        self.u64(next);
        self.u32(name.len() as u32);
        self.u32(mode(kind) >> 12);
        self.bytes(name);
        self.zeros(dirent_len(name) - DIRENT_LEN - name.len());
    }

    /// `struct fuse_open_out`.
    pub fn open_out(&mut self, handle: u64, flags: u32, backing_id: u32) {
        self.u64(handle);
        self.u32(flags);
        self.u32(backing_id);
    }

    /// `struct fuse_statfs_out`.
    pub fn statfs_out(&mut self, statfs: &Statfs) {
        self.u64(statfs.blocks);
        self.zeros(2 * 8); // free blocks
        self.u64(statfs.files);
        self.u64(0); // free inodes
        self.u32(statfs.block_size);
        self.u32(statfs.name_len_max);
        self.u32(statfs.block_size);
        self.zeros(7 * 4);
    }
}

/// The header of a reply of `len` bytes in all. `errno` is 0, or a positive errno value.
pub fn header(len: usize, errno: i32, unique: u64) -> [u8; OUT_HEADER_LEN] {
    let mut header = [0; OUT_HEADER_LEN];
    header[..4].copy_from_slice(&(len as u32).to_ne_bytes());
    header[4..8].copy_from_slice(&(-errno).to_ne_bytes());
    header[8..].copy_from_slice(&unique.to_ne_bytes());
    header
}

/// `FUSE_NOTIFY_INVAL_INODE`: the kernel shall forget all it has read of an inode.
pub fn inval_inode(ino: u64) -> Vec<u8> {
    const CODE: i32 = 2;
    let mut fields = Reply::empty();
    fields.u64(ino);
    fields.zeros(2 * 8); // from the beginning to the end
    let mut message = fields.finish(0);
    // In place of an error.
    message[4..8].copy_from_slice(&CODE.to_ne_bytes());
    message
}

/// The length of `struct fuse_entry_out`, in bytes.
pub const ENTRY_OUT_LEN: usize = 128;
/// The length of `struct fuse_dirent` without its name, in bytes.
const DIRENT_LEN: usize = 24;

/// How many bytes a directory entry takes, padded to 8.
pub fn dirent_len(name: &[u8]) -> usize {
    (DIRENT_LEN + name.len()).next_multiple_of(8)
}

/// Nothing below the root ever changes. The kernel cuts this down to what its clock can hold.
const FOREVER_SECONDS: u64 = u64::MAX >> 16;

/// What `st_blksize` recommends, in bytes.
const PREFERRED_IO_SIZE: u32 = 4096;

fn mode(kind: FileKind) -> u32 {
    match kind {
        FileKind::Directory => libc::S_IFDIR,
        FileKind::File => libc::S_IFREG,
        FileKind::Symlink => libc::S_IFLNK,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::vfs::Ino;

    fn attributes() -> Attributes {
        Attributes { ino: Ino::from_raw(77), kind: FileKind::File, permissions: 0o444, size: 513 }
    }

    fn message(opcode: u32, fields: &[u8]) -> Vec<u8> {
        let mut message = Vec::new();
        message.extend_from_slice(&((IN_HEADER_LEN + fields.len()) as u32).to_ne_bytes());
        message.extend_from_slice(&opcode.to_ne_bytes());
        message.extend_from_slice(&5u64.to_ne_bytes());
        message.extend_from_slice(&1u64.to_ne_bytes());
        message.extend_from_slice(&[0; 16]);
        message.extend_from_slice(fields);
        message
    }

    #[test]
    fn the_structures_have_the_kernels_lengths() {
        let len = |write: fn(&mut Reply)| {
            let mut reply = Reply::empty();
            write(&mut reply);
            reply.len()
        };
        assert_eq!(len(|r| r.attr_out(&attributes())), 104);
        assert_eq!(len(|r| r.entry_out(&attributes())), ENTRY_OUT_LEN);
        assert_eq!(len(Reply::negative_entry_out), ENTRY_OUT_LEN);
        assert_eq!(len(|r| r.dirent(1, 1, FileKind::File, b"123456789")), 40);
        let statfs = Statfs { blocks: 1, block_size: 4096, files: 1, name_len_max: 255 };
        let mut reply = Reply::empty();
        reply.statfs_out(&statfs);
        assert_eq!(reply.len(), 80);
    }

    #[test]
    fn a_request_is_taken_apart() -> Result<(), TooShort> {
        let bytes = message(op::LOOKUP, b"name\0rest\0");
        let mut request = Request::parse(&bytes)?;
        assert_eq!((request.opcode, request.unique, request.nodeid), (op::LOOKUP, 5, 1));
        assert_eq!(request.name()?, b"name");
        assert_eq!(request.name()?, b"rest");
        assert!(request.name().is_err());
        Ok(())
    }

    #[test]
    fn what_is_too_short_or_of_a_wrong_length_is_refused() {
        let whole = message(op::READ, &[0; 8]);
        for len in 0..whole.len() {
            assert!(Request::parse(&whole[..len]).is_err(), "{len} bytes");
        }
        assert!(Request::parse(&[&whole[..], &[0]].concat()).is_err());
        let mut request = Request::parse(&whole).expect("legal");
        assert_eq!(request.u64(), Ok(0));
        assert_eq!(request.u32(), Err(TooShort { opcode: op::READ, len: whole.len() }));
        let mut request = Request::parse(&whole).expect("legal");
        assert!(request.bytes(usize::MAX).is_err());
    }
}
