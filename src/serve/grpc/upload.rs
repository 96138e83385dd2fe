//! What clients stream to us.

use std::time::Duration;

use tonic::{Status, Streaming};

use crate::castore::Digest;

/// How long an upload may stand still.
const UPLOAD_IDLE_TIMEOUT: Duration = Duration::from_secs(60);

/// The next message of an upload; an error once it stands still for too long.
///
/// A client that resets its stream looks here as if it had come to its end: tonic tells no difference. But the
/// connection, which knows, drops the whole call as soon as it gets to run, so it is let run before an end is believed.
pub(super) async fn next<M>(messages: &mut Streaming<M>) -> Result<Option<M>, Status> {
    let next = tokio::time::timeout(UPLOAD_IDLE_TIMEOUT, messages.message()).await;
    let next = next.unwrap_or_else(|_| {
        let seconds = UPLOAD_IDLE_TIMEOUT.as_secs();
        Err(Status::deadline_exceeded(format!("the upload stood still for {seconds} seconds")))
    })?;
    if next.is_none() {
        tokio::task::yield_now().await;
    }
    Ok(next)
}

/// The digest that a request asks for.
pub(super) fn digest(bytes: &[u8]) -> Result<Digest, Status> {
    Digest::try_from(bytes).map_err(|error| Status::invalid_argument(error.to_string()))
}
