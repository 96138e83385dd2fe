//! How a question can fail.

use crate::service::Error;

/// A question that has no answer.
#[derive(Debug)]
pub(super) enum Failure {
    /// Nothing has come, or it broke off.
    Unreachable(Error),
    /// The server lives, and may do better at another time.
    Passing(Error),
    /// It would say the same again.
    Final(Error),
}

impl Failure {
    /// What is wrong.
    pub(super) fn error(&self) -> &Error {
        match self {
            Failure::Unreachable(error) | Failure::Passing(error) | Failure::Final(error) => error,
        }
    }
}
