//! Blobs: contents of files, addressed by digest.

pub mod backend;
pub mod layer;
mod proven;
mod read_once;

use std::{
    fmt,
    fs::File,
    io,
    ops::Range,
    os::unix::fs::FileExt as _,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
};

use async_trait::async_trait;
use bytes::Bytes;
use futures::{Stream, StreamExt as _, TryStreamExt as _, stream};
use rustix::io::{Errno, ReadWriteFlags};

pub use proven::{
    PROVEN_PIECE_LEN_MAX, Proven, ProvenPiece, ProvenStream, checked, prove_contents,
};
pub use read_once::ReadOnce;

use super::{Error, Result};
use crate::castore::{ChunkList, Digest};

/// Up to this many bytes, a blob is handed over in one piece: by [`BlobService::put`], and by callers that read it
/// whole.
pub const SMALL_BLOB_LEN_MAX: usize = 1 << 20;

/// The longest piece of a blob that a stream yields, in bytes.
pub const BLOB_PIECE_LEN_MAX: usize = 1 << 20;

/// How many blobs [`BlobService::put_all`] puts at once, unless a store does better.
const PUTS_AT_ONCE_MAX: usize = 16;

/// The contents of a range, in order, in pieces of at most [`BLOB_PIECE_LEN_MAX`]. An error ends the stream.
pub type BlobStream = Pin<Box<dyn Stream<Item = Result<Bytes>> + Send>>;

/// A blob that lies on this machine as a plain file or as a part of one, complete and verified, never to be modified.
#[derive(Debug, Clone)]
pub struct LocalBlob {
    /// Open for reading.
    pub file: Arc<File>,
    /// Where in the file the blob is.
    pub place: LocalPlace,
    /// The length in bytes.
    pub size: u64,
}

/// `RWF_DONTCACHE`: what a read brings into the page cache leaves it again.
const DONTCACHE: ReadWriteFlags = ReadWriteFlags::from_bits_retain(0x80);

/// Set once a file system turns out not to know [`DONTCACHE`] (Linux 6.14).
static CANNOT_READ_ONCE: AtomicBool = AtomicBool::new(false);

/// Where in its file a [`LocalBlob`] is.
#[derive(Debug, Clone)]
pub enum LocalPlace {
    /// The file is the blob.
    Whole,
    /// The blob is a part of the file.
    Part {
        /// The byte at which it begins.
        start: u64,
        /// What was read of the file by all who have it open.
        passed: Arc<ReadOnce>,
    },
}

impl LocalBlob {
    /// Fills `buffer` with the bytes from `offset` on. That there are fewer is an error.
    pub fn read_exact_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<()> {
        let start = match self.place {
            LocalPlace::Whole => 0,
            LocalPlace::Part { start, .. } => start,
        };
        self.file.read_exact_at(buffer, start + offset)
    }

    /// The bytes of `range`, cut at its end, in pieces of at most [`BLOB_PIECE_LEN_MAX`], each read when it is asked for.
    /// After an error nothing more comes.
    pub fn pieces(
        &self,
        range: Range<u64>,
    ) -> impl Iterator<Item = io::Result<Bytes>> + Send + use<> {
        let (blob, end) = (self.clone(), range.end.min(self.size));
        let mut at = range.start;
        std::iter::from_fn(move || {
            let len = end.saturating_sub(at).min(BLOB_PIECE_LEN_MAX as u64) as usize;
            if len == 0 {
                return None;
            }
            let mut piece = vec![0; len];
            let read = blob.read_exact_at(&mut piece, at);
            at = if read.is_ok() { at + len as u64 } else { end };
            Some(read.map(|()| piece.into()))
        })
    }

