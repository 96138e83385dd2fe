//! Proven ranges of blobs that lie here.

use std::{io, ops::Range, sync::Arc};

use bytes::Bytes;

use super::{
    LocalStore,
    offload::offload,
    outboards::{OUTBOARD_ABOVE_LEN, StoredOutboard, hash_blob},
};
use crate::{
    castore::{
        Digest,
        outboard::{Outboard, PIECE_GROUPS_MAX, ProofError, RangeWalk, Tree, prove},
    },
    observe::event,
    service::{
        Error, Result,
        blob::{LocalBlob, Proven, ProvenPiece, prove_contents},
    },
};

/// A range of a long blob on its way out.
struct LocalRange {
    store: Arc<LocalStore>,
    digest: Digest,
    blob: LocalBlob,
    /// What is to come; nothing after an error.
    walk: Option<RangeWalk>,
    outboard: StoredOutboard,
}

impl LocalStore {
    /// The groups of a blob of this store that `range` touches, with their proof.
    pub(crate) async fn prove(
        self: &Arc<Self>,
        digest: &Digest,
        blob: LocalBlob,
        range: &Range<u64>,
    ) -> Result<Proven> {
        if blob.size <= OUTBOARD_ABOVE_LEN {
            let mut contents = vec![0; blob.size as usize];
            let read = blob.read_exact_at(&mut contents, 0);
            read.map_err(|error| Error::unavailable(self.endpoint(), error))?;
            return Ok(prove_contents(self.endpoint(), digest, contents.into(), range));
        }
        let outboard = match self.blobs().open_outboard(digest)? {
            Some(outboard) => outboard,
            None => self.compute_outboard(digest, &blob).await?,
        };
        let tree = Tree::new(blob.size);
        let walk = Some(RangeWalk::new(digest, tree, tree.groups_of(range)));
        let size = blob.size;
        let range = LocalRange { store: self.clone(), digest: *digest, blob, walk, outboard };
        let pieces = futures::stream::unfold(range, |mut range| async move {
            range.next().await.map(|piece| (piece, range))
        });
        Ok(Proven::Range { size, pieces: Box::pin(pieces) })
    }

    /// The whole tree of a blob of this store.
    pub(crate) async fn outboard(
        self: &Arc<Self>,
        digest: &Digest,
        blob: LocalBlob,
    ) -> Result<Bytes> {
        let (store, digest) = (self.clone(), *digest);
        offload(self.endpoint(), move || {
            if let Some(mut stored) = store.blobs().open_outboard(&digest)? {
                let tree = Tree::new(blob.size);
                let mut bytes = blob.size.to_le_bytes().to_vec();
                let mut walk = RangeWalk::new(&digest, tree, 0..tree.groups());
                // In the order of a proof, and here all of it is one.
                if prove(&mut walk, tree.groups(), &mut bytes, |index| stored.node(index)).is_ok() {
                    return Ok(bytes.into());
                }
            }
            Ok(hash(store.endpoint(), &digest, &blob)?.into_bytes().into())
        })
        .await
    }

    /// Hashes a blob and keeps its tree.
    async fn compute_outboard(
        self: &Arc<Self>,
        digest: &Digest,
        blob: &LocalBlob,
    ) -> Result<StoredOutboard> {
        let (store, digest, blob) = (self.clone(), *digest, blob.clone());
        offload(self.endpoint(), move || {
            let outboard = hash(store.endpoint(), &digest, &blob)?;
            store.keep_outboard(&digest, &outboard)?;
            let gone =
                || Error::unavailable(store.endpoint(), format!("lost the tree of {digest}"));
            store.blobs().open_outboard(&digest)?.ok_or_else(gone)
        })
        .await
    }
}

/// The tree of a blob of `endpoint` that has the right contents. Blocks.
fn hash(endpoint: &str, digest: &Digest, blob: &LocalBlob) -> Result<Outboard> {
    let (got, outboard) = hash_blob(blob).map_err(|error| Error::unavailable(endpoint, error))?;
    if got == *digest {
        return Ok(outboard);
    }
    Err(Error::corrupt(endpoint, format!("blob {digest} has the contents of {got}")))
}

impl LocalRange {
    async fn next(&mut self) -> Option<Result<ProvenPiece>> {
        let walk = self.walk.take()?;
        if walk.left().is_empty() {
            return None;
        }
        Some(self.piece(walk).await)
    }

    async fn piece(&mut self, mut walk: RangeWalk) -> Result<ProvenPiece> {
        let before = walk.clone();
        let piece = match self.prove(&mut walk) {
            Err(error) => {
                tracing::warn!(
                    event = event::CACHE_DAMAGED,
                    digest = %self.digest,
                    %error,
                    "computing the tree of a blob again"
                );
                self.outboard = self.store.compute_outboard(&self.digest, &self.blob).await?;
                walk = before;
                self.prove(&mut walk).map_err(|error| {
                    let what = format!("blob {}: {error}", self.digest);
                    Error::corrupt(self.store.endpoint(), what)
                })?
            }
            Ok(piece) => piece,
        };
        self.walk = Some(walk);
        Ok(piece)
    }

    /// The next piece, if the tree and the blob can be read.
    fn prove(&mut self, walk: &mut RangeWalk) -> Result<ProvenPiece, ProofError<io::Error>> {
        let groups = walk.next_groups(PIECE_GROUPS_MAX);
        let mut nodes = Vec::new();
        prove(walk, groups.end, &mut nodes, |index| self.outboard.node(index))?;
        let bytes = Tree::new(self.blob.size).bytes_of(&groups);
        let mut data = vec![0; (bytes.end - bytes.start) as usize];
        self.blob.read_exact_at(&mut data, bytes.start).map_err(ProofError::Read)?;
        Ok(ProvenPiece { nodes: nodes.into(), data: data.into() })
    }
}
