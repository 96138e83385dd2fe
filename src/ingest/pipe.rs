//! Bytes from one thread or task to the next, bounded, with what became of their end.

use std::io::{self, Read};

use bytes::{Buf as _, Bytes};
use tokio::sync::mpsc::{Receiver, Sender, channel};

use super::decompress;
use crate::nix::Compression;

/// How many pieces wait to be taken.
const PIECES_MAX: usize = 16;

/// The pieces in which an archive is decompressed, in bytes.
const DECOMPRESSED_PIECE_LEN: usize = 256 << 10;

/// Where bytes go in. Dropped without [`PipeWriter::end`], it makes the reader fail.
#[derive(Debug)]
pub struct PipeWriter(Sender<Piece>);

/// Where they come out. Must not be read by a task.
#[derive(Debug)]
pub struct PipeReader {
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

/// A pipe of at most `PIECES_MAX` pieces.
pub fn pipe() -> (PipeWriter, PipeReader) {
    let (send, pieces) = channel(PIECES_MAX);
    (PipeWriter(send), PipeReader { pieces, rest: Bytes::new(), ended: false })
}

impl PipeWriter {
    /// Hands on bytes. `false` if nobody reads them any more.
    pub async fn write(&self, bytes: Bytes) -> bool {
        self.0.send(Piece::Bytes(bytes)).await.is_ok()
    }

    /// The same, for threads.
    pub fn write_blocking(&self, bytes: Bytes) -> bool {
        self.0.blocking_send(Piece::Bytes(bytes)).is_ok()
    }

    /// Says how it ended.
    pub async fn end(self, outcome: io::Result<()>) {
        let last = outcome.map_or_else(Piece::Failed, |()| Piece::End);
        // If nobody reads, nobody needs to know.
        let _ = self.0.send(last).await;
    }

    /// The same, for threads.
    pub fn end_blocking(self, outcome: io::Result<()>) {
        let last = outcome.map_or_else(Piece::Failed, |()| Piece::End);
        let _ = self.0.blocking_send(last);
    }
}

/// Hands on what is in `input`, decompressed, until nobody wants more. Blocks: for a thread of its own, beside the one
/// that takes the archive.
pub fn decompress_into(compression: Compression, input: impl Read + Send, out: PipeWriter) {
    let read = || {
        let mut archive = decompress(compression, input)?;
        loop {
            let mut piece = Vec::with_capacity(DECOMPRESSED_PIECE_LEN);
            let len =
                archive.by_ref().take(DECOMPRESSED_PIECE_LEN as u64).read_to_end(&mut piece)?;
            if len == 0 {
                return Ok(true);
            }
            if !out.write_blocking(piece.into()) {
                return Ok(false);
            }
        }
    };
    match read() {
        Ok(true) => out.end_blocking(Ok(())),
        Ok(false) => {}
        Err(error) => out.end_blocking(Err(error)),
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
