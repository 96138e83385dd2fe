//! Bytes from one thread or task to the next, bounded, with what became of their end.

use std::io::{self, Read};

use bytes::{Buf as _, Bytes};
use tokio::sync::mpsc::{Receiver, Sender, channel};

use crate::service::Error;

/// How many pieces wait to be taken.
const PIECES_MAX: usize = 16;

/// Where bytes go in. Dropped without [`PipeWriter::end`], it makes the reader fail.
#[derive(Debug)]
pub(super) struct PipeWriter(Sender<Piece>);

/// Where they come out. Must not be read by a task.
#[derive(Debug)]
pub(super) struct PipeReader {
    pieces: Receiver<Piece>,
    rest: Bytes,
    ended: bool,
}

#[derive(Debug)]
enum Piece {
    Bytes(Bytes),
    End,
    Failed(io::Error),
}

pub(super) fn pipe() -> (PipeWriter, PipeReader) {
    let (send, pieces) = channel(PIECES_MAX);
    (PipeWriter(send), PipeReader { pieces, rest: Bytes::new(), ended: false })
}

impl PipeWriter {
    /// Hands on bytes. `false` if nobody reads them any more.
    pub(super) async fn write(&self, bytes: Bytes) -> bool {
        self.0.send(Piece::Bytes(bytes)).await.is_ok()
    }

    /// The same, for threads.
    pub(super) fn write_blocking(&self, bytes: Bytes) -> bool {
        self.0.blocking_send(Piece::Bytes(bytes)).is_ok()
    }

    /// Says how it ended.
    pub(super) async fn end(self, outcome: Result<(), Error>) {
        let last = match outcome {
            Ok(()) => Piece::End,
            Err(error) => Piece::Failed(io::Error::other(error)),
        };
        // If nobody reads, nobody needs to know.
        let _ = self.0.send(last).await;
    }

    /// The same, for threads.
    pub(super) fn end_blocking(self, outcome: io::Result<()>) {
        let last = outcome.map_or_else(Piece::Failed, |()| Piece::End);
        let _ = self.0.blocking_send(last);
    }
}

impl Read for PipeReader {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        while self.rest.is_empty() && !self.ended {
            match self.pieces.blocking_recv() {
                Some(Piece::Bytes(bytes)) => self.rest = bytes,
                Some(Piece::End) => self.ended = true,
                Some(Piece::Failed(error)) => return Err(error),
                None => return Err(io::Error::other("it was given up before its end")),
            }
        }
        let len = self.rest.len().min(buffer.len());
        self.rest.copy_to_slice(&mut buffer[..len]);
        Ok(len)
    }
}
