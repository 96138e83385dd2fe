//! An archive into the services, while it arrives.
//!
//! One thread reads, hashes the archive and takes it apart. Contents are stored by other threads meanwhile: small files
//! many together, each large one piece by piece. Directories are built in the order of the archive, once the digests of
//! all that they hold are known.
//!
//! **Memory.** Of contents at most [`CONTENTS_BYTES_MAX`] are held, whatever the archive announces; of names and targets
//! on their way as much; of directories that are still open [`DIRECTORY_LEN_MAX`](crate::castore::DIRECTORY_LEN_MAX)
//! together, counted as messages; and of complete ones what [`super::sink`] holds.
//!
//! **What is visible.** Directories are put as late as possible: those of an archive that turns out to be wrong are
//! put only if they are too many to be held. Contents are put as they come, and named by nobody if the archive is wrong.

mod assembly;
mod puts;
#[cfg(test)]
mod tests;

use std::{io::Read, mem, sync::Arc};

use tokio::runtime::Handle;

use self::{
    assembly::{Assembly, Step},
    puts::{LargePut, Put, Puts},
};
use super::Counts;
use crate::{
    castore::{DirectoryError, Name, Node},
    nix::{
        NarHash,
        nar::{HashingReader, NarEvent, NarLimits, NarReadError, NarReader},
    },
    service::{self, blob::BlobService, directory::DirectoryService},
};

/// How many bytes of contents are held at most.
pub const CONTENTS_BYTES_MAX: usize = (puts::UNDER_WAY_MAX + 1) * (BATCH_BYTES_MAX + SMALL_LEN_MAX)
    + (puts::UNDER_WAY_MAX + 1) * (puts::PIECES_WAITING_MAX + 2) * PIECE_LEN;

/// Up to this many bytes, a file is stored together with others.
const SMALL_LEN_MAX: usize = 256 << 10;

/// How much is stored together: so many bytes of contents, names and targets, or a file more.
const BATCH_BYTES_MAX: usize = 1 << 20;

/// How many files, links and ends of directories are dealt with together.
const BATCH_STEPS_MAX: usize = 1024;

/// In which pieces a large file is stored, in bytes.
const PIECE_LEN: usize = 256 << 10;

/// What an archive was found to be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct IngestedNar {
    /// Its contents, which are in the services.
    pub node: Node,
    /// Its length and hash.
    pub nar: NarHash,
    /// How much it holds, and how much of that the store did not have.
    pub counts: Counts,
}

/// Why an archive cannot be ingested.
#[derive(Debug, thiserror::Error)]
pub enum IngestNarError {
    /// It is no archive, or cannot be read to its end.
    #[error(transparent)]
    Archive(#[from] NarReadError),
    /// It is not the one that was announced.
    #[error("the archive has {found:?}, not {expected:?}")]
    Differs {
        /// What was announced.
        expected: NarHash,
        /// What came.
        found: NarHash,
    },
    /// It holds a directory that a store cannot hold.
    #[error("the directory \"{path}\" of the archive: {source}")]
    Directory {
        /// Which directory, as names between slashes, escaped. Empty for the root.
        path: String,
        /// What is wrong with it.
        source: DirectoryError,
    },
    /// The services do not take it.
    #[error("cannot store what is in the archive: {0}")]
    Store(#[from] service::Error),
    /// This program is coming to its end, or a part of it failed.
    #[error("the archive was not stored to its end: the work was stopped")]
    Stopped,
}

/// Stores the contents of the archive that `input` yields, to its end. If it is known which one it should be, `expected`
/// bounds what is read, and whatever else comes is an error before any directory is put.
///
/// Nothing is synced, and no path info is put. Blocks, and must not be called from a task of `runtime`, which drives the
/// services; `tokio::task::spawn_blocking` is the place.
pub fn ingest_nar(
    input: impl Read,
    expected: Option<NarHash>,
    blobs: &Arc<dyn BlobService>,
    directories: &dyn DirectoryService,
    runtime: &Handle,
) -> Result<IngestedNar, IngestNarError> {
    let size_rule = runtime.block_on(directories.size_rule())?;
    let mut limits = NarLimits::default();
    if let Some(expected) = expected {
        limits.archive_bytes_max = limits.archive_bytes_max.min(expected.size);
    }
    let mut hashing = HashingReader::new(input);
    let intake = Intake {
        archive: NarReader::with_limits(&mut hashing, limits),
        assembly: Assembly::new(directories, size_rule, runtime),
        puts: Puts::new(blobs, runtime),
        batch: Batch::default(),
    };
    let assembly = intake.run()?;
    let nar = hashing.finish();
    if let Some(expected) = expected.filter(|expected| *expected != nar) {
        return Err(IngestNarError::Differs { expected, found: nar });
    }
    let (node, counts) = assembly.finish()?;
    Ok(IngestedNar { node, nar, counts })
}

/// Some steps, and the contents of the files among them.
#[derive(Default)]
struct Batch {
    steps: Vec<Step>,
    contents: Vec<u8>,
    /// Where in the contents each file ends.
    ends: Vec<usize>,
    /// How much memory names and targets take.
    names_bytes: usize,
}

/// Takes an archive apart.
struct Intake<'a, R> {
    archive: NarReader<R>,
    assembly: Assembly<'a>,
    puts: Puts<'a>,
    batch: Batch,
}

impl<'a, R: Read> Intake<'a, R> {
    /// Stores all contents and builds all directories. Whatever happens, nothing goes on in the background afterwards.
    fn run(mut self) -> Result<Assembly<'a>, IngestNarError> {
        let read = self.read();
        match read.and_then(|()| self.settle_all()) {
            Ok(()) => Ok(self.assembly),
            Err(error) => {
                self.puts.abandon();
                Err(error)
            }
        }
    }

