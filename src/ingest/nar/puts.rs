//! Contents that are being stored.

use std::{collections::VecDeque, sync::Arc};

use bytes::Bytes;
use tokio::{
    runtime::Handle,
    sync::mpsc::{Receiver, Sender, channel},
    task::JoinHandle,
};

use super::{IngestNarError, assembly::Step};
use crate::{
    observe::span::carrying,
    service::{self, blob, blob::BlobService},
};

/// How many batches and large files are under way at once.
pub(super) const UNDER_WAY_MAX: usize = 4;

/// How many pieces of a large file wait for being stored.
pub(super) const PIECES_WAITING_MAX: usize = 4;

/// What is being stored, in the order of the archive.
pub(super) struct Puts<'a> {
    blobs: &'a Arc<dyn BlobService>,
    runtime: &'a Handle,
    under_way: VecDeque<(Vec<Step>, Put)>,
}

/// Some contents that are being stored, by a thread of the runtime that may block.
pub(super) enum Put {
    /// There are none.
    Nothing,
    Small(JoinHandle<service::Result<Vec<blob::Put>>>),
    Large(LargePut),
}

/// A large file on its way.
pub(super) struct LargePut {
    /// Gone once the file is complete.
    pieces: Option<Sender<Piece>>,
    outcome: JoinHandle<service::Result<Option<blob::Put>>>,
}

enum Piece {
    Contents(Bytes),
    /// All have come. Without it, the file is given up.
    End,
}

impl<'a> Puts<'a> {
    pub(super) fn new(blobs: &'a Arc<dyn BlobService>, runtime: &'a Handle) -> Self {
        Puts { blobs, runtime, under_way: VecDeque::new() }
    }

    /// Begins to store files that end at `ends` in `contents`.
    pub(super) fn begin_small(&self, contents: Vec<u8>, ends: &[usize]) -> Put {
        if ends.is_empty() {
            return Put::Nothing;
        }
        let mut rest = Bytes::from(contents);
        let mut cut = 0;
        let files = ends.iter().map(|end| {
            let len = end - cut;
            cut = *end;
            rest.split_to(len)
        });
        let files: Vec<Bytes> = files.collect();
        let (blobs, runtime) = (self.blobs.clone(), self.runtime.clone());
        let put = move || runtime.block_on(blobs.put_all(files));
        Put::Small(self.runtime.spawn_blocking(carrying(put)))
    }

    /// Begins to store a file that comes in pieces.
    pub(super) fn begin_large(&self) -> LargePut {
        let (pieces, incoming) = channel(PIECES_WAITING_MAX);
        let (blobs, runtime) = (self.blobs.clone(), self.runtime.clone());
        let put = move || runtime.block_on(put_large(&*blobs, incoming));
        LargePut { pieces: Some(pieces), outcome: self.runtime.spawn_blocking(carrying(put)) }
    }

    pub(super) fn push(&mut self, steps: Vec<Step>, put: Put) {
        self.under_way.push_back((steps, put));
    }

    pub(super) fn is_full(&self) -> bool {
        self.under_way.len() > UNDER_WAY_MAX
    }

    pub(super) fn is_empty(&self) -> bool {
        self.under_way.is_empty()
    }

    /// Waits for what has been under way for longest.
    #[allow(clippy::type_complexity)] // Steps, and what became of the contents of the files among them.
    pub(super) fn settle(&mut self) -> Result<Option<(Vec<Step>, Vec<blob::Put>)>, IngestNarError> {
        let Some((steps, put)) = self.under_way.pop_front() else { return Ok(None) };
        let puts = match put {
            Put::Nothing => Vec::new(),
            Put::Small(outcome) => self.wait(outcome)?,
            Put::Large(put) => {
                drop(put.pieces);
                vec![self.wait(put.outcome)?.ok_or(IngestNarError::Stopped)?]
            }
        };
        Ok(Some((steps, puts)))
    }

    fn wait<T>(&self, outcome: JoinHandle<service::Result<T>>) -> Result<T, IngestNarError> {
        let outcome = self.runtime.block_on(outcome);
        Ok(outcome.map_err(|_| IngestNarError::Stopped)??)
    }

    /// Lets what is under way come to its end, and looks at no outcome.
    pub(super) fn abandon(&mut self) {
        while !self.under_way.is_empty() {
            let _ = self.settle();
        }
    }
}

impl LargePut {
    /// Hands on the next piece. `false` if it is taken by nobody any more.
    pub(super) fn write(&mut self, piece: Bytes) -> bool {
        let send = |pieces: &Sender<Piece>| pieces.blocking_send(Piece::Contents(piece));
        self.pieces.as_ref().is_some_and(|pieces| send(pieces).is_ok())
    }

    /// Says that there are no more pieces. `false` if nobody hears it.
    pub(super) fn end(&mut self) -> bool {
        let pieces = self.pieces.take();
        pieces.is_some_and(|pieces| pieces.blocking_send(Piece::End).is_ok())
    }
}

/// Stores what comes, if its end comes too.
async fn put_large(
    blobs: &dyn BlobService,
    mut pieces: Receiver<Piece>,
) -> service::Result<Option<blob::Put>> {
    let mut writer = blobs.writer().await?;
    loop {
        match pieces.recv().await {
            Some(Piece::Contents(piece)) => writer.write(piece).await?,
            Some(Piece::End) => break,
            None => return Ok(None),
        }
    }
    // Only before the end of the blob can the store tell whether it has it already.
    if let Some(digest) = writer.digest()
        && blobs.has(&digest).await?
    {
        return Ok(Some(blob::Put { digest, is_new: false }));
    }
    let (digest, _) = writer.finish().await?;
    Ok(Some(blob::Put { digest, is_new: true }))
}
