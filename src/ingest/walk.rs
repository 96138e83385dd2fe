//! Lists a tree in the order of the archive.

use std::{
    os::unix::ffi::OsStrExt as _,
    path::Path,
    sync::{
        Arc,
        mpsc::{SyncSender, channel, sync_channel},
    },
};

use bytes::Bytes;
use rustix::{
    fd::OwnedFd,
    fs::{AtFlags, FileType, Mode, OFlags, Stat},
    io::Errno,
};

use super::{
    ImportError,
    budget::Budget,
    listing::Listing,
    place::{Located, Place},
    worker::{Contents, FileJob},
};
use crate::castore::{Name, SymlinkTarget};
use crate::service::blob::SMALL_BLOB_LEN_MAX;

/// How many pieces of a large file may wait for the sequencer.
const LARGE_PIECES_MAX: usize = 4;

/// How many directories on the way to where the walk is are kept open. Those above are opened again by `..`.
const LEVELS_OPEN_MAX: usize = 64;

/// What comes next in the archive.
pub(super) enum Event {
    /// A directory begins. The root has no name.
    BeginDirectory { name: Option<Name> },
    /// The innermost directory ends.
    EndDirectory { place: Arc<Place> },
    /// A symbolic link.
    Symlink { name: Option<Name>, target: SymlinkTarget },
    /// A regular file, whose contents a worker reads.
    File(FileEvent),
    /// The walk ends here.
    Failed(ImportError),
}

/// A regular file.
pub(super) struct FileEvent {
    pub(super) name: Option<Name>,
    pub(super) executable: bool,
    pub(super) size: u64,
    /// What the worker has read.
    pub(super) contents: Contents,
    /// What was taken from the budget for it, in bytes.
    pub(super) budget: usize,
}

/// The bit by which Nix tells executable files: that of the owner.
const OWNER_MAY_EXECUTE: u32 = 0o100;

/// The walker: where what it finds goes.
pub(super) struct Walker<'a> {
    pub(super) budget: &'a Budget,
    pub(super) events: SyncSender<Event>,
    pub(super) jobs: SyncSender<FileJob>,
}

/// Nobody listens any more.
struct Stop;

/// A directory and what is left to do in it.
struct Level {
    place: Arc<Place>,
    /// `None` while it is closed.
    directory: Option<Arc<OwnedFd>>,
    /// Device and inode, by which it is known again.
    id: (u64, u64),
    listing: Listing,
}

/// The directories around where the walk is, outermost first: first those that are closed, then those that are open.
#[derive(Default)]
struct Levels {
    levels: Vec<Level>,
    closed: usize,
}

