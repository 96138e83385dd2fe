//! Answers FUSE messages. Knows no device: a session, or a virtiofs queue, brings requests and takes replies.
//!
//! Directories are never opened, and files only where that makes the kernel read them by itself (see
//! [`super::backing`]): ENOSYS to the first OPEN or OPENDIR makes the kernel open and close by itself from then on, and
//! keep what it has read. Entries and attributes are given for ever. Absent names are cached too, except in the root,
//! where they may appear; and the kernel's listing of the root is taken from it whenever it is about to be complete. So a
//! tree that was walked and read once costs no message any more.

use std::{
    fmt,
    fs::File,
    io,
    sync::{Arc, OnceLock},
};

use bytes::Bytes;
use tracing::warn;

use super::{
    backing::{Backings, Opening, PASSTHROUGH_ABOVE_LEN},
    errno::{Errno, errno},
    greeting::{Greeting, greet},
    measured::{self, Subject, Timer},
    page::Page,
    wire::{self, Reply, Request, TooShort, fopen, op},
};
use crate::{
    observe::{Span, event, span, spent, tally::Source},
    vfs::{Answer, Attributes, Error, Ino, Vfs},
};

pub use super::outcome::{Message, Outcome};

/// The most that one READ, READDIR or READDIRPLUS may ask for, in bytes: 256 pages, the kernel's own default limit.
pub const IO_LEN_MAX: usize = 1 << 20;

/// What is asked of the kernel without having been asked by it.
pub trait Kernel: Send + Sync + fmt::Debug {
    /// Whether it takes what is sent unasked. A guest does not: nothing can be taken from it, and nothing lent to it.
    fn hears(&self) -> bool;

    /// Takes from it what it has read of a directory.
    fn forget_listing(&self, ino: Ino);

    /// Tells it of a file to which inodes may be opened. Returns the file's backing id.
    fn open_backing(&self, file: &File) -> io::Result<u32>;

    /// Ends the use of a backing id for further opens.
    fn close_backing(&self, id: u32);
}

/// A filesystem as FUSE sees it.
pub struct Fuse {
    vfs: Arc<Vfs>,
    kernel: Arc<dyn Kernel>,
    /// Whether passthrough was agreed on; not set before the greeting.
    can_pass_through: OnceLock<bool>,
    /// Set if files are opened.
    backings: OnceLock<Backings>,
}

/// What OPEN hands out and RELEASE brings back.
mod handle {
    /// Nothing has to be remembered.
    pub const UNCOUNTED: u64 = 0;
    /// How the inode is open has to be remembered.
    pub const COUNTED: u64 = 1;
}

/// Either a reply that is ready, or one to be waited for, or an error.
type Handled = Result<Outcome, Failure>;

/// Why a request got no proper reply.
enum Failure {
    TooShort(TooShort),
    Errno(Errno),
}

impl From<TooShort> for Failure {
    fn from(error: TooShort) -> Self {
        Failure::TooShort(error)
    }
}

impl From<Errno> for Failure {
    fn from(errno: Errno) -> Self {
        Failure::Errno(errno)
    }
}

/// The reply that tells of an error.
pub fn error_message(unique: u64, errno: Errno) -> Message {
    wire::header(wire::OUT_HEADER_LEN, errno.0, unique).to_vec()
}

impl Fuse {
    /// Over a filesystem core.
    pub fn new(vfs: Arc<Vfs>, kernel: Arc<dyn Kernel>) -> Self {
        let (can_pass_through, backings) = (OnceLock::new(), OnceLock::new());
        measured::tell();
        Fuse { vfs, kernel, can_pass_through, backings }
    }

    /// The kernel.
    pub fn kernel(&self) -> &dyn Kernel {
        &*self.kernel
    }

    /// Whether the kernel can pass files through, as it said when it greeted.
    pub fn can_pass_through(&self) -> bool {
        self.can_pass_through.get().is_some_and(|can| *can)
    }

