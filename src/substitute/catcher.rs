//! Blobs that somebody waits for, caught as their archive passes.

use std::{
    collections::HashMap,
    fs::File,
    io,
    os::unix::fs::FileExt as _,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
};

use bytes::Bytes;
use futures::{StreamExt as _, stream};
use parking_lot::Mutex;
use tokio::sync::oneshot;

use crate::{
    castore::Digest,
    ingest::unnamed_file,
    observe::event,
    service::{
        Error, Result,
        blob::{BlobStream, LocalBlob, LocalPlace, pieces_of},
    },
};

/// A blob that was waited for. It stays readable for as long as this is held.
#[derive(Debug, Clone)]
pub(super) enum Caught {
    /// A short one.
    Contents(Bytes),
    /// A longer one.
    File(LocalBlob),
}

/// Who waits for what. Of one archive on its way.
#[derive(Debug)]
pub(super) struct Catcher {
    /// `None` once nothing passes any more.
    waiting: Mutex<Option<HashMap<Digest, Vec<oneshot::Sender<Caught>>>>>,
    /// Whether long files are also written where they can be caught if nobody keeps them.
    spills: AtomicBool,
}

impl Default for Catcher {
    fn default() -> Self {
        let waiting = Mutex::new(Some(HashMap::new()));
        Catcher { waiting, spills: AtomicBool::new(false) }
    }
}

impl Catcher {
    /// Waits for a blob to pass. An error if it has not by the end of the archive.
    pub(super) fn wait_for(&self, digest: &Digest) -> oneshot::Receiver<Caught> {
        let (send, receive) = oneshot::channel();
        if let Some(waiting) = &mut *self.waiting.lock() {
            waiting.entry(*digest).or_default().push(send);
        }
        receive
    }

    /// From now on a long blob is caught also if the store does not keep it.
    pub(super) fn spill(&self) {
        self.spills.store(true, Relaxed);
    }

    pub(super) fn spills(&self) -> bool {
        let waiting = self.waiting.lock();
        self.spills.load(Relaxed) && waiting.as_ref().is_some_and(|waiting| !waiting.is_empty())
    }

    pub(super) fn is_wanted(&self, digest: &Digest) -> bool {
        self.waiting.lock().as_ref().is_some_and(|waiting| waiting.contains_key(digest))
    }

    /// A blob passes.
    pub(super) fn passes(&self, digest: &Digest, caught: &Caught) {
        let waiting = self.waiting.lock().as_mut().and_then(|waiting| waiting.remove(digest));
        for one in waiting.into_iter().flatten() {
            // It may have given up.
            let _ = one.send(caught.clone());
        }
    }

    /// Nothing passes any more.
    pub(super) fn close(&self) {
        *self.waiting.lock() = None;
    }
}

impl Caught {
    /// Its bytes from `start` on, up to `end` or its end.
    pub(super) fn read(&self, endpoint: &Arc<str>, start: u64, end: u64) -> BlobStream {
        match self {
            Caught::Contents(contents) => pieces_of(contents, &(start..end)),
            Caught::File(blob) => {
                let endpoint = endpoint.clone();
                let failed = move |error| Error::unavailable(&endpoint, error);
                let pieces = blob.pieces(start..end);
                stream::iter(pieces.map(move |piece| piece.map_err(&failed))).boxed()
            }
        }
    }
}

/// A file without a name, for a blob that nobody keeps.
pub(super) struct Spill {
    file: File,
    len: u64,
}

impl Spill {
    /// In the directory for temporary files.
    pub(super) fn new() -> io::Result<Self> {
        Ok(Spill { file: unnamed_file()?, len: 0 })
    }

    pub(super) fn write(&mut self, piece: &[u8]) -> io::Result<()> {
        self.file.write_all_at(piece, self.len)?;
        self.len += piece.len() as u64;
        Ok(())
    }

    pub(super) fn finish(self) -> LocalBlob {
        LocalBlob { file: Arc::new(self.file), place: LocalPlace::Whole, size: self.len }
    }
}

/// An error that is logged, and otherwise as if there were nothing.
pub(super) fn warned<T>(what: &'static str, result: Result<T>) -> Option<T> {
    result.inspect_err(|error| tracing::warn!(event = event::CACHE_FAILED, %error, "{what}")).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn who_waits_gets_the_blob_or_is_told_that_it_does_not_come() {
        let catcher = Catcher::default();
        let (one, other) = (Digest::of(b"one"), Digest::of(b"other"));
        let (first, second) = (catcher.wait_for(&one), catcher.wait_for(&one));
        let never = catcher.wait_for(&other);
        assert!(catcher.is_wanted(&one) && !catcher.spills());
        catcher.spill();
        assert!(catcher.spills());
        catcher.passes(&one, &Caught::Contents(Bytes::from_static(b"one")));
        for caught in [first.await, second.await] {
            assert!(matches!(caught, Ok(Caught::Contents(contents)) if &contents[..] == b"one"));
        }
        assert!(!catcher.is_wanted(&one));
        catcher.close();
        never.await.expect_err("it has not passed");
        // Nor does anything come to those who are late.
        catcher.wait_for(&one).await.expect_err("nothing passes any more");
        assert!(!catcher.spills());
    }

    #[tokio::test]
    async fn what_was_caught_is_read_in_parts() {
        let contents: Vec<u8> = (0..3_000_000u32).map(|number| number as u8).collect();
        let mut spill = Spill::new().expect("there is room");
        for piece in contents.chunks(700_000) {
            spill.write(piece).expect("there is room");
        }
        let endpoint = Arc::from("test");
        for caught in [Caught::File(spill.finish()), Caught::Contents(contents.clone().into())] {
            for range in [
                0..3_000_000,
                5..6,
                1_000_000..2_500_000,
                2_999_999..u64::MAX,
                4_000_000..5_000_000,
            ] {
                let pieces: Vec<_> = caught.read(&endpoint, range.start, range.end).collect().await;
                let read: Vec<u8> =
                    pieces.into_iter().flat_map(|piece| piece.expect("it is there")).collect();
                let end = range.end.min(3_000_000) as usize;
                assert!(read == contents[(range.start as usize).min(end)..end], "{range:?}");
            }
        }
    }
}
