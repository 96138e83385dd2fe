//! Reads, hashes and stores files.

use std::{
    fs::File,
    io::{self, Read as _},
    sync::{
        Arc,
        mpsc::{Receiver, Sender, SyncSender},
    },
};

use bytes::Bytes;
use parking_lot::Mutex;
use tokio::runtime::Handle;

use super::{ImportError, Progress, place::Located};
use crate::{
    castore::Digest,
    service::{
        Error,
        blob::{BlobService, SMALL_BLOB_LEN_MAX},
    },
};

/// The pieces in which a large file is read, in bytes.
const PIECE_LEN: usize = 1 << 20;

/// A file to be read.
pub(super) struct FileJob {
    pub(super) at: Located,
    /// Its length when it was listed, in bytes.
    pub(super) size: u64,
    /// Where its contents go: a small file whole, a large one in pieces.
    pub(super) pieces: SyncSender<Bytes>,
    /// Where the end is told.
    pub(super) done: Sender<Result<Stored, ImportError>>,
}

impl FileJob {
    fn unreadable(&self, source: io::Error) -> ImportError {
        ImportError::Io { what: "read", path: self.at.place.path(), source }
    }

    fn refused(&self, source: Error) -> ImportError {
        ImportError::Store { path: self.at.place.path(), source }
    }

    fn changed(&self, found: u64) -> ImportError {
        ImportError::Changed { path: self.at.place.path(), expected: self.size, found }
    }
}

/// The other end of a [`FileJob`].
pub(super) struct Contents {
    pub(super) pieces: Receiver<Bytes>,
    pub(super) digest: Receiver<Result<Stored, ImportError>>,
}

/// A file that is in the store.
pub(super) struct Stored {
    pub(super) digest: Digest,
    /// Whether it was not there before.
    pub(super) is_new: bool,
}

/// Does jobs until there are no more.
pub(super) fn run(
    jobs: Arc<Mutex<Receiver<FileJob>>>,
    blobs: &dyn BlobService,
    runtime: &Handle,
    progress: &Progress,
) {
    loop {
        // Held while waiting: the next job goes to one worker, and jobs are taken in their order.
        let Ok(job) = jobs.lock().recv() else { return };
        let result = runtime.block_on(store(&job, blobs, progress));
        if result.is_ok() {
            progress.add_file();
        }
        let FileJob { pieces, done, .. } = job;
        // The sequencer asks for the digest once there are no more pieces.
        drop(pieces);
        let _ = done.send(result);
    }
}

pub(super) async fn store(
    job: &FileJob,
    blobs: &dyn BlobService,
    progress: &Progress,
) -> Result<Stored, ImportError> {
    let failed = |source| job.unreadable(source);
    let refused = |source| job.refused(source);
    let mut file = job.at.open_file().map_err(|errno| failed(errno.into()))?;
    if job.size > SMALL_BLOB_LEN_MAX as u64 {
        return store_large(job, file, blobs, progress).await;
    }
    // One byte more than there should be: a file that grew is found out without another call.
    let mut contents = vec![0; job.size as usize + 1];
    let len = read_full(&mut file, &mut contents).map_err(failed)?;
    if len as u64 != job.size {
        return Err(job.changed(len as u64));
    }
    contents.truncate(len);
    progress.add_bytes(len);
    let contents = Bytes::from(contents);
    let digest = Digest::of(&contents);
    // Before it is stored: the archive's hash need not wait for that.
    let _ = job.pieces.send(contents.clone());
    let is_new = !blobs.has(&digest).await.map_err(refused)?;
    if is_new {
        blobs.put(contents).await.map_err(refused)?;
    }
    Ok(Stored { digest, is_new })
}

async fn store_large(
    job: &FileJob,
    mut file: File,
    blobs: &dyn BlobService,
    progress: &Progress,
) -> Result<Stored, ImportError> {
    let failed = |source| job.unreadable(source);
    let refused = |source| job.refused(source);
    let mut writer = blobs.writer().await.map_err(refused)?;
    let mut total = 0;
    loop {
        let mut piece = vec![0; PIECE_LEN];
        let len = read_full(&mut file, &mut piece).map_err(failed)?;
        total += len as u64;
        if total > job.size || (len < PIECE_LEN && total < job.size) {
            return Err(job.changed(total));
        }
        if len == 0 {
            break;
        }
        piece.truncate(len);
        progress.add_bytes(len);
        let piece = Bytes::from(piece);
        if job.pieces.send(piece.clone()).is_err() {
            return Err(ImportError::Stopped);
        }
        writer.write(piece).await.map_err(refused)?;
    }
    // Only before the end of the blob can the store tell whether it has it already.
    if let Some(digest) = writer.digest()
        && blobs.has(&digest).await.map_err(refused)?
    {
        return Ok(Stored { digest, is_new: false });
    }
    let (digest, _) = writer.finish().await.map_err(refused)?;
    Ok(Stored { digest, is_new: true })
}

/// Reads until the buffer is full or the file ends.
fn read_full(file: &mut File, buffer: &mut [u8]) -> io::Result<usize> {
    let mut len = 0;
    while len < buffer.len() {
        match file.read(&mut buffer[len..]) {
            Ok(0) => break,
            Ok(more) => len += more,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(len)
}

#[cfg(test)]
pub(super) mod tests {
    use std::{os::unix::ffi::OsStrExt as _, path::Path, sync::mpsc};

    use super::*;
    use crate::ingest::place::Place;

    /// A job for the file at `path`, as if it had been listed with `size` bytes. Nobody minds how far it gets.
    pub(in crate::ingest) fn job(path: &Path, size: u64) -> (FileJob, Contents) {
        let root = Place::root(Bytes::copy_from_slice(path.as_os_str().as_bytes()));
        let at = Located { directory: None, place: root };
        let (pieces, contents) = mpsc::sync_channel(64);
        let (done, digest) = mpsc::channel();
        (FileJob { at, size, pieces, done }, Contents { pieces: contents, digest })
    }
}
