//! Asking several services for the same, one after the other.

use std::{future::Future, sync::Arc};

use super::{Error, Result};

use crate::observe::event;

/// What the first of `all` has that has it, and which one that is. `None` if none has it, and **all have said so**: where
/// one has failed it may be there, and the error of the first that failed is what comes out.
pub(crate) async fn first_that_has<S: ?Sized, T, F>(
    all: &[Arc<S>],
    ask: impl Fn(Arc<S>) -> F,
) -> Result<Option<(usize, T)>>
where
    F: Future<Output = Result<Option<T>>>,
{
    let mut failed = None;
    for (at, one) in all.iter().enumerate() {
        match ask(one.clone()).await {
            Ok(Some(found)) => return Ok(Some((at, found))),
            Ok(None) => {}
            Err(error) => pass_over(error, &mut failed),
        }
    }
    failed.map_or(Ok(None), Err)
}

/// As [`first_that_has`], of what is at hand at once.
pub(crate) fn first_at_hand<S: ?Sized, T>(
    all: &[Arc<S>],
    ask: impl Fn(&S) -> Result<Option<T>>,
) -> Result<Option<T>> {
    let mut failed = None;
    for one in all {
        match ask(one) {
            Ok(Some(found)) => return Ok(Some(found)),
            Ok(None) => {}
            Err(error) => pass_over(error, &mut failed),
        }
    }
    failed.map_or(Ok(None), Err)
}

/// Another may do better: one that refuses to answer us is no more than one that is down. The first error is kept in
/// `failed`.
pub(crate) fn pass_over(error: Error, failed: &mut Option<Error>) {
    match &error {
        Error::Corrupt { .. } => {
            tracing::error!(event = event::CORRUPT, %error, "the next source is asked")
        }
        Error::Invalid(_) => {
            tracing::warn!(event = event::SOURCE_REFUSED, %error, "the next source is asked")
        }
        Error::Unavailable { .. }
        | Error::Offline { .. }
        | Error::TimedOut { .. }
        | Error::Unsupported { .. } => tracing::debug!(%error, "the next source is asked"),
    }
    failed.get_or_insert(error);
}

/// Several services to read from, in turn, and one to write to, or none. What that means for each kind of service is said
/// where it is implemented.
#[derive(Debug)]
pub struct Routed<S: ?Sized> {
    endpoint: Arc<str>,
    pub(super) read: Arc<[Arc<S>]>,
    pub(super) write: Option<Arc<S>>,
}

impl<S: ?Sized> Routed<S> {
    /// Asks those of `read` in this order; what is written goes to `write`. Errors that are not those of a source name
    /// `endpoint`.
    pub fn new(endpoint: &str, read: Vec<Arc<S>>, write: Option<Arc<S>>) -> Self {
        Routed { endpoint: endpoint.into(), read: read.into(), write }
    }

    /// Where what is written goes, if it goes anywhere.
    pub(super) fn target(&self) -> Result<&S> {
        self.write.as_deref().ok_or_else(|| Error::Unsupported {
            endpoint: self.endpoint.clone(),
            what: "take anything: it names no source to write to",
        })
    }
}
