//! Reads the segments of an archive.

use std::{ops::Range, sync::Arc};

use bytes::Bytes;
use futures::{StreamExt as _, TryStreamExt as _};
use tokio::sync::mpsc;

use super::{
    RenderError,
    segment::{Batch, Large, Segment, SmallBlob},
};
use crate::{
    castore::Digest,
    service::{
        self,
        blob::{BlobService, LocalBlob, read_all},
        local::offload,
    },
};

/// How many small blobs of one batch are asked for at once.
const BLOBS_AT_ONCE_MAX: usize = 16;

/// The pieces in which a large blob is read from the disk, in bytes.
const PIECE_LEN: u64 = 256 << 10;

/// Who is told the name of a store in an error knows which one it asked.
const ENDPOINT: &str = "the store";

/// Where the pieces of a segment go.
pub(super) type Pieces = mpsc::Sender<Result<Bytes, RenderError>>;

/// Blobs of a batch that do not lie on this machine, with where in the batch each belongs.
type Missing = Vec<(usize, SmallBlob)>;

/// Reads a segment into `pieces`, until it ends or nobody wants them any more.
pub(super) async fn read(blobs: Arc<dyn BlobService>, segment: Segment, pieces: Pieces) {
    let result = match segment {
        Segment::Batch(batch) => match read_batch(blobs, batch).await {
            Ok(bytes) => send(&pieces, Ok(bytes)).await,
            Err(error) => Err(error),
        },
        Segment::Large(large) => read_large(blobs, &large, &pieces).await,
    };
    if let Err(error) = result {
        let _ = pieces.send(Err(error)).await;
    }
}

/// An error only if nobody takes it, in which case none is needed.
async fn send(pieces: &Pieces, piece: service::Result<Bytes>) -> Result<(), RenderError> {
    let piece = piece.map_err(RenderError::from);
    pieces.send(piece).await.map_err(|_| RenderError::Stopped)
}

async fn read_batch(blobs: Arc<dyn BlobService>, batch: Batch) -> Result<Bytes, RenderError> {
    let wanted = batch.wanted.clone();
    let (mut bytes, missing) = {
        let blobs = blobs.clone();
        offload(ENDPOINT, move || read_local(&*blobs, &batch)).await?
    };
    // What does not lie on this machine.
    let blobs = &*blobs;
    let mut fetched = futures::stream::iter(missing.into_iter().map(|(at, blob)| async move {
        let contents = read_all(blobs, &blob.digest, blob.len).await?;
        let contents = contents.ok_or_else(|| RenderError::missing_blob(&blob.digest))?;
        check_len(&blob.digest, blob.len as u64, contents.len() as u64)?;
        Ok::<_, RenderError>((at, contents))
    }))
    .buffer_unordered(BLOBS_AT_ONCE_MAX);
    while let Some((at, contents)) = fetched.try_next().await? {
        bytes[at..at + contents.len()].copy_from_slice(&contents);
    }
    drop(fetched);
    Ok(Bytes::from(bytes).slice(wanted))
}

/// Fills in what lies on this machine. Returns the rest, with where it belongs.
fn read_local(blobs: &dyn BlobService, batch: &Batch) -> service::Result<(Vec<u8>, Missing)> {
    let mut bytes = vec![0; batch.len as usize];
    let mut missing = Vec::new();
    let (mut at, mut framing_at) = (0, 0);
    let mut frame = |bytes: &mut [u8], at: &mut usize, until: usize| {
        let framing = &batch.framing[framing_at..until];
        bytes[*at..*at + framing.len()].copy_from_slice(framing);
        *at += framing.len();
        framing_at = until;
    };
    for blob in &batch.blobs {
        frame(&mut bytes, &mut at, blob.framing_before);
        let buffer = &mut bytes[at..at + blob.len];
        match blobs.open_local(&blob.digest)? {
            // What is wrong with it is told by those who fetch.
            Some(local) if local.size == blob.len as u64 => {
                if local.read_exact_at(buffer, 0).is_err() {
                    missing.push((at, *blob));
                }
            }
            Some(_) | None => missing.push((at, *blob)),
        }
        at += blob.len;
    }
    frame(&mut bytes, &mut at, batch.framing.len());
    Ok((bytes, missing))
}

async fn read_large(
    blobs: Arc<dyn BlobService>,
    large: &Large,
    pieces: &Pieces,
) -> Result<(), RenderError> {
    let Large { digest, size, wanted } = large;
    let mut at = wanted.start;
    let opening = (blobs.clone(), *digest);
    let local = offload(ENDPOINT, move || opening.0.open_local(&opening.1)).await?;
    if let Some(local) = local.filter(|local| local.size == *size) {
        at = read_disk(local, wanted.clone(), pieces).await?;
    }
    if at == wanted.end {
        return Ok(());
    }
    // Beyond the end of the blob, too: it may have more than its directory says.
    let end = if wanted.end == *size { u64::MAX } else { wanted.end };
    let stream = blobs.read_sized(digest, *size, at..end).await?;
    let mut stream = stream.ok_or_else(|| RenderError::missing_blob(digest))?;
    while let Some(piece) = stream.next().await {
        let piece = piece?;
        at += piece.len() as u64;
        if at > wanted.end {
            break;
        }
        send(pieces, Ok(piece)).await?;
    }
    check_len(digest, wanted.end, at)
}

/// Sends `range` of a blob that lies on this machine. Returns how far it came: less than the end if the disk fails.
async fn read_disk(
    local: LocalBlob,
    range: Range<u64>,
    pieces: &Pieces,
) -> Result<u64, RenderError> {
    let mut at = range.start;
    while at < range.end {
        let len = (range.end - at).min(PIECE_LEN);
        let local = local.clone();
        let read = offload(ENDPOINT, move || {
            let mut piece = vec![0; len as usize];
            Ok(local.read_exact_at(&mut piece, at).map(|()| Bytes::from(piece)))
        });
        let Ok(piece) = read.await? else { break };
        at += len;
        send(pieces, Ok(piece)).await?;
    }
    Ok(at)
}

fn check_len(digest: &Digest, expected: u64, found: u64) -> Result<(), RenderError> {
    match found == expected {
        true => Ok(()),
        false => Err(RenderError::Length { digest: *digest, expected, found }),
    }
}
