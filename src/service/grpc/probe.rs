//! Trying a peer that is out of reach, until it answers.

use tokio::time::{Instant, timeout};

use super::{
    GrpcChannel, empty_blob,
    method::BLOB_STAT,
    peers::PeerId,
    status::{Failure, failure},
};
use crate::service::{
    Error,
    circuit::{News, try_until_it_answers},
};

impl GrpcChannel {
    /// Notes that what was waited for since `began` did not come. If that opens the circuit, the peer is tried from now
    /// on, until it answers or nobody has the channel any more. Tells whether it is to be logged.
    pub(super) fn failed(&self, peer: PeerId, began: Instant, error: &Error) -> bool {
        self.0.peers.turn_from(peer);
        match self.0.peers.circuit(peer).failed(began, error) {
            News::None => false,
            News::Failure => true,
            News::Opened => {
                try_until_it_answers(&self.0, move |channel| async move {
                    let channel = GrpcChannel(channel);
                    let answers = channel.is_answering(peer).await;
                    if answers {
                        channel.0.peers.is_back(peer);
                    }
                    answers
                });
                false
            }
        }
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
