//! Imports a tree of files.

use std::{
    path::Path,
    sync::{
        Arc,
        mpsc::{Receiver, sync_channel},
    },
    thread,
};

use parking_lot::Mutex;
use tokio::runtime::Handle;

use super::{
    Counts, IN_FLIGHT_BYTES_MAX, IN_FLIGHT_ENTRIES_MAX, ImportError, Progress,
    budget::{Budget, Room},
    place::Place,
    sink::DirectorySink,
    walk::{self, Batch, Event, Walker},
    worker,
};
use crate::{
    castore::{Directory, DirectoryBuilder, Name, Node, SizeRule},
    nix::{
        Ca, Details, NarHash, NarInfo, NixHash, PathInfo, StorePathNameError,
        check_store_path_name,
        nar::{NarHasher, NarWriter},
        source_path,
    },
    service::{Error, Stores},
};

/// How many files are read at once. More than there are processors, since a store may be far away.
const WORKERS: usize = 4;

/// How many batches and jobs may wait. The budget bounds what they hold.
const WAITING_MAX: usize = 16;

/// What an import found and stored. It is visible once it is committed; see [`super::commit`].
#[derive(Debug, Clone)]
pub struct Import {
    /// The path info to be committed.
    pub path_info: PathInfo,
    /// What was found.
    pub counts: Counts,
}

/// What a tree was found to hold. All of it is in the services; nothing names it yet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Contents {
    /// The tree.
    pub node: Node,
    /// The length and hash of its archive, found while it was read.
    pub nar: NarHash,
    /// How much it holds, and how much of that the store did not have.
    pub counts: Counts,
}

/// Imports the file, symlink or directory at `path` as the store path that `nix-store --add` would make of it. Its
/// name is `name`, or else the last part of the path.
///
/// Blocks, and must not be called from a task of `runtime`, which drives the services.
pub fn import_tree(
    path: &Path,
    name: Option<&str>,
    stores: &Stores,
    runtime: &Handle,
    progress: &Progress,
) -> Result<Import, ImportError> {
    let bad_name = |source| ImportError::StorePathName { path: path.to_owned(), source };
    let name = match name {
        Some(name) => check_store_path_name(name.as_bytes()).map_err(bad_name)?.to_owned(),
        None => name_of(path)?.map_err(bad_name)?,
    };
    let Contents { node, nar, counts } = import_contents(path, stores, runtime, progress)?;
    let store_path = source_path(&name, &nar.sha256).map_err(bad_name)?;
    let ca = Some(Ca::Nar(NixHash::Sha256(nar.sha256)));
    let nar_info =
        NarInfo { nar, references: Vec::new(), signatures: Vec::new(), deriver: None, ca };
    let path_info = PathInfo { store_path, node, details: Details::NarInfo(nar_info) };
    Ok(Import { path_info, counts })
}

/// Brings the file, symlink or directory at `path` into the services, as contents of no store path in particular.
///
/// Blocks, and must not be called from a task of `runtime`, which drives the services.
pub fn import_contents(
    path: &Path,
    stores: &Stores,
    runtime: &Handle,
    progress: &Progress,
) -> Result<Contents, ImportError> {
    let refused = |source| ImportError::Store { path: path.to_owned(), source };
    let size_rule = runtime.block_on(stores.directories.size_rule()).map_err(refused)?;

    let budget = Budget::new(Room { bytes: IN_FLIGHT_BYTES_MAX, entries: IN_FLIGHT_ENTRIES_MAX });
    let (batches_in, batches) = sync_channel(WAITING_MAX);
    let (jobs_in, jobs) = sync_channel(WAITING_MAX);
    // Owned by the workers alone: should they all panic, the walker sees that nobody takes its jobs.
    let jobs = Arc::new(Mutex::new(jobs));
    thread::scope(|scope| {
        let walker = Walker::new(&budget, batches_in, jobs_in);
        scope.spawn(move || walker.run(path));
        for _ in 0..WORKERS {
            let jobs = jobs.clone();
            scope.spawn(|| worker::run(jobs, &*stores.blobs, runtime, progress));
        }
        drop(jobs);
        let sequencer = Sequencer::new(path, stores, runtime, size_rule, &budget);
        let contents = sequencer.and_then(|sequencer| sequencer.run(batches));
        // If it failed, the walker may wait for room. Its channels are closed by now.
        budget.close();
        contents
    })
}

