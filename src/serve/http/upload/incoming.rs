//! The contents of a request, for a thread that may block.

use std::{
    io::{self, Read},
    time::Duration,
};

use axum::body::Body;
use futures::StreamExt as _;
use sha2::{Digest as _, Sha256};
use tokio::time::timeout;

use crate::ingest::{PipeReader, PipeWriter, pipe};

/// How long a client may send nothing.
const STANDSTILL_MAX: Duration = Duration::from_secs(120);

/// What a client sends, read by a task of its own, ahead of the thread that reads this.
pub(super) fn incoming(body: Body) -> PipeReader {
    let (out, incoming) = pipe();
    tokio::spawn(receive(body, out));
    incoming
}

async fn receive(body: Body, out: PipeWriter) {
    let mut pieces = body.into_data_stream();
    let outcome = loop {
        match timeout(STANDSTILL_MAX, pieces.next()).await {
            Ok(Some(Ok(piece))) => {
                if !out.write(piece).await {
                    return;
                }
            }
            Ok(Some(Err(error))) => break Err(io::Error::other(error)),
            Ok(None) => break Ok(()),
            Err(_) => {
                let text = "the client sends nothing any more";
                break Err(io::Error::new(io::ErrorKind::TimedOut, text));
            }
        }
    };
    out.end(outcome).await;
}

/// Hands on what it reads, and keeps its length and hash.
pub(super) struct Measured<R> {
    input: R,
    sha256: Sha256,
    len: u64,
}

impl<R: Read> Measured<R> {
    pub(super) fn new(input: R) -> Self {
        Measured { input, sha256: Sha256::new(), len: 0 }
    }

    /// The hash and the length of what was read.
    pub(super) fn finish(self) -> ([u8; 32], u64) {
        (self.sha256.finalize().into(), self.len)
    }
}

impl<R: Read> Read for Measured<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let len = self.input.read(buffer)?;
        self.sha256.update(&buffer[..len]);
        self.len += len as u64;
        Ok(len)
    }
}

/// Hands on what it reads, up to a length. More is an error.
pub(super) struct Bounded<R> {
    input: R,
    len_max: u64,
    left: u64,
}

impl<R: Read> Bounded<R> {
    pub(super) fn new(input: R, len_max: u64) -> Self {
        Bounded { input, len_max, left: len_max }
    }
}

impl<R: Read> Read for Bounded<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let len = self.input.read(buffer)?;
        let left = self.left.checked_sub(len as u64);
        self.left = left.ok_or_else(|| {
            let text = format!("archives of more than {} bytes are not taken here", self.len_max);
            io::Error::new(io::ErrorKind::FileTooLarge, text)
        })?;
        Ok(len)
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;

    #[test]
    fn too_much_is_an_error() {
        let mut out = Vec::new();
        assert!(Bounded::new(&b"12345"[..], 5).read_to_end(&mut out).is_ok());
        let error = Bounded::new(&b"123456"[..], 5).read_to_end(&mut out).expect_err("too long");
        assert!(error.to_string().contains("more than 5 bytes"), "{error}");
    }

    #[tokio::test]
    async fn a_body_is_read_to_its_end_or_its_error() {
        let pieces =
            [Ok(Bytes::from_static(b"ab")), Ok(Bytes::new()), Ok(Bytes::from_static(b"c"))];
        let whole = pieces.into_iter().map(|piece: io::Result<Bytes>| piece);
        let broken = [Ok(Bytes::from_static(b"ab")), Err(io::Error::other("cut"))];
        for (body, expected) in [
            (Body::from_stream(futures::stream::iter(whole)), Some("abc")),
            (Body::from_stream(futures::stream::iter(broken)), None),
        ] {
            let mut read_from = incoming(body);
            let read = tokio::task::spawn_blocking(move || {
                let mut text = String::new();
                read_from.read_to_string(&mut text).map(|_| text)
            });
            assert_eq!(read.await.expect("no panic").ok().as_deref(), expected);
        }
    }
}
