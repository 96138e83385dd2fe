//! Trying a peer that is out of reach, until it answers.

use std::{sync::Arc, time::Duration};

use tokio::time::{Instant, timeout};

use super::{
    GrpcChannel, empty_blob,
    method::BLOB_STAT,
    peers::PeerId,
    status::{Failure, failure},
};
use crate::service::{Error, circuit::News};

/// How long is paused after the first try that failed; twice as long after each,
const PAUSE_MIN: Duration = Duration::from_secs(1);
/// up to this: so long after a peer is back it may still count as away.
const PAUSE_MAX: Duration = Duration::from_secs(5);

impl GrpcChannel {
    /// Notes that what was waited for since `began` did not come. If that opens the circuit, the peer is tried from now
    /// on, until it answers or nobody has the channel any more. Tells whether it is to be logged.
    pub(super) fn failed(&self, peer: PeerId, began: Instant, error: &Error) -> bool {
        self.0.peers.turn_from(peer);
        match self.0.peers.circuit(peer).failed(began, error) {
            News::None => false,
            News::Failure => true,
            News::Opened => {
                self.try_until_it_answers(peer);
                false
            }
        }
    }

    fn try_until_it_answers(&self, peer: PeerId) {
        let channel = Arc::downgrade(&self.0);
        tokio::spawn(async move {
            let mut pause = PAUSE_MIN;
            while let Some(channel) = channel.upgrade().map(GrpcChannel) {
                if channel.is_answering(peer).await {
                    channel.0.peers.is_back(peer);
                    return;
                }
                drop(channel);
                tokio::time::sleep(pause).await;
                pause = (pause * 2).min(PAUSE_MAX);
            }
        });
    }

    /// Asks something that costs nothing.
    async fn is_answering(&self, peer: PeerId) -> bool {
        let ask = |target| self.ask(&BLOB_STAT, BLOB_STAT.lane, target, empty_blob());
        let answer =
            timeout(self.0.options.deadline, self.in_dialect(&BLOB_STAT, &ask, peer)).await;
        match answer {
            Ok(Ok(_)) => true,
            Ok(Err(status)) => failure(&status) != Failure::Unreachable,
            Err(_) => false,
        }
    }
}
