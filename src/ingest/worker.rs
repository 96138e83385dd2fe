//! Reads, hashes and stores files.

use std::{
    fs::File,
    sync::{
        Arc,
        mpsc::{Receiver, Sender, SyncSender},
    },
};

use bytes::Bytes;
use parking_lot::Mutex;
use rustix::{buffer::spare_capacity, io::Errno};
use tokio::runtime::Handle;

use super::{ImportError, Progress, place::Located};
use crate::service::{
    Error,
    blob::{BlobService, Put},
};

/// The pieces in which a large file is read, in bytes.
const PIECE_LEN: usize = 1 << 20;

/// What a worker does at once.
pub(super) enum Job {
    Small(SmallJob),
    Large(LargeJob),
}

/// Files that are read whole, of which there are usually many.
pub(super) struct SmallJob {
    pub(super) files: Vec<Listed>,
    /// Where they go.
    pub(super) done: Sender<Result<Vec<SmallFile>, ImportError>>,
}

/// A file that is read in pieces.
pub(super) struct LargeJob {
    pub(super) file: Listed,
    /// Where its contents go.
    pub(super) pieces: SyncSender<Bytes>,
    /// Where the end is told.
    pub(super) done: Sender<Result<Put, ImportError>>,
}

/// A file to be read.
pub(super) struct Listed {
    pub(super) at: Located,
    /// Its length when it was listed, in bytes.
    pub(super) size: u64,
}

/// A small file that is in the store.
#[derive(Debug)]
pub(super) struct SmallFile {
    pub(super) contents: Bytes,
    pub(super) put: Put,
}

impl Listed {
    fn open(&self) -> Result<File, ImportError> {
        self.at.open_file().map_err(|errno| self.unreadable(errno))
    }

    fn unreadable(&self, errno: Errno) -> ImportError {
        ImportError::Io { what: "read", path: self.at.place.path(), source: errno.into() }
    }

    fn refused(&self, source: Error) -> ImportError {
        ImportError::Store { path: self.at.place.path(), source }
    }

    fn changed(&self, found: u64) -> ImportError {
        ImportError::Changed { path: self.at.place.path(), expected: self.size, found }
    }
}

/// Does jobs until there are no more.
pub(super) fn run(
    jobs: Arc<Mutex<Receiver<Job>>>,
    blobs: &dyn BlobService,
    runtime: &Handle,
    progress: &Progress,
) {
    loop {
        // Held while waiting: the next job goes to one worker, and jobs are taken in their order.
        let Ok(job) = jobs.lock().recv() else { return };
        // Whoever waits for the outcome may have given up.
        match job {
            Job::Small(job) => {
                let result = runtime.block_on(store_small(&job.files, blobs, progress));
                let _ = job.done.send(result);
            }
            Job::Large(LargeJob { file, pieces, done }) => {
                let result = runtime.block_on(store_large(&file, &pieces, blobs, progress));
                // The sequencer asks for the digest once there are no more pieces.
                drop(pieces);
                let _ = done.send(result);
            }
        }
    }
}

/// Reads the files into one buffer, and stores them together.
pub(super) async fn store_small(
    files: &[Listed],
    blobs: &dyn BlobService,
    progress: &Progress,
) -> Result<Vec<SmallFile>, ImportError> {
    let len: u64 = files.iter().map(|file| file.size).sum();
    // One byte more than there should be: a file that grew is found out without another call.
    let mut buffer = Vec::with_capacity(len as usize + 1);
    let mut ends = Vec::with_capacity(files.len());
    for file in files {
        let start = buffer.len();
        let opened = file.open()?;
        loop {
            let more = fill(&opened, &mut buffer).map_err(|errno| file.unreadable(errno))?;
            let found = (buffer.len() - start) as u64;
            if found > file.size || (more == 0 && found < file.size) {
                return Err(file.changed(found));
            }
            // It was asked for more and gave no more.
            if found == file.size {
                break;
            }
        }
        ends.push(buffer.len());
        progress.add_bytes(buffer.len() - start);
    }
    let mut rest = Bytes::from(buffer);
    let mut cut = 0;
    let contents: Vec<Bytes> = ends
        .iter()
        .map(|end| {
            let len = end - cut;
            cut = *end;
            rest.split_to(len)
        })
        .collect();
    let puts = blobs.put_all(contents.clone()).await.map_err(|source| match files {
        [file] => file.refused(source),
        // The store does not say which.
        [first, ..] => ImportError::StoreSome { first: first.at.place.path(), source },
        [] => ImportError::Stopped,
    })?;
    files.iter().for_each(|_| progress.add_file());
    Ok(contents.into_iter().zip(puts).map(|(contents, put)| SmallFile { contents, put }).collect())
}

pub(super) async fn store_large(
    file: &Listed,
    pieces: &SyncSender<Bytes>,
    blobs: &dyn BlobService,
    progress: &Progress,
) -> Result<Put, ImportError> {
    let refused = |source| file.refused(source);
    let opened = file.open()?;
    let mut writer = blobs.writer().await.map_err(refused)?;
    let mut total = 0;
    loop {
        let mut piece = Vec::with_capacity(PIECE_LEN);
        while piece.len() < PIECE_LEN
            && fill(&opened, &mut piece).map_err(|errno| file.unreadable(errno))? > 0
        {}
        total += piece.len() as u64;
        if total > file.size || (piece.len() < PIECE_LEN && total < file.size) {
            return Err(file.changed(total));
        }
        if piece.is_empty() {
            break;
        }
        progress.add_bytes(piece.len());
        let piece = Bytes::from(piece);
        if pieces.send(piece.clone()).is_err() {
            return Err(ImportError::Stopped);
        }
        writer.write(piece).await.map_err(refused)?;
    }
    // Only before the end of the blob can the store tell whether it has it already.
    if let Some(digest) = writer.digest()
        && blobs.has(&digest).await.map_err(refused)?
    {
        progress.add_file();
        return Ok(Put { digest, is_new: false });
    }
    let (digest, _) = writer.finish().await.map_err(refused)?;
    progress.add_file();
    Ok(Put { digest, is_new: true })
}

/// Reads into the room that the buffer has left, of which there is some. Returns how many bytes; 0 at the end.
fn fill(file: &File, buffer: &mut Vec<u8>) -> Result<usize, Errno> {
    rustix::io::retry_on_intr(|| rustix::io::read(file, spare_capacity(buffer)))
}

#[cfg(test)]
pub(super) mod tests {
    use std::{os::unix::ffi::OsStrExt as _, path::Path, sync::mpsc};

    use super::*;
    use crate::{ingest::place::Place, service::blob::SMALL_BLOB_LEN_MAX};

    /// Stores the file at `path` as if it had been listed with `size` bytes.
    pub(in crate::ingest) async fn store(
        path: &Path,
        size: u64,
        blobs: &dyn BlobService,
        progress: &Progress,
    ) -> Result<(), ImportError> {
        let root = Place::root(Bytes::copy_from_slice(path.as_os_str().as_bytes()));
        let file = Listed { at: Located { directory: None, place: root }, size };
        if size <= SMALL_BLOB_LEN_MAX as u64 {
            return store_small(&[file], blobs, progress).await.map(|_| ());
        }
        let (pieces, _contents) = mpsc::sync_channel(64);
        store_large(&file, &pieces, blobs, progress).await.map(|_| ())
    }
}