    /// As [`LocalBlob::read_exact_at`], for bytes that whoever gets them will keep: the kernel need not keep them a
    /// second time.
    pub fn read_exact_once_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<()> {
        if let LocalPlace::Part { start, passed } = &self.place {
            self.file.read_exact_at(buffer, start + offset)?;
            passed.passed(&self.file, start + offset, buffer.len());
            return Ok(());
        }
        if CANNOT_READ_ONCE.load(Relaxed) {
            return self.read_exact_at(buffer, offset);
        }
        let mut len = 0;
        while len < buffer.len() {
            let mut rest = [io::IoSliceMut::new(&mut buffer[len..])];
            let at = offset + len as u64;
            match rustix::io::preadv2(&self.file, &mut rest, at, DONTCACHE) {
                Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
                Ok(more) => len += more,
                Err(Errno::INTR) => {}
                Err(Errno::OPNOTSUPP | Errno::INVAL) => {
                    CANNOT_READ_ONCE.store(true, Relaxed);
                    return self.read_exact_at(buffer, offset);
                }
                Err(errno) => return Err(errno.into()),
            }
        }
        Ok(())
    }
}

/// What became of a blob that was put.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Put {
    /// Its digest.
    pub digest: Digest,
    /// Whether it was not there before.
    pub is_new: bool,
}

/// Stores blobs.
///
/// The empty blob ([`Digest::EMPTY`]) is present in every store, without having been put.
#[async_trait]
pub trait BlobService: Send + Sync + fmt::Debug {
    /// Whether the blob is there.
    async fn has(&self, digest: &Digest) -> Result<bool>;

    /// Whether the blob, of `size` bytes, should be brought here: for whoever would have to fetch it in order to put it. It
    /// may be a guess where asking costs more than putting what is there already; that it need not is certain.
    async fn lacks(&self, digest: &Digest, _size: u64) -> Result<bool> {
        self.has(digest).await.map(|there| !there)
    }

    /// The bytes of `range`, cut at the end of the blob; a range beyond it is empty. `None` if the blob is absent.
    ///
    /// What the stream yields has been verified wherever the backend stands for its contents; see the `verify` layer
    /// for those that do not.
    async fn read(&self, digest: &Digest, range: Range<u64>) -> Result<Option<BlobStream>>;

    /// As [`BlobService::read`], for whoever knows that the blob has `size` bytes: from a directory, most often. A store
    /// that fetches blobs in parts spares itself a question then.
    async fn read_sized(
        &self,
        digest: &Digest,
        _size: u64,
        range: Range<u64>,
    ) -> Result<Option<BlobStream>> {
        self.read(digest, range).await
    }

    /// The groups of 16 KiB that `range` touches, with what proves that they are the blob's: see
    /// [`crate::castore::outboard`]. [`Proven::Lacking`] where there is no tree of the blob to prove it with. `None` if
    /// the blob is absent.
    async fn read_proven(&self, digest: &Digest, _range: Range<u64>) -> Result<Option<Proven>> {
        Ok(self.has(digest).await?.then_some(Proven::Lacking))
    }

    /// The BLAKE3 tree of the blob, whole, if it is known and has at most `len_max` bytes: see
    /// [`crate::castore::outboard`].
    async fn outboard(&self, _digest: &Digest, _len_max: u64) -> Result<Option<Bytes>> {
        Ok(None)
    }

    /// How the blob may be read in parts: a list that is empty if there is nothing finer than the blob. `None` if
    /// the blob is absent.
    async fn chunks(&self, digest: &Digest) -> Result<Option<ChunkList>>;

    /// As [`BlobService::chunks`], for whoever knows that the blob has `size` bytes. Some stores spare themselves a
    /// question then.
    async fn chunks_sized(&self, digest: &Digest, _size: u64) -> Result<Option<ChunkList>> {
        self.chunks(digest).await
    }

    /// The blob as an open local file or a part of one, if it is here as such. Does not wait for anything but the local disk.
    fn open_local(&self, digest: &Digest) -> Result<Option<LocalBlob>>;

    /// As [`BlobService::open_local`], for a blob of `size` bytes of which only `range` will be read: the rest of it need
    /// not be here.
    fn open_local_range(
        &self,
        digest: &Digest,
        _size: u64,
        _range: &Range<u64>,
    ) -> Result<Option<LocalBlob>> {
        self.open_local(digest)
    }

