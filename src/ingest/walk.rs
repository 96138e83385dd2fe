//! Lists a tree in the order of the archive.

use std::{
    os::unix::ffi::OsStrExt as _,
    path::Path,
    sync::{
        Arc,
        mpsc::{Receiver, SyncSender, channel, sync_channel},
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
    budget::{Budget, Room},
    listing::Listing,
    place::{Located, Place},
    worker::{Job, LargeJob, Listed, SmallFile, SmallJob},
};
use crate::{
    castore::{Name, SymlinkTarget},
    service::blob::{Put, SMALL_BLOB_LEN_MAX},
};

/// A batch with this many events is full.
const BATCH_EVENTS_MAX: usize = 64;

/// A batch whose small files have this many bytes is full.
const BATCH_BYTES_MAX: usize = 256 << 10;

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
    /// A regular file.
    File { name: Option<Name>, executable: bool, size: u64, contents: Contents },
    /// The walk ends here.
    Failed(ImportError),
}

/// Where a worker brings what it read.
pub(super) enum Contents {
    /// As the next of the batch's small files.
    Small,
    /// In pieces, and what became of them.
    Large { pieces: Receiver<Bytes>, put: Receiver<Result<Put, ImportError>> },
}

/// Events that follow each other.
pub(super) struct Batch {
    pub(super) events: Vec<Event>,
    /// The small files among them.
    pub(super) small_files: Receiver<Result<Vec<SmallFile>, ImportError>>,
    /// What was taken from the budget.
    pub(super) room: Room,
}

/// The bit by which Nix tells executable files: that of the owner.
const OWNER_MAY_EXECUTE: u32 = 0o100;

/// The walker: where what it finds goes.
pub(super) struct Walker<'a> {
    budget: &'a Budget,
    batches: SyncSender<Batch>,
    jobs: SyncSender<Job>,
    /// The batch that is not full yet.
    events: Vec<Event>,
    small_files: Vec<Listed>,
    room: Room,
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

impl<'a> Walker<'a> {
    pub(super) fn new(
        budget: &'a Budget,
        batches: SyncSender<Batch>,
        jobs: SyncSender<Job>,
    ) -> Self {
        let (events, small_files) = (Vec::new(), Vec::new());
        Walker { budget, batches, jobs, events, small_files, room: Room::default() }
    }

    /// Walks the tree at `root`. An error is the last event.
    pub(super) fn run(mut self, root: &Path) {
        match self.walk(root) {
            Ok(()) => {}
            Err(Some(error)) => self.events.push(Event::Failed(error)),
            Err(None) => return,
        }
        // Nobody may be there to hear it.
        let _ = self.flush();
    }

    /// `Err(None)` if nobody listens any more.
    fn walk(&mut self, root: &Path) -> Result<(), Option<ImportError>> {
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

    fn send(&mut self, event: Event) -> Result<(), Stop> {
        self.events.push(event);
        match self.events.len() >= BATCH_EVENTS_MAX || self.room.bytes >= BATCH_BYTES_MAX {
            true => self.flush(),
            false => Ok(()),
        }
    }

    /// Hands the batch over. Only here does the walker wait.
    fn flush(&mut self) -> Result<(), Stop> {
        let room = std::mem::take(&mut self.room);
        if !self.budget.take(room) {
            return Err(Stop);
        }
        let (done, small_files) = channel();
        let files = std::mem::take(&mut self.small_files);
        let events = std::mem::take(&mut self.events);
        self.batches.send(Batch { events, small_files, room }).map_err(|_| Stop)?;
        match files.is_empty() {
            true => Ok(()),
            false => self.jobs.send(Job::Small(SmallJob { files, done })).map_err(|_| Stop),
        }
    }

    /// Tells of one file, which may be of the kind that its directory lists. Returns it if it is a directory, to be
    /// walked.
    fn visit(
        &mut self,
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

    fn directory(&mut self, at: Located, name: Option<Name>) -> Result<Level, Option<ImportError>> {
        let level = Level::open(at)?;
        self.send(Event::BeginDirectory { name })?;
        Ok(level)
    }

    fn symlink<T>(
        &mut self,
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

    fn file(&mut self, at: Located, name: Option<Name>, stat: &Stat) -> Result<(), Stop> {
        let size = u64::try_from(stat.st_size).unwrap_or(0);
        let executable = stat.st_mode & OWNER_MAY_EXECUTE != 0;
        let file = Listed { at, size };
        self.room.entries += 1;
        if size <= SMALL_BLOB_LEN_MAX as u64 {
            self.room.bytes += size as usize;
            self.small_files.push(file);
            return self.send(Event::File { name, executable, size, contents: Contents::Small });
        }
        // Its pieces are bounded by their channel.
        let (pieces, contents) = sync_channel(LARGE_PIECES_MAX);
        let (done, put) = channel();
        let contents = Contents::Large { pieces: contents, put };
        self.events.push(Event::File { name, executable, size, contents });
        self.flush()?;
        self.jobs.send(Job::Large(LargeJob { file, pieces, done })).map_err(|_| Stop)
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
