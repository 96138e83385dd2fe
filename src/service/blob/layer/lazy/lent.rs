//! Blobs of which a far store on this machine lends the files.

use std::{ops::Range, sync::Arc};

use futures::{StreamExt as _, stream};

use super::{arriving::Trust as _, fetch::Inner};
use crate::{
    castore::Digest,
    observe::event,
    service::{
        Error,
        blob::{BlobStream, LocalBlob},
        local::offload,
        sharded_lru::ShardedLru,
        single_flight::SingleFlight,
    },
};

/// Blobs of up to this many bytes are not borrowed: a daemon keeps them many to a file, and does not lend that.
const NOT_LENT_LEN_MAX: u64 = 64 << 10;

/// How many files are kept open. One that is not any more is borrowed again when it is read.
const LOANS_MAX: usize = 1024;

/// What has been lent.
#[derive(Debug)]
pub(super) struct Loans {
    files: ShardedLru<Digest, LocalBlob>,
    asking: SingleFlight<Digest, Option<LocalBlob>>,
}

impl Default for Loans {
    fn default() -> Self {
        Loans { files: ShardedLru::new(LOANS_MAX), asking: SingleFlight::default() }
    }
}

impl Inner {
    /// The file of a blob that was borrowed before.
    pub(super) fn lent(&self, digest: &Digest) -> Option<LocalBlob> {
        self.loans.files.get(digest)
    }

    /// Whether files are borrowed: if who has them is believed without proof, and nothing is kept here. What was read of a
    /// store that is kept must be here after the daemon is gone.
    pub(super) fn borrows(&self) -> bool {
        self.near.is_none() && self.trust.believes_chunks()
    }

    /// Borrows the file of a blob of `size` bytes.
    pub(super) async fn borrow(self: &Arc<Self>, digest: &Digest, size: u64) -> Option<LocalBlob> {
        if size <= NOT_LENT_LEN_MAX || !self.borrows() {
            return None;
        }
        if let Some(lent) = self.lent(digest) {
            return Some(lent);
        }
        let (far, digest) = (self.far.clone(), *digest);
        let asked = self.loans.asking.run(digest, || async move { Ok(far.lend(&digest).await) });
        let lent = asked.await.ok().flatten()?;
        if lent.size != size {
            tracing::warn!(
                event = event::CORRUPT,
                %digest,
                size,
                lent = lent.size,
                "a lent file has another length than its directory says"
            );
            return None;
        }
        self.loans.files.insert(digest, lent.clone(), 1);
        Some(lent)
    }
}

/// What errors call the owner of a file.
const LENDER: &str = "the daemon on this machine";

/// A range of a file, read where it may wait for the disk.
pub(super) fn pieces_of_file(lent: &LocalBlob, range: Range<u64>) -> BlobStream {
    let pieces = stream::unfold(Some(lent.pieces(range)), |pieces| async move {
        let mut pieces = pieces?;
        match offload(LENDER, move || Ok((pieces.next(), pieces))).await {
            Ok((piece, pieces)) => {
                let piece = piece?.map_err(|error| Error::unavailable(LENDER, error));
                Some((piece, Some(pieces)))
            }
            Err(error) => Some((Err(error), None)),
        }
    });
    pieces.boxed()
}