    fn read(&mut self) -> Result<(), IngestNarError> {
        let mut name = None;
        while let Some(event) = self.archive.next_event()? {
            match event {
                NarEvent::Entry(entry) => {
                    self.batch.names_bytes += entry.as_bytes().len();
                    name = Some(entry);
                }
                NarEvent::Directory => self.step(Step::Begin { name: name.take() })?,
                NarEvent::EndDirectory => self.step(Step::End)?,
                NarEvent::Symlink(target) => {
                    self.batch.names_bytes += target.as_bytes().len();
                    self.step(Step::Symlink { name: name.take(), target })?;
                }
                NarEvent::File { executable, len } => self.file(name.take(), executable, len)?,
            }
        }
        Ok(())
    }

    fn step(&mut self, step: Step) -> Result<(), IngestNarError> {
        self.batch.steps.push(step);
        let bytes = self.batch.contents.len() + self.batch.names_bytes;
        match self.batch.steps.len() >= BATCH_STEPS_MAX || bytes >= BATCH_BYTES_MAX {
            true => self.hand_over(),
            false => Ok(()),
        }
    }

    fn file(
        &mut self,
        name: Option<Name>,
        executable: bool,
        size: u64,
    ) -> Result<(), IngestNarError> {
        let step = Step::File { name, executable, size };
        if size > SMALL_LEN_MAX as u64 {
            self.hand_over()?;
            let mut put = self.puts.begin_large();
            let read = self.large_file(&mut put);
            self.puts.push(vec![step], Put::Large(put));
            return match read? {
                true => self.settle_if_full(),
                // The outcome tells why.
                false => self.settle_all(),
            };
        }
        // The pieces have `size` bytes together, or there is an error.
        self.batch.contents.reserve(size as usize);
        while let Some(piece) = self.archive.contents()? {
            self.batch.contents.extend_from_slice(piece);
        }
        self.batch.ends.push(self.batch.contents.len());
        self.step(step)
    }

    /// Hands on a file piece by piece. `false` if its store does not take it any more.
    fn large_file(&mut self, put: &mut LargePut) -> Result<bool, IngestNarError> {
        let mut waiting = Vec::with_capacity(PIECE_LEN);
        while let Some(mut piece) = self.archive.contents()? {
            while !piece.is_empty() {
                let (now, later) = piece.split_at(piece.len().min(PIECE_LEN - waiting.len()));
                waiting.extend_from_slice(now);
                piece = later;
                if waiting.len() == PIECE_LEN {
                    let full = mem::replace(&mut waiting, Vec::with_capacity(PIECE_LEN));
                    if !put.write(full.into()) {
                        return Ok(false);
                    }
                }
            }
        }
        Ok(put.write(waiting.into()) && put.end())
    }

    /// Lets the contents of the batch be stored.
    fn hand_over(&mut self) -> Result<(), IngestNarError> {
        let Batch { steps, contents, ends, .. } = mem::take(&mut self.batch);
        if steps.is_empty() {
            return Ok(());
        }
        let put = self.puts.begin_small(contents, &ends);
        self.puts.push(steps, put);
        self.settle_if_full()
    }

    fn settle_if_full(&mut self) -> Result<(), IngestNarError> {
        match self.puts.is_full() {
            true => self.settle(),
            false => Ok(()),
        }
    }

    fn settle_all(&mut self) -> Result<(), IngestNarError> {
        self.hand_over()?;
        while !self.puts.is_empty() {
            self.settle()?;
        }
        Ok(())
    }

    /// Waits for what has been under way for longest, and builds what it belongs to.
    fn settle(&mut self) -> Result<(), IngestNarError> {
        let Some((steps, puts)) = self.puts.settle()? else { return Ok(()) };
        self.assembly.add(steps, puts)
    }
}