    /// From now on files are opened, so that large ones are passed through. Without it no file is ever opened. Has to
    /// be decided before the first one is.
    pub fn open_files(&self) {
        let _ = self.backings.set(Backings::new(self.kernel.clone()));
    }

    /// The files that are passed through, if that is done.
    pub fn backings(&self) -> Option<&Backings> {
        self.backings.get()
    }

    /// The filesystem core.
    pub fn vfs(&self) -> &Arc<Vfs> {
        &self.vfs
    }

    /// Handles one request. What needs no waiting is done here and now.
    pub fn handle(self: &Arc<Self>, request: Request<'_>) -> Outcome {
        let (unique, nodeid) = (request.unique, request.nodeid);
        let timer = Timer::start(request.opcode);
        let outcome = match self.dispatch(request, timer) {
            Ok(outcome) => outcome,
            Err(Failure::Errno(errno)) => Outcome::Reply(error_message(unique, errno)),
            Err(Failure::TooShort(error)) => {
                warn!(event = event::MALFORMED_REQUEST, %error, "malformed request");
                Outcome::Reply(error_message(unique, Errno::INVALID))
            }
        };
        match &outcome {
            Outcome::Reply(message) => timer.replied(&self.vfs, nodeid, message),
            Outcome::Silence => drop(timer.ended(0)),
            // Those tell of themselves.
            Outcome::ReadLocal { .. } | Outcome::Later { .. } => {}
            Outcome::Interrupt { .. } | Outcome::End(_) => {}
        }
        outcome
    }

    fn dispatch(self: &Arc<Self>, request: Request<'_>, timer: Timer) -> Handled {
        match request.opcode {
            op::INIT => self.greet(request),
            op::LOOKUP => self.lookup(request, timer),
            op::GETATTR => self.getattr(request),
            op::READLINK => self.readlink(request),
            op::READ => self.read(request, timer),
            op::OPEN => self.open(request),
            op::RELEASE => self.release(request),
            op::OPENDIR => self.opendir(request),
            op::RELEASEDIR => Ok(Outcome::Reply(Reply::empty().finish(request.unique))),
            op::READDIR => self.readdir(request, false, timer),
            op::READDIRPLUS => self.readdir(request, true, timer),
            op::GETXATTR => self.getxattr(request),
            op::LISTXATTR => self.listxattr(request),
            op::STATFS => {
                let mut reply = Reply::empty();
                reply.statfs_out(&self.vfs.statfs());
                Ok(Outcome::Reply(reply.finish(request.unique)))
            }
            op::FORGET => self.forget(request),
            op::BATCH_FORGET => self.batch_forget(request),
            op::INTERRUPT => {
                let mut request = request;
                Ok(Outcome::Interrupt { unique: request.u64()? })
            }
            op::DESTROY => Ok(Outcome::End(Some(Reply::empty().finish(request.unique)))),
            op::SETATTR
            | op::SYMLINK
            | op::MKNOD
            | op::MKDIR
            | op::UNLINK
            | op::RMDIR
            | op::RENAME
            | op::RENAME2
            | op::LINK
            | op::WRITE
            | op::SETXATTR
            | op::REMOVEXATTR
            | op::CREATE
            | op::FALLOCATE
            | op::COPY_FILE_RANGE
            | op::TMPFILE => Err(Errno::READ_ONLY.into()),
            // ACCESS among them: the kernel checks access from the modes.
            _ => Err(Errno::NOT_IMPLEMENTED.into()),
        }
    }