/// The last part of the path, also if it is given as `.` or ends in `..`.
fn name_of(path: &Path) -> Result<Result<String, StorePathNameError>, ImportError> {
    use std::os::unix::ffi::OsStrExt as _;

    let absolute;
    let name = match path.file_name() {
        Some(name) => name,
        None => {
            absolute = path.canonicalize().map_err(|source| ImportError::Io {
                what: "find",
                path: path.to_owned(),
                source,
            })?;
            absolute.file_name().unwrap_or_default()
        }
    };
    Ok(check_store_path_name(name.as_bytes()).map(str::to_owned))
}

/// Takes what the walker and the workers bring, in the order of the archive.
struct Sequencer<'a> {
    path: &'a Path,
    runtime: &'a Handle,
    size_rule: SizeRule,
    budget: &'a Budget,
    nar: NarWriter<NarHasher>,
    sink: DirectorySink<'a>,
    /// The open directories, and the name of each in the one before.
    open: Vec<(Option<Name>, DirectoryBuilder)>,
    root: Option<Node>,
    counts: Counts,
}

impl<'a> Sequencer<'a> {
    fn new(
        path: &'a Path,
        stores: &'a Stores,
        runtime: &'a Handle,
        size_rule: SizeRule,
        budget: &'a Budget,
    ) -> Result<Self, ImportError> {
        Ok(Sequencer {
            path,
            runtime,
            size_rule,
            budget,
            nar: NarWriter::new(NarHasher::default())?,
            sink: DirectorySink::new(&*stores.directories),
            open: Vec::new(),
            root: None,
            counts: Counts::default(),
        })
    }

    fn refused(&self, source: Error) -> ImportError {
        ImportError::Store { path: self.path.to_owned(), source }
    }

    fn run(mut self, batches: Receiver<Batch>) -> Result<Contents, ImportError> {
        for batch in batches {
            self.batch(batch)?;
        }
        let node = self.root.take().ok_or(ImportError::Stopped)?;
        let refused = |source| ImportError::Store { path: self.path.to_owned(), source };
        self.runtime.block_on(self.sink.finish()).map_err(refused)?;
        Ok(Contents { node, nar: self.nar.finish()?.finish(), counts: self.counts })
    }

    fn batch(&mut self, batch: Batch) -> Result<(), ImportError> {
        let mut small_files = Vec::new().into_iter();
        for event in batch.events {
            match event {
                Event::BeginDirectory { name } => {
                    self.begin(name.as_ref())?;
                    self.nar.begin_directory()?;
                    self.open.push((name, Directory::builder()));
                }
                Event::EndDirectory { place } => self.end_directory(&place)?,
                Event::Symlink { name, target } => {
                    self.begin(name.as_ref())?;
                    self.nar.symlink(target.as_bytes())?;
                    self.add(name, Node::Symlink { target });
                }
                Event::File { name, executable, size, contents } => {
                    self.begin(name.as_ref())?;
                    self.nar.begin_file(executable, size)?;
                    let put = match contents {
                        walk::Contents::Small => {
                            if small_files.len() == 0 {
                                let read = batch.small_files.recv();
                                small_files = read.map_err(|_| ImportError::Stopped)??.into_iter();
                            }
                            let file = small_files.next().ok_or(ImportError::Stopped)?;
                            self.nar.contents(&file.contents)?;
                            file.put
                        }
                        walk::Contents::Large { pieces, put } => {
                            for piece in pieces {
                                self.nar.contents(&piece)?;
                            }
                            put.recv().map_err(|_| ImportError::Stopped)??
                        }
                    };
                    self.nar.end_file()?;
                    let (new_files, new_bytes) = if put.is_new { (1, size) } else { (0, 0) };
                    self.counts += Counts { files: 1, bytes: size, new_files, new_bytes };
                    self.add(name, Node::File { digest: put.digest, size, executable });
                }
                Event::Failed(error) => return Err(error),
            }
        }
        self.budget.give_back(batch.room);
        Ok(())
    }

    fn begin(&mut self, name: Option<&Name>) -> Result<(), ImportError> {
        if let Some(name) = name {
            self.nar.entry(name.as_bytes())?;
        }
        Ok(())
    }

    fn add(&mut self, name: Option<Name>, node: Node) {
        match (self.open.last_mut(), name) {
            (Some((_, parent)), Some(name)) => {
                parent.add(name, node);
            }
            _ => self.root = Some(node),
        }
    }

    fn end_directory(&mut self, place: &Place) -> Result<(), ImportError> {
        self.nar.end_directory()?;
        let Some((name, mut builder)) = self.open.pop() else { return Ok(()) };
        let directory = builder
            .build()
            .map_err(|source| ImportError::Directory { path: place.path(), source })?;
        let node = directory.node(self.size_rule);
        let put = self.runtime.block_on(self.sink.put(Arc::new(directory)));
        put.map_err(|error| self.refused(error))?;
        self.add(name, node);
        Ok(())
    }
}
