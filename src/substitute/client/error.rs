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
