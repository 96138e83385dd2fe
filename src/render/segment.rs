//! Cuts an archive into segments that can be read apart from each other.

use std::{mem, ops::Range};

use super::{
    RenderError,
    walk::{Step, TreeWalk},
};
use crate::{
    castore::{Digest, NodeRef},
    nix::nar::NarWriter,
};

/// A batch ends once it has so many bytes.
const BATCH_BYTES: u64 = 256 << 10;

/// The longest file that comes in a batch, in bytes.
const BATCH_BLOB_LEN_MAX: u64 = 64 << 10;

/// A part of an archive that is read at once.
#[derive(Debug)]
pub(super) enum Segment {
    /// Small files, and what stands between files.
    Batch(Batch),
    /// The contents of one file.
    Large(Large),
}

/// Small files, and what stands between files: at most [`BATCH_BYTES`] and one file more.
#[derive(Debug)]
pub(super) struct Batch {
    /// All but contents.
    pub(super) framing: Vec<u8>,
    /// The contents that belong into it, in their order.
    pub(super) blobs: Vec<SmallBlob>,
    /// The length with all contents, in bytes.
    pub(super) len: u64,
    /// What of that is wanted.
    pub(super) wanted: Range<usize>,
}

/// A blob in a batch.
#[derive(Debug, Clone, Copy)]
pub(super) struct SmallBlob {
    pub(super) digest: Digest,
    /// In bytes; at most [`BATCH_BLOB_LEN_MAX`].
    pub(super) len: usize,
    /// How much of the framing goes before it, in bytes.
    pub(super) framing_before: usize,
}

/// A blob for itself.
#[derive(Debug, Clone)]
pub(super) struct Large {
    pub(super) digest: Digest,
    /// In bytes.
    pub(super) size: u64,
    /// What of it is wanted.
    pub(super) wanted: Range<u64>,
}

impl Segment {
    /// How many bytes of it are wanted.
    pub(super) fn wanted_len(&self) -> u64 {
        match self {
            Segment::Batch(batch) => batch.wanted.len() as u64,
            Segment::Large(large) => large.wanted.end - large.wanted.start,
        }
    }
}

/// The segments of an archive, in order.
#[derive(Debug)]
pub(super) struct Segments {
    walk: TreeWalk,
    /// Collects the framing of the next batch.
    nar: NarWriter<Vec<u8>>,
    blobs: Vec<SmallBlob>,
    blob_bytes: u64,
    /// Comes behind the batch that is being collected.
    large: Option<(Digest, u64)>,
    /// Where in the archive the next segment begins, in bytes.
    at: u64,
    /// Which bytes of the archive are wanted. What lies outside is not read.
    wanted: Range<u64>,
}

impl Segments {
    pub(super) fn new(walk: TreeWalk, wanted: Range<u64>) -> Result<Self, RenderError> {
        let nar = NarWriter::new(Vec::new())?;
        let (blobs, blob_bytes, large) = (Vec::new(), 0, None);
        Ok(Segments { walk, nar, blobs, blob_bytes, large, at: 0, wanted })
    }

    /// The next segment of which something is wanted. `None` at the end.
    pub(super) async fn next(&mut self) -> Result<Option<Segment>, RenderError> {
        while self.at < self.wanted.end {
            if let Some((digest, size)) = self.large.take() {
                // What follows the contents belongs to the next batch.
                self.nar.end_file()?;
                let wanted = self.advance(size);
                if !wanted.is_empty() {
                    return Ok(Some(Segment::Large(Large { digest, size, wanted })));
                }
                continue;
            }
            self.collect().await?;
            let framing = mem::take(self.nar.get_mut());
            let blobs = mem::take(&mut self.blobs);
            let len = framing.len() as u64 + mem::take(&mut self.blob_bytes);
            if len == 0 && self.large.is_none() {
                return Ok(None);
            }
            let wanted = self.advance(len);
            if !wanted.is_empty() {
                let wanted = wanted.start as usize..wanted.end as usize;
                return Ok(Some(Segment::Batch(Batch { framing, blobs, len, wanted })));
            }
        }
        Ok(None)
    }

    /// Steps over the next `len` bytes. Returns which of them are wanted.
    fn advance(&mut self, len: u64) -> Range<u64> {
        let start = self.wanted.start.saturating_sub(self.at).min(len);
        let end = self.wanted.end.saturating_sub(self.at).min(len);
        self.at = self.at.saturating_add(len);
        start..end
    }

    /// Walks on until there is enough for a batch, a large file comes, or the archive ends.
    async fn collect(&mut self) -> Result<(), RenderError> {
        while self.nar.get_mut().len() as u64 + self.blob_bytes < BATCH_BYTES
            && self.large.is_none()
        {
            let Some(step) = self.walk.next().await? else { break };
            self.take(&step)?;
        }
        Ok(())
    }

    fn take(&mut self, step: &Step) -> Result<(), RenderError> {
        let Some((name, node)) = step.node() else { return Ok(self.nar.end_directory()?) };
        if let Some(name) = name {
            self.nar.entry(name)?;
        }
        match node {
            NodeRef::Directory { .. } => Ok(self.nar.begin_directory()?),
            NodeRef::Symlink { target } => Ok(self.nar.symlink(target)?),
            NodeRef::File { digest, size, executable } => {
                self.nar.begin_file(executable, size)?;
                if size > BATCH_BLOB_LEN_MAX {
                    self.large = Some((digest, size));
                } else if size > 0 {
                    let framing_before = self.nar.get_mut().len();
                    self.blobs.push(SmallBlob { digest, len: size as usize, framing_before });
                    self.blob_bytes += size;
                }
                self.nar.contents_elsewhere(size)?;
                match self.large {
                    Some(_) => Ok(()),
                    None => Ok(self.nar.end_file()?),
                }
            }
        }
    }
}
