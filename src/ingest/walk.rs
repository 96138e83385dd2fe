//! Lists a tree in the order of the archive.

use std::{
    ffi::OsStr,
    fs::File,
    os::{fd::OwnedFd, unix::ffi::OsStrExt as _},
    path::{Path, PathBuf},
    sync::{
        Arc,
        mpsc::{SyncSender, channel, sync_channel},
    },
};

use rustix::{
    fs::{AtFlags, CWD, Dir, FileType, Mode, OFlags, Stat},
    io::Errno,
};

use super::{
    ImportError,
    budget::Budget,
    worker::{Contents, FileJob},
};
use crate::castore::{Name, SymlinkTarget};
use crate::service::blob::SMALL_BLOB_LEN_MAX;

/// How many pieces of a large file may wait for the sequencer.
const LARGE_PIECES_MAX: usize = 4;

/// What comes next in the archive.
pub(super) enum Event {
    /// A directory begins. The root has no name.
    BeginDirectory { name: Option<Name> },
    /// The innermost directory ends.
    EndDirectory { path: PathBuf },
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

/// An open directory and what is left to do in it.
struct Level {
    directory: Arc<OwnedFd>,
    path: PathBuf,
    /// Sorted by name, the first one last.
    names: Vec<Name>,
}

impl Walker<'_> {
    /// Walks the tree at `root`, which may also be a file or a symlink.
    pub(super) fn run(self, root: &Path) {
        let outcome = match self.walk(root) {
            Ok(()) | Err(None) => return,
            Err(Some(error)) => error,
        };
        // Nobody may be there to hear it.
        let _ = self.events.send(Event::Failed(outcome));
    }

    /// `Err(None)` if nobody listens any more.
    fn walk(&self, root: &Path) -> Result<(), Option<ImportError>> {
        let here = Arc::new(open_directory(CWD, OsStr::new("."), Path::new("."))?);
        let mut levels: Vec<Level> = Vec::new();
        levels.extend(self.visit(&here, root.as_os_str(), None, root.to_owned())?);
        while let Some(level) = levels.last_mut() {
            let Some(name) = level.names.pop() else {
                let path = std::mem::take(&mut level.path);
                levels.pop();
                self.send(Event::EndDirectory { path })?;
                continue;
            };
            let path = level.path.join(OsStr::from_bytes(name.as_bytes()));
            let directory = level.directory.clone();
            let file_name = name.clone();
            let file_name = OsStr::from_bytes(file_name.as_bytes());
            levels.extend(self.visit(&directory, file_name, Some(name), path)?);
        }
        Ok(())
    }

    fn send(&self, event: Event) -> Result<(), Stop> {
        self.events.send(event).map_err(|_| Stop)
    }

    /// Tells of one file. Returns it if it is a directory, to be walked.
    fn visit(
        &self,
        parent: &Arc<OwnedFd>,
        file_name: &OsStr,
        name: Option<Name>,
        path: PathBuf,
    ) -> Result<Option<Level>, Option<ImportError>> {
        let failed = |what| {
            let path = path.clone();
            move |errno: Errno| ImportError::Io { what, path, source: errno.into() }
        };
        let stat = rustix::fs::statat(parent, file_name, AtFlags::SYMLINK_NOFOLLOW)
            .map_err(failed("look at"))?;
        match FileType::from_raw_mode(stat.st_mode) {
            FileType::Directory => {
                let directory = open_directory(parent, file_name, &path)?;
                let names = list(&directory, &path)?;
                self.send(Event::BeginDirectory { name })?;
                Ok(Some(Level { directory: Arc::new(directory), path, names }))
            }
            FileType::RegularFile => {
                self.file(parent.clone(), file_name, name, path, &stat)?;
                Ok(None)
            }
            FileType::Symlink => {
                let target = rustix::fs::readlinkat(parent, file_name, Vec::new())
                    .map_err(failed("read"))?;
                let target = SymlinkTarget::try_from(target.as_bytes())
                    .map_err(|source| ImportError::Target { path, source })?;
                self.send(Event::Symlink { name, target })?;
                Ok(None)
            }
            other => Err(Some(ImportError::Special { path, kind: kind(other) })),
        }
    }

    fn file(
        &self,
        parent: Arc<OwnedFd>,
        file_name: &OsStr,
        name: Option<Name>,
        path: PathBuf,
        stat: &Stat,
    ) -> Result<(), Stop> {
        let size = u64::try_from(stat.st_size).unwrap_or(0);
        // The pieces of a large file are bounded by its channel.
        let small = usize::try_from(size).ok().filter(|size| *size <= SMALL_BLOB_LEN_MAX);
        let budget = small.unwrap_or(0);
        if !self.budget.take(budget) {
            return Err(Stop);
        }
        let (pieces, contents) = sync_channel(LARGE_PIECES_MAX);
        let (done, digest) = channel();
        let job = FileJob { parent, file_name: file_name.to_owned(), path, size, pieces, done };
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

fn open_directory(
    parent: impl std::os::fd::AsFd,
    name: &OsStr,
    path: &Path,
) -> Result<OwnedFd, ImportError> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    rustix::fs::openat(parent, name, flags, Mode::empty()).map_err(|errno| ImportError::Io {
        what: "open",
        path: path.to_owned(),
        source: errno.into(),
    })
}

/// The names in a directory, the last one first.
fn list(directory: &OwnedFd, path: &Path) -> Result<Vec<Name>, ImportError> {
    let failed = |errno: Errno| ImportError::Io {
        what: "list",
        path: path.to_owned(),
        source: errno.into(),
    };
    let mut names = Vec::new();
    for entry in Dir::read_from(directory).map_err(failed)? {
        let entry = entry.map_err(failed)?;
        let name = entry.file_name().to_bytes();
        if matches!(name, b"." | b"..") {
            continue;
        }
        names.push(Name::try_from(name).map_err(|source| ImportError::Name {
            path: path.join(OsStr::from_bytes(name)),
            source,
        })?);
    }
    names.sort_unstable_by(|a, b| b.cmp(a));
    Ok(names)
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

/// Opens a file to be read once.
pub(super) fn open_file(parent: &OwnedFd, name: &OsStr) -> rustix::io::Result<File> {
    // NONBLOCK: whatever it has become since it was listed, opening it must not wait.
    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC | OFlags::NONBLOCK;
    rustix::fs::openat(parent, name, flags, Mode::empty()).map(File::from)
}
