//! Our errors and the status codes of gRPC, in both directions.

use std::{error::Error as StdError, fmt, sync::Arc};

use tonic::{Code, Status};

use super::method::Method;
use crate::{
    observe::event,
    service::{Cause, Error},
};

/// What a peer said instead of an answer.
#[derive(Debug)]
struct Refusal {
    method: &'static str,
    status: Status,
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (code, message) = (self.status.code(), self.status.message());
        write!(f, "{} answered {code:?}: {message}", self.method)
    }
}

impl StdError for Refusal {
    fn source(&self) -> Option<&(dyn StdError + 'static)> {
        self.status.source()
    }
}

/// Whether something is the matter with a peer, by what it answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Failure {
    /// That is its answer.
    None,
    /// It works, but not for this call, or not now.
    Passing,
    /// It cannot be reached, or does not work.
    Unreachable,
}

/// What `status` says about the peer.
pub(crate) fn failure(status: &Status) -> Failure {
    // What comes from the connection has its error below; what comes from the peer has nothing.
    if status.source().is_some() {
        return Failure::Unreachable;
    }
    match status.code() {
        Code::Unavailable => Failure::Unreachable,
        Code::Unknown
        | Code::Internal
        | Code::Cancelled
        | Code::Aborted
        | Code::ResourceExhausted => Failure::Passing,
        Code::Ok
        | Code::NotFound
        | Code::InvalidArgument
        | Code::FailedPrecondition
        | Code::OutOfRange
        | Code::AlreadyExists
        | Code::PermissionDenied
        | Code::Unauthenticated
        | Code::DeadlineExceeded
        | Code::DataLoss
        | Code::Unimplemented => Failure::None,
    }
}

/// What a status that a peer answered means here. That something is not found must have been told apart before,
/// where it is an answer.
pub(super) fn from_status(endpoint: &Arc<str>, method: &Method, status: Status) -> Error {
    let endpoint = endpoint.clone();
    let code = status.code();
    let source = Cause::new(Refusal { method: method.name, status });
    match code {
        Code::InvalidArgument
        | Code::FailedPrecondition
        | Code::AlreadyExists
        | Code::PermissionDenied
        | Code::Unauthenticated => Error::Invalid(source),
        Code::DeadlineExceeded => Error::TimedOut { endpoint, what: method.name.into() },
        // The latter is what a message is called here that is longer than any legal one.
        Code::DataLoss | Code::OutOfRange => Error::Corrupt { endpoint, source },
        Code::Unimplemented => Error::Unsupported { endpoint, what: method.cannot },
        Code::Ok
        | Code::NotFound
        | Code::Unavailable
        | Code::Unknown
        | Code::Internal
        | Code::Cancelled
        | Code::Aborted
        | Code::ResourceExhausted => Error::Unavailable { endpoint, source },
    }
}

/// What we answer if a call ends in `error`. The details of what is wrong on our side, with its local paths and the
/// names of our peers, go to our log and nowhere else.
pub fn to_status(error: &Error) -> Status {
    match error {
        Error::Invalid(cause) => {
            tracing::debug!(%error, "refused a request");
            Status::invalid_argument(cause.to_string())
        }
        Error::Unavailable { .. } => {
            tracing::error!(event = event::REQUEST_FAILED, %error, "cannot answer a request");
            Status::unavailable("the store does not work at the moment")
        }
        Error::Offline { .. } => {
            tracing::debug!(%error, "cannot answer a request");
            Status::unavailable("this is not here, and the store may not ask for it elsewhere")
        }
        Error::TimedOut { .. } => {
            tracing::warn!(event = event::REQUEST_FAILED, %error, "cannot answer a request");
            Status::deadline_exceeded("the store did not answer in time")
        }
        Error::Corrupt { .. } => {
            tracing::error!(event = event::REQUEST_FAILED, %error, "cannot answer a request");
            Status::data_loss("what is stored is not what its digest says")
        }
        Error::Unsupported { .. } => {
            tracing::debug!(%error, "cannot answer a request");
            Status::unimplemented("this store does not do that")
        }
    }
}
