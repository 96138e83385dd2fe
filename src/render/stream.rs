//! An archive as a stream of bytes.

use std::{
    collections::VecDeque,
    fmt,
    ops::Range,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
};

use bytes::Bytes;
use futures::{FutureExt as _, Stream, future::BoxFuture};
use tokio::{sync::mpsc, task::AbortHandle};

use super::{
    RenderError, read,
    segment::{Segment, Segments},
    walk::TreeWalk,
};
use crate::{
    castore::Node,
    observe::span::carried,
    service::{blob::BlobService, directory::DirectoryService},
};

/// How many segments are read at once. The first of them is the one that is handed over.
const SEGMENTS_AT_ONCE: usize = 4;

/// How many pieces of a segment wait to be taken.
const PIECES_WAITING_MAX: usize = 2;

/// The bytes of an archive, in pieces, read ahead of whoever takes them.
///
/// Holds up to `SEGMENTS_AT_ONCE` segments, and of each up to three pieces: some 4 MiB, or 12 MiB where a remote
/// store answers with the longest pieces; and the directories on the way to where it is. Nothing is read before it is
/// polled first. Dropped, it ends what it has begun. Needs the context of a tokio runtime.
pub struct NarStream {
    blobs: Arc<dyn BlobService>,
    /// What is read, in its order.
    reading: VecDeque<Reading>,
    next: Next,
}

/// Where the next segment comes from.
enum Next {
    Ready(Box<Segments>),
    Looking(BoxFuture<'static, Looked>),
    /// To be told once all before it was handed over.
    Failed(RenderError),
    Ended,
}

/// The segment that was found, and where those after it come from.
type Looked = (Box<Segments>, Result<Option<Segment>, RenderError>);

/// A segment that is being read.
struct Reading {
    pieces: mpsc::Receiver<Result<Bytes, RenderError>>,
    task: AbortHandle,
    /// How many bytes are still to come.
    left: u64,
}

impl NarStream {
    /// The bytes `wanted` of the archive of `node`: of `0..u64::MAX`, all of them.
    pub fn new(
        blobs: Arc<dyn BlobService>,
        directories: Arc<dyn DirectoryService>,
        node: Node,
        wanted: Range<u64>,
    ) -> Self {
        let next = match Segments::new(TreeWalk::new(directories, node), wanted) {
            Ok(segments) => Next::Ready(Box::new(segments)),
            Err(error) => Next::Failed(error),
        };
        NarStream { blobs, reading: VecDeque::new(), next }
    }

    /// Begins to read segments, as many as may be read at once.
    fn read_ahead(&mut self, context: &mut Context<'_>) {
        while self.reading.len() < SEGMENTS_AT_ONCE {
            let mut looking = match std::mem::replace(&mut self.next, Next::Ended) {
                Next::Ready(mut segments) => async move {
                    let next = segments.next().await;
                    (segments, next)
                }
                .boxed(),
                Next::Looking(looking) => looking,
                ended @ (Next::Failed(_) | Next::Ended) => {
                    self.next = ended;
                    return;
                }
            };
            match looking.poll_unpin(context) {
                Poll::Pending => {
                    self.next = Next::Looking(looking);
                    return;
                }
                Poll::Ready((segments, Ok(Some(segment)))) => {
                    self.next = Next::Ready(segments);
                    self.reading.push_back(Reading::start(self.blobs.clone(), segment));
                }
                Poll::Ready((_, Ok(None))) => {}
                Poll::Ready((_, Err(error))) => self.next = Next::Failed(error),
            }
        }
    }
}

impl Reading {
    fn start(blobs: Arc<dyn BlobService>, segment: Segment) -> Self {
        let left = segment.wanted_len();
        let (sender, pieces) = mpsc::channel(PIECES_WAITING_MAX);
        let task = tokio::spawn(carried(read::read(blobs, segment, sender))).abort_handle();
        Reading { pieces, task, left }
    }
}

impl Drop for Reading {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Stream for NarStream {
    type Item = Result<Bytes, RenderError>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        loop {
            self.read_ahead(context);
            let Some(first) = self.reading.front_mut() else {
                return match std::mem::replace(&mut self.next, Next::Ended) {
                    Next::Failed(error) => Poll::Ready(Some(Err(error))),
                    Next::Ended => Poll::Ready(None),
                    pending @ (Next::Ready(_) | Next::Looking(_)) => {
                        self.next = pending;
                        Poll::Pending
                    }
                };
            };
            let result = match ready!(first.pieces.poll_recv(context)) {
                Some(Ok(piece)) => {
                    first.left = first.left.saturating_sub(piece.len() as u64);
                    Ok(piece)
                }
                None if first.left == 0 => {
                    self.reading.pop_front();
                    continue;
                }
                // Whoever reads has failed without a word.
                None => Err(RenderError::Stopped),
                Some(Err(error)) => Err(error),
            };
            if result.is_err() {
                self.reading.clear();
                self.next = Next::Ended;
            }
            return Poll::Ready(Some(result));
        }
    }
}

impl fmt::Debug for NarStream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("NarStream").field("reading", &self.reading.len()).finish()
    }
}
