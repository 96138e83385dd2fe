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
    budget::Budget,
    place::Place,
    sink::DirectorySink,
    walk::{Event, FileEvent, Walker},
    worker::{self, Contents},
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

/// What an import found and stored. It is visible once it is committed; see [`super::commit`].
#[derive(Debug, Clone)]
pub struct Import {
    /// The path info to be committed.
    pub path_info: PathInfo,
    /// What was found.
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
    let refused = |source| ImportError::Store { path: path.to_owned(), source };
    let size_rule = runtime.block_on(stores.directories.size_rule()).map_err(refused)?;

    let budget = Budget::new(IN_FLIGHT_BYTES_MAX, IN_FLIGHT_ENTRIES_MAX);
    let (events_in, events) = sync_channel(IN_FLIGHT_ENTRIES_MAX);
    let (jobs_in, jobs) = sync_channel(IN_FLIGHT_ENTRIES_MAX);
    // Owned by the workers alone: should they all panic, the walker sees that nobody takes its jobs.
    let jobs = Arc::new(Mutex::new(jobs));
    let sequenced = thread::scope(|scope| {
        let walker = Walker { budget: &budget, events: events_in, jobs: jobs_in };
        scope.spawn(move || walker.run(path));
        for _ in 0..WORKERS {
            let jobs = jobs.clone();
            scope.spawn(|| worker::run(jobs, &*stores.blobs, runtime, progress));
        }
        drop(jobs);
        let sequencer = Sequencer::new(path, stores, runtime, size_rule, &budget);
        let sequenced = sequencer.and_then(|sequencer| sequencer.run(events));
        // If it failed, the walker may wait for room. Its channels are closed by now.
        budget.close();
        sequenced
    })?;
    let Sequenced { node, nar, counts } = sequenced;
    let store_path = source_path(&name, &nar.sha256).map_err(bad_name)?;
    let ca = Some(Ca::Nar(NixHash::Sha256(nar.sha256)));
    let nar_info =
        NarInfo { nar, references: Vec::new(), signatures: Vec::new(), deriver: None, ca };
    let path_info = PathInfo { store_path, node, details: Details::NarInfo(nar_info) };
    Ok(Import { path_info, counts })
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

/// What the sequencer made of a tree.
struct Sequenced {
    node: Node,
    nar: NarHash,
    counts: Counts,
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

    fn run(mut self, events: Receiver<Event>) -> Result<Sequenced, ImportError> {
        for event in events {
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
                Event::File(file) => self.file(file)?,
                Event::Failed(error) => return Err(error),
            }
        }
        let node = self.root.take().ok_or(ImportError::Stopped)?;
        let refused = |source| ImportError::Store { path: self.path.to_owned(), source };
        self.runtime.block_on(self.sink.finish()).map_err(refused)?;
        Ok(Sequenced { node, nar: self.nar.finish()?.finish(), counts: self.counts })
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

    fn file(&mut self, file: FileEvent) -> Result<(), ImportError> {
        let FileEvent { name, executable, size, contents, budget } = file;
        self.begin(name.as_ref())?;
        self.nar.begin_file(executable, size)?;
        let Contents { pieces, digest } = contents;
        for piece in pieces {
            self.nar.contents(&piece)?;
        }
        let stored = digest.recv().map_err(|_| ImportError::Stopped)??;
        self.nar.end_file()?;
        self.budget.give_back(budget);
        let (new_files, new_bytes) = if stored.is_new { (1, size) } else { (0, 0) };
        self.counts += Counts { files: 1, bytes: size, new_files, new_bytes };
        self.add(name, Node::File { digest: stored.digest, size, executable });
        Ok(())
    }
}
