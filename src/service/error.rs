//! What can go wrong in a service.

use std::{error::Error as StdError, fmt, io, sync::Arc};

/// Why a service could not do what it was asked. That something is absent is no error: that is `Ok(None)`.
///
/// Cloneable, so that everybody who waits for the same fetch gets the same answer.
#[derive(Debug, Clone, thiserror::Error)]
pub enum Error {
    /// The store cannot be reached, or does not work. Trying again later may help.
    #[error("{endpoint} is unavailable: {source}")]
    Unavailable {
        /// Which service, as the user named it.
        endpoint: Arc<str>,
        /// What happened.
        source: Cause,
    },
    /// It is not here, and nobody may be asked for it.
    #[error("{endpoint} may not be asked while offline ({what})")]
    Offline {
        /// Which service, as the user named it.
        endpoint: Arc<str>,
        /// What would have been asked.
        what: Arc<str>,
    },
    /// No answer came in time.
    #[error("{endpoint} did not answer in time ({what})")]
    TimedOut {
        /// Which service, as the user named it.
        endpoint: Arc<str>,
        /// What was waited for.
        what: Arc<str>,
    },
    /// What the store holds or sent is not what its digest says, or no legal message.
    #[error("{endpoint} holds or sent wrong data: {source}")]
    Corrupt {
        /// Which service, as the user named it.
        endpoint: Arc<str>,
        /// What is wrong, and with which object.
        source: Cause,
    },
    /// What was handed in is not acceptable. Trying again does not help.
    #[error("refused: {0}")]
    Invalid(Cause),
    /// This store does not do that.
    #[error("{endpoint} cannot {what}")]
    Unsupported {
        /// Which service, as the user named it.
        endpoint: Arc<str>,
        /// What it was asked to do.
        what: &'static str,
    },
}

/// The result of a service call.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// The error below, shared.
#[derive(Clone)]
pub struct Cause(Arc<dyn StdError + Send + Sync>);

impl Cause {
    /// Takes any error, or a message.
    pub fn new(error: impl Into<Box<dyn StdError + Send + Sync>>) -> Self {
        Cause(Arc::from(error.into()))
    }

    /// The I/O error below, if it is one.
    pub fn as_io(&self) -> Option<&io::Error> {
        self.0.downcast_ref()
    }
}

impl fmt::Display for Cause {
    /// The whole chain of causes, each once.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut text = self.0.to_string();
        f.write_str(&text)?;
        let mut next = self.0.source();
        while let Some(error) = next {
            let more = error.to_string();
            if !text.contains(&more) {
                write!(f, ": {more}")?;
            }
            text = more;
            next = error.source();
        }
        Ok(())
    }
}

impl fmt::Debug for Cause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.0, f)
    }
}

impl StdError for Cause {}

impl Error {
    /// The store at `endpoint` does not work because of `cause`.
    pub fn unavailable(endpoint: &str, cause: impl Into<Box<dyn StdError + Send + Sync>>) -> Self {
        Error::Unavailable { endpoint: endpoint.into(), source: Cause::new(cause) }
    }

    /// The store at `endpoint` has or sent wrong data.
    pub fn corrupt(endpoint: &str, cause: impl Into<Box<dyn StdError + Send + Sync>>) -> Self {
        Error::Corrupt { endpoint: endpoint.into(), source: Cause::new(cause) }
    }

    /// The caller handed in something that is not acceptable.
    pub fn invalid(cause: impl Into<Box<dyn StdError + Send + Sync>>) -> Self {
        Error::Invalid(Cause::new(cause))
    }
}