    /// Polls `answer` once; the reply is written by `write`.
    fn answer<T: 'static>(
        &self,
        (unique, timer, subject): (u64, Timer, Subject),
        what: &'static str,
        answer: impl Future<Output = Result<T, Error>> + Send + 'static,
        write: impl FnOnce(T) -> Reply + Send + 'static,
    ) -> Handled {
        let reply = async move {
            match answer.await {
                Ok(value) => write(value).finish(unique),
                Err(error) => {
                    if !matches!(error, Error::NotFound) {
                        span::fail(&error);
                    }
                    error_message(unique, errno(what, &error))
                }
            }
        };
        let span = Span::request(what, subject.numbers());
        Ok(match Answer::of(spent::watch(span.around(reply))) {
            Answer::Now((message, _)) => Outcome::Reply(message),
            Answer::Later(reply) => {
                Outcome::Later { unique, reply: timer.watch(self.vfs.clone(), subject, reply) }
            }
        })
    }

    fn greet(&self, request: Request<'_>) -> Handled {
        Ok(match greet(request, self.kernel.hears())? {
            Greeting::Agreed { reply, can_pass_through } => {
                let _ = self.can_pass_through.set(can_pass_through);
                Outcome::Reply(reply)
            }
            Greeting::Again(reply) => Outcome::Reply(reply),
            Greeting::Refused => {
                Outcome::End(Some(error_message(request.unique, Errno(libc::EPROTO))))
            }
        })
    }

    fn lookup(self: &Arc<Self>, mut request: Request<'_>, timer: Timer) -> Handled {
        let parent = Ino::from_raw(request.nodeid);
        let name = request.name()?;
        // Below the root an absent name stays absent, and the kernel may remember that.
        let found = move |looked_up| match looked_up {
            Ok(attributes) => Ok(Some(attributes)),
            Err(Error::NotFound) if parent != Ino::ROOT => Ok(None),
            Err(error) => Err(error),
        };
        let write = |found: Option<Attributes>| {
            let mut reply = Reply::with_capacity(wire::ENTRY_OUT_LEN);
            match found {
                Some(attributes) => reply.entry_out(&attributes),
                None => reply.negative_entry_out(),
            }
            reply
        };
        if let Some(looked_up) = self.vfs.lookup_at_hand(parent, name).transpose() {
            let found = found(looked_up).map_err(|error| errno("lookup", &error))?;
            return Ok(Outcome::Reply(write(found).finish(request.unique)));
        }
        let (vfs, name) = (self.vfs.clone(), Bytes::copy_from_slice(name));
        let subject = Subject { name: Some(name.clone()), ..Subject::of(parent) };
        let looked_up = async move { found(vfs.ask(parent, &name).await) };
        self.answer((request.unique, timer, subject), "lookup", looked_up, write)
    }

    fn getattr(&self, request: Request<'_>) -> Handled {
        let attributes = self.vfs.attributes(Ino::from_raw(request.nodeid));
        let attributes = attributes.map_err(|error| errno("getattr", &error))?;
        let mut reply = Reply::empty();
        reply.attr_out(&attributes);
        Ok(Outcome::Reply(reply.finish(request.unique)))
    }

    fn readlink(&self, request: Request<'_>) -> Handled {
        let target = self.vfs.readlink(Ino::from_raw(request.nodeid));
        let target = target.map_err(|error| errno("readlink", &error))?;
        let mut reply = Reply::with_capacity(target.len());
        reply.bytes(&target);
        Ok(Outcome::Reply(reply.finish(request.unique)))
    }

    fn read(self: &Arc<Self>, mut request: Request<'_>, timer: Timer) -> Handled {
        let ino = Ino::from_raw(request.nodeid);
        let (_, offset, len) = read_in(&mut request)?;
        let local = self.vfs.local_range(ino, offset, len);
        let local = local.map_err(|error| errno("read", &error))?;
        self.vfs.observe_read(ino, request.thread, offset, len, local.is_some());
        match local {
            Some(blob) => {
                let len = blob.size.saturating_sub(offset).min(len as u64) as usize;
                Ok(Outcome::ReadLocal { unique: request.unique, ino, blob, offset, len, timer })
            }
            None => self.read_anyhow(request.unique, ino, offset, len, timer),
        }
    }

    /// Reads without the local file: there is none, or it cannot be read.
    fn read_anyhow(&self, unique: u64, ino: Ino, offset: u64, len: usize, timer: Timer) -> Handled {
        let vfs = self.vfs.clone();
        let read = async move { vfs.read(ino, offset, len).await };
        let subject = Subject { range: Some((offset, len)), ..Subject::of(ino) };
        self.answer((unique, timer, subject), "read", read, |pieces: Vec<Bytes>| {
            let len = pieces.iter().map(Bytes::len).sum();
            Source::Store.read(len as u64);
            let mut reply = Reply::with_capacity(len);
            pieces.iter().for_each(|piece| reply.bytes(piece));
            reply
        })
    }

    /// Answers a read whose [local file](Outcome::ReadLocal) cannot be read: a cache before a far store can do without.
    pub fn read_elsewhere(
        &self,
        unique: u64,
        ino: Ino,
        offset: u64,
        len: usize,
        timer: Timer,
    ) -> Outcome {
        let outcome = match self.read_anyhow(unique, ino, offset, len, timer) {
            Ok(outcome) => outcome,
            Err(_) => Outcome::Reply(error_message(unique, Errno::IO)),
        };
        if let Outcome::Reply(message) = &outcome {
            timer.replied(&self.vfs, ino.raw(), message);
        }
        outcome
    }

    fn open(&self, request: Request<'_>) -> Handled {
        // The kernel then opens files without us.
        let backings = self.backings.get().ok_or(Errno::NOT_IMPLEMENTED)?;
        let ino = Ino::from_raw(request.nodeid);
        let failed = |error| Failure::from(errno("open", &error));
        let (handle, opening) = match self.vfs.attributes(ino).map_err(failed)?.size {
            0..=PASSTHROUGH_ABOVE_LEN => (handle::UNCOUNTED, Opening::Cached),
            _ => {
                let opening = backings.open(ino, || self.vfs.local(ino));
                (handle::COUNTED, opening.map_err(failed)?)
            }
        };
        self.vfs.observe_open(ino, request.thread);
        let mut reply = Reply::with_capacity(16);
        match opening {
            Opening::Passthrough(id) => {
                reply.open_out(handle, fopen::PASSTHROUGH | fopen::NOFLUSH, id);
            }
            Opening::Cached => reply.open_out(handle, fopen::KEEP_CACHE | fopen::NOFLUSH, 0),
        }
        Ok(Outcome::Reply(reply.finish(request.unique)))
    }

    fn release(&self, mut request: Request<'_>) -> Handled {
        if request.u64()? == handle::COUNTED
            && let Some(backings) = self.backings.get()
        {
            backings.release(Ino::from_raw(request.nodeid));
        }
        Ok(Outcome::Reply(Reply::empty().finish(request.unique)))
    }

    fn opendir(&self, request: Request<'_>) -> Handled {
        if self.kernel.hears() {
            // It then opens directories without us.
            return Err(Errno::NOT_IMPLEMENTED.into());
        }
        // The root gains names, and there is no way to say so: what was read of it must not be kept.
        let flags = match request.nodeid == Ino::ROOT.raw() {
            true => 0,
            false => fopen::KEEP_CACHE | fopen::CACHE_DIR,
        };
        let mut reply = Reply::with_capacity(16);
        reply.open_out(handle::UNCOUNTED, flags, 0);
        Ok(Outcome::Reply(reply.finish(request.unique)))
    }

    fn readdir(self: &Arc<Self>, mut request: Request<'_>, plus: bool, timer: Timer) -> Handled {
        let ino = Ino::from_raw(request.nodeid);
        let (_, offset, len) = read_in(&mut request)?;
        let vfs = self.vfs.clone();
        let page = move |offset| Page::new(vfs, ino, plus, offset, len);
        let about = (request.unique, timer, Subject::of(ino));
        if ino == Ino::ROOT {
            let fuse = self.clone();
            let fill = async move {
                let mut page = page(offset);
                let mut listing = fuse.vfs.root_listing().await;
                // Also after rewinddir(3): the names of now.
                if offset == 0 {
                    listing.begin();
                }
                page.dots()?;
                while let Some((store_path, node)) = listing.get(page.index()).await? {
                    if !page.add(store_path.to_string().as_bytes(), node.as_ref())? {
                        break;
                    }
                }
                if page.reply.is_empty() {
                    // The end makes the kernel take what it has kept of the listing for all of it. The root gains names:
                    // before it hears of the end, what it has kept goes, and the next listing asks again.
                    fuse.kernel.forget_listing(Ino::ROOT);
                }
                Ok(page.reply)
            };
            return self.answer(about, "readdir", fill, |reply| reply);
        }
        let fuse = self.clone();
        let fill = async move {
            let mut page = page(offset);
            let directory = fuse.vfs.list(ino).await?;
            page.dots()?;
            while let Some(entry) = directory.get(page.index()) {
                if !page.add(entry.name, entry.node)? {
                    break;
                }
            }
            Ok(page.reply)
        };
        self.answer(about, "readdir", fill, |reply| reply)
    }

    fn getxattr(&self, mut request: Request<'_>) -> Handled {
        let size = request.u32()?;
        request.skip(4)?;
        let name = request.name()?;
        let value = self.vfs.xattr(Ino::from_raw(request.nodeid), name);
        match value.map_err(|error| errno("getxattr", &error))? {
            Some(value) => attribute_reply(&request, size, value.as_bytes()),
            // The kernel then answers ENOTSUP by itself from now on.
            None => Err(Errno::NOT_IMPLEMENTED.into()),
        }
    }

    fn listxattr(&self, mut request: Request<'_>) -> Handled {
        let size = request.u32()?;
        let names = self.vfs.xattr_names(Ino::from_raw(request.nodeid));
        match names.map_err(|error| errno("listxattr", &error))? {
            Some(names) => attribute_reply(&request, size, &names),
            None => Err(Errno::NOT_IMPLEMENTED.into()),
        }
    }

    fn forget(&self, mut request: Request<'_>) -> Handled {
        // No reply is wanted, so a malformed one has nobody to tell.
        if let Ok(count) = request.u64() {
            self.vfs.forget(Ino::from_raw(request.nodeid), count);
        }
        Ok(Outcome::Silence)
    }

    fn batch_forget(&self, mut request: Request<'_>) -> Handled {
        let Ok(count) = request.u32() else { return Ok(Outcome::Silence) };
        let mut left = request.skip(4).map_or(0, |()| count);
        while left > 0 {
            let (Ok(nodeid), Ok(lookups)) = (request.u64(), request.u64()) else { break };
            self.vfs.forget(Ino::from_raw(nodeid), lookups);
            left -= 1;
        }
        Ok(Outcome::Silence)
    }
}

/// `struct fuse_read_in`: the file handle, the offset, and the length, cut to what is allowed.
fn read_in(request: &mut Request<'_>) -> Result<(u64, u64, usize), TooShort> {
    let handle = request.u64()?;
    let offset = request.u64()?;
    let len = request.u32()? as usize;
    Ok((handle, offset, len.min(IO_LEN_MAX)))
}

/// A value of an extended attribute, or, if the caller offers no room, its length.
fn attribute_reply(request: &Request<'_>, size: u32, value: &[u8]) -> Handled {
    let mut reply = Reply::with_capacity(value.len().max(8));
    match size as usize {
        0 => {
            reply.u32(value.len() as u32);
            reply.u32(0);
        }
        size if size < value.len() => {
            return Err(errno("getxattr", &Error::TooSmall).into());
        }
        _ => reply.bytes(value),
    }
    Ok(Outcome::Reply(reply.finish(request.unique)))
}