impl Walker<'_> {
    /// Walks the tree at `root`. An error is the last event.
    pub(super) fn run(self, root: &Path) {
        if let Err(Some(error)) = self.walk(root) {
            // Nobody may be there to hear it.
            let _ = self.events.send(Event::Failed(error));
        }
    }

    /// `Err(None)` if nobody listens any more.
    fn walk(&self, root: &Path) -> Result<(), Option<ImportError>> {
        let root = Place::root(Bytes::copy_from_slice(root.as_os_str().as_bytes()));
        let root = Located { directory: None, place: root };
        let mut levels = Levels::default();
        if let Some(level) = self.visit(root, None, FileType::Unknown)? {
            levels.push(level);
        }
        while let Some(level) = levels.levels.last_mut() {
            let Some((bytes, kind)) = level.listing.next() else {
                let place = levels.pop()?;
                self.send(Event::EndDirectory { place })?;
                continue;
            };
            let place = Place::child(&level.place, bytes.clone());
            let name = Name::try_from(bytes)
                .map_err(|source| ImportError::Name { path: place.path(), source })?;
            let at = Located { directory: level.directory.clone(), place };
            if let Some(level) = self.visit(at, Some(name), kind)? {
                levels.push(level);
            }
        }
        Ok(())
    }

    fn send(&self, event: Event) -> Result<(), Stop> {
        self.events.send(event).map_err(|_| Stop)
    }

    /// Tells of one file, which may be of the kind that its directory lists. Returns it if it is a directory, to be
    /// walked.
    fn visit(
        &self,
        at: Located,
        name: Option<Name>,
        listed: FileType,
    ) -> Result<Option<Level>, Option<ImportError>> {
        if listed == FileType::Directory {
            return self.directory(at, name).map(Some);
        }
        if listed == FileType::Symlink {
            return self.symlink(&at, name);
        }
        let stat = rustix::fs::statat(at.directory(), at.place.name(), AtFlags::SYMLINK_NOFOLLOW)
            .map_err(failed("look at", &at.place))?;
        match FileType::from_raw_mode(stat.st_mode) {
            FileType::Directory => self.directory(at, name).map(Some),
            FileType::Symlink => self.symlink(&at, name),
            FileType::RegularFile => {
                self.file(at, name, &stat)?;
                Ok(None)
            }
            other => Err(Some(ImportError::Special { path: at.place.path(), kind: kind(other) })),
        }
    }

    fn directory(&self, at: Located, name: Option<Name>) -> Result<Level, Option<ImportError>> {
        let level = Level::open(at)?;
        self.send(Event::BeginDirectory { name })?;
        Ok(level)
    }

    fn symlink<T>(
        &self,
        at: &Located,
        name: Option<Name>,
    ) -> Result<Option<T>, Option<ImportError>> {
        let target = rustix::fs::readlinkat(at.directory(), at.place.name(), Vec::new())
            .map_err(failed("read", &at.place))?;
        let target = SymlinkTarget::try_from(Bytes::from(target.into_bytes()))
            .map_err(|source| ImportError::Target { path: at.place.path(), source })?;
        self.send(Event::Symlink { name, target })?;
        Ok(None)
    }

    fn file(&self, at: Located, name: Option<Name>, stat: &Stat) -> Result<(), Stop> {
        let size = u64::try_from(stat.st_size).unwrap_or(0);
        // The pieces of a large file are bounded by its channel.
        let small = usize::try_from(size).ok().filter(|size| *size <= SMALL_BLOB_LEN_MAX);
        let budget = small.unwrap_or(0);
        if !self.budget.take(budget) {
            return Err(Stop);
        }
        let (pieces, contents) = sync_channel(LARGE_PIECES_MAX);
        let (done, digest) = channel();
        let job = FileJob { at, size, pieces, done };
        let contents = Contents { pieces: contents, digest };
        let executable = stat.st_mode & OWNER_MAY_EXECUTE != 0;
        self.send(Event::File(FileEvent { name, executable, size, contents, budget }))?;
        self.jobs.send(job).map_err(|_| Stop)
    }
}

impl From<Stop> for Option<ImportError> {
    fn from(_: Stop) -> Self {
        None
    }
}

impl Level {
    fn open(at: Located) -> Result<Self, ImportError> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let directory = rustix::fs::openat(at.directory(), at.place.name(), flags, Mode::empty())
            .map_err(failed("open", &at.place))?;
        let id = id(&directory).map_err(failed("look at", &at.place))?;
        let listing = Listing::read(&directory, &at.place)?;
        Ok(Level { place: Arc::new(at.place), directory: Some(Arc::new(directory)), id, listing })
    }
}

impl Levels {
    fn push(&mut self, level: Level) {
        self.levels.push(level);
        if self.levels.len() - self.closed > LEVELS_OPEN_MAX {
            self.levels[self.closed].directory = None;
            self.closed += 1;
        }
    }

    /// Leaves the innermost directory, and opens the one around it again if it was closed. Returns where it was.
    fn pop(&mut self) -> Result<Arc<Place>, Option<ImportError>> {
        let left = self.levels.pop().ok_or(None)?;
        let around = self.levels.last_mut().filter(|around| around.directory.is_none());
        if let (Some(around), Some(directory)) = (around, left.directory) {
            let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
            let opened = rustix::fs::openat(&*directory, "..", flags, Mode::empty())
                .map_err(failed("open", &around.place))?;
            if id(&opened).map_err(failed("look at", &around.place))? != around.id {
                return Err(Some(ImportError::Moved { path: left.place.path() }));
            }
            around.directory = Some(Arc::new(opened));
            self.closed -= 1;
        }
        Ok(left.place)
    }
}

fn id(directory: &OwnedFd) -> rustix::io::Result<(u64, u64)> {
    let stat = rustix::fs::fstat(directory)?;
    Ok((stat.st_dev, stat.st_ino))
}

/// Names what failed, and where.
fn failed(what: &'static str, place: &Place) -> impl FnOnce(Errno) -> ImportError {
    move |errno| ImportError::Io { what, path: place.path(), source: errno.into() }
}

fn kind(file_type: FileType) -> &'static str {
    match file_type {
        FileType::Socket => "socket",
        FileType::Fifo => "named pipe",
        FileType::CharacterDevice => "character device",
        FileType::BlockDevice => "block device",
        FileType::RegularFile | FileType::Directory | FileType::Symlink | FileType::Unknown => {
            "file of an unknown kind"
        }
    }
}