    /// The blob as a file that somebody else on this machine answers for, whom the caller has to trust: nothing of it is
    /// checked. `None` for whatever reason.
    async fn lend(&self, _digest: &Digest) -> Option<LocalBlob> {
        None
    }

    /// Whether there is somebody who [lends](BlobService::lend) files, as far as is known at once.
    async fn lends(&self) -> bool {
        false
    }

    /// Takes note that what was read was wrong: where several have the blobs, another is asked from now on.
    fn distrust(&self) {}

    /// Whether several have the blobs, so that one that sent something wrong does not stand for all.
    fn has_others(&self) -> bool {
        false
    }

    /// Whether all that is there lies on this machine.
    fn is_local(&self) -> bool {
        false
    }

    /// Whether what is read of a blob that is not here is here from then on.
    fn keeps_what_is_read(&self) -> bool {
        false
    }

    /// The mean length of the blobs that lie on this machine, in bytes, as far as a quick look at some of them tells.
    /// `None` if there are none, or nobody knows.
    fn mean_local_len(&self) -> Option<u64> {
        None
    }

    /// Stores a blob of at most [`SMALL_BLOB_LEN_MAX`] bytes, unless it is there. Returns once it can be read back.
    async fn put(&self, contents: Bytes) -> Result<Put>;

    /// Stores many blobs, in any order, each as [`BlobService::put`] would. Returns what became of each.
    async fn put_all(&self, contents: Vec<Bytes>) -> Result<Vec<Put>> {
        let puts = contents.into_iter().map(|contents| self.put(contents));
        stream::iter(puts).buffered(PUTS_AT_ONCE_MAX).try_collect().await
    }

    /// Starts a blob of unknown length.
    async fn writer(&self) -> Result<Box<dyn BlobWriter>>;

    /// Returns once everything that was put before survives a power cut, as far as this store can promise that.
    async fn sync(&self) -> Result<()>;
}

/// Takes a blob piece by piece. Dropped before [`BlobWriter::finish`], it leaves nothing behind.
#[async_trait]
pub trait BlobWriter: Send {
    /// Appends.
    async fn write(&mut self, piece: Bytes) -> Result<()>;

    /// The digest of what was written so far, if this writer computes it.
    fn digest(&self) -> Option<Digest> {
        None
    }

    /// Ends the blob and stores it. Returns its digest and its length in bytes, once it can be read back.
    async fn finish(self: Box<Self>) -> Result<(Digest, u64)>;
}

/// The pieces of a range of what is in memory, cut at its end.
pub fn pieces_of(contents: &Bytes, range: &Range<u64>) -> BlobStream {
    let len = contents.len() as u64;
    let end = range.end.min(len);
    // Both fit what is in memory.
    let mut rest = contents.slice(range.start.min(end) as usize..end as usize);
    let pieces = std::iter::from_fn(move || {
        let piece = rest.split_to(rest.len().min(BLOB_PIECE_LEN_MAX));
        (!piece.is_empty()).then_some(Ok(piece))
    });
    stream::iter(pieces).boxed()
}

/// Reads a whole blob of at most `len_max` bytes. `None` if it is absent; longer ones are [`Error::Invalid`].
pub async fn read_all(
    blobs: &dyn BlobService,
    digest: &Digest,
    len_max: usize,
) -> Result<Option<Bytes>> {
    let Some(mut stream) = blobs.read(digest, 0..len_max as u64 + 1).await? else {
        return Ok(None);
    };
    let mut first = Bytes::new();
    let mut all = Vec::new();
    while let Some(piece) = stream.next().await {
        let piece = piece?;
        if first.is_empty() {
            first = piece;
            continue;
        }
        if all.is_empty() {
            all.extend_from_slice(&first);
        }
        all.extend_from_slice(&piece);
    }
    let contents = if all.is_empty() { first } else { all.into() };
    if contents.len() > len_max {
        return Err(Error::invalid(format!("blob {digest} is longer than {len_max} bytes")));
    }
    Ok(Some(contents))
}
