//! What can be wrong with a request, and what clients are told.

use std::io;

use axum::{
    http::{HeaderValue, StatusCode, header},
    response::{IntoResponse, Response},
};

use crate::{
    ingest::IngestNarError,
    nix::{NARINFO_LEN_MAX, NarInfoFileError, StorePath, nar::NarProblem},
    observe::event,
    render::RenderError,
    service,
};

/// Why a request is not answered with what was asked for.
#[derive(Debug, thiserror::Error)]
pub(super) enum Error {
    /// There is nothing by that name.
    #[error("{0} is not here")]
    Absent(String),
    /// It cannot be asked for in this way.
    #[error("only {0} can be asked for that")]
    Method(&'static str),
    /// Nothing of what is wanted is there.
    #[error("it has {0} bytes, and none of them were asked for")]
    Range(u64),
    /// The store failed.
    #[error(transparent)]
    Store(#[from] service::Error),
    /// Only those who know a token may do that.
    #[error(
        "who brings something has to know a token of this cache: as a bearer, or as a password"
    )]
    Token,
    /// A compression that nobody here knows.
    #[error("{0:?} is no .nar, .nar.xz, .nar.zst, .nar.bz2, .nar.br or .nar.lz4")]
    Compression(String),
    /// The contents of a request do not come, or are not compressed as they should be.
    #[error("what was sent cannot be read: {0}")]
    Unreadable(io::Error),
    /// An archive that cannot be stored.
    #[error(transparent)]
    Archive(#[from] IngestNarError),
    /// More than any narinfo has.
    #[error("a narinfo has at most {NARINFO_LEN_MAX} bytes")]
    NarInfoLength,
    /// A listing that is far too long.
    #[error("no listing is that long")]
    ListingLength,
    /// No narinfo.
    #[error(transparent)]
    NarInfo(#[from] NarInfoFileError),
    /// What was brought before is not what is told of it.
    #[error("{0}")]
    Unfit(String),
    /// A narinfo without its archive.
    #[error("the archive {0:?} is not here, or was forgotten: bring it before its narinfo")]
    NoArchive(String),
    /// A path whose references are not here.
    #[error("{store_path} refers to what is not here and did not come in time: {missing}")]
    References {
        /// Which path.
        store_path: StorePath,
        /// Some of its references, with commas.
        missing: String,
    },
    /// Other contents are known by that name.
    #[error("{0} is here already, with other contents")]
    Taken(StorePath),
    /// The directory of logs cannot be read.
    #[error("cannot read a log: {0}")]
    Log(io::Error),
}

impl From<RenderError> for Error {
    fn from(error: RenderError) -> Self {
        Error::Store(error.into_service_error())
    }
}

impl Error {
    /// The status, and what the client is told. The details of what is wrong on our side, with its local paths and
    /// the names of our peers, go to our log and nowhere else.
    fn tell(&self) -> (StatusCode, String) {
        match self {
            Error::Absent(_) => (StatusCode::NOT_FOUND, self.to_string()),
            Error::Method(_) => (StatusCode::METHOD_NOT_ALLOWED, self.to_string()),
            Error::Range(_) => (StatusCode::RANGE_NOT_SATISFIABLE, self.to_string()),
            Error::Token => (StatusCode::UNAUTHORIZED, self.to_string()),
            Error::Compression(_) => (StatusCode::UNSUPPORTED_MEDIA_TYPE, self.to_string()),
            Error::Unreadable(_) | Error::NarInfo(_) => (StatusCode::BAD_REQUEST, self.to_string()),
            Error::Archive(error) => tell_of_archive(error),
            Error::NarInfoLength | Error::ListingLength => {
                (StatusCode::PAYLOAD_TOO_LARGE, self.to_string())
            }
            Error::Unfit(_) => (StatusCode::UNPROCESSABLE_ENTITY, self.to_string()),
            Error::NoArchive(_) | Error::References { .. } | Error::Taken(_) => {
                (StatusCode::CONFLICT, self.to_string())
            }
            Error::Store(error) => tell_of_store(error),
            Error::Log(error) => {
                tracing::error!(event = event::REQUEST_FAILED, %error, "cannot read a log");
                (StatusCode::INTERNAL_SERVER_ERROR, "the log cannot be read".to_owned())
            }
        }
    }
}

fn tell_of_archive(error: &IngestNarError) -> (StatusCode, String) {
    match error {
        IngestNarError::Archive(cause) => match &cause.problem {
            NarProblem::Io(error) if error.kind() == io::ErrorKind::FileTooLarge => {
                (StatusCode::PAYLOAD_TOO_LARGE, error.to_string())
            }
            _ => (StatusCode::BAD_REQUEST, error.to_string()),
        },
        IngestNarError::Differs { .. } | IngestNarError::Directory { .. } => {
            (StatusCode::UNPROCESSABLE_ENTITY, error.to_string())
        }
        IngestNarError::Store(error) => tell_of_store(error),
        IngestNarError::Stopped => {
            tracing::error!(event = event::REQUEST_FAILED, %error, "cannot answer a request");
            (StatusCode::SERVICE_UNAVAILABLE, "the store does not work at the moment".to_owned())
        }
    }
}

fn tell_of_store(error: &service::Error) -> (StatusCode, String) {
    let (status, text) = match error {
        service::Error::Invalid(cause) => {
            tracing::debug!(%error, "refused a request");
            return (StatusCode::UNPROCESSABLE_ENTITY, cause.to_string());
        }
        service::Error::Unavailable { .. } => {
            tracing::error!(event = event::REQUEST_FAILED, %error, "cannot answer a request");
            (StatusCode::SERVICE_UNAVAILABLE, "the store does not work at the moment")
        }
        service::Error::Offline { .. } => {
            tracing::debug!(%error, "cannot answer a request");
            let text = "this is not here, and the store may not ask for it elsewhere";
            (StatusCode::SERVICE_UNAVAILABLE, text)
        }
        service::Error::TimedOut { .. } => {
            tracing::warn!(event = event::REQUEST_FAILED, %error, "cannot answer a request");
            (StatusCode::GATEWAY_TIMEOUT, "the store did not answer in time")
        }
        service::Error::Corrupt { .. } => {
            tracing::error!(event = event::REQUEST_FAILED, %error, "cannot answer a request");
            (StatusCode::INTERNAL_SERVER_ERROR, "what is stored is not what it should be")
        }
        service::Error::Unsupported { .. } => {
            tracing::debug!(%error, "cannot answer a request");
            (StatusCode::NOT_IMPLEMENTED, "this store does not do that")
        }
    };
    (status, text.to_owned())
}

impl IntoResponse for Error {
    fn into_response(self) -> Response {
        let (status, mut text) = self.tell();
        text.push('\n');
        let mut response = (status, text).into_response();
        let headers = response.headers_mut();
        match self {
            Error::Method(allowed) => {
                headers.insert(header::ALLOW, HeaderValue::from_static(allowed));
            }
            Error::Range(size) => {
                let value = HeaderValue::try_from(format!("bytes */{size}"));
                headers.extend(value.ok().map(|value| (header::CONTENT_RANGE, value)));
            }
            Error::Token => {
                let value = HeaderValue::from_static("Basic realm=\"binary cache\"");
                headers.insert(header::WWW_AUTHENTICATE, value);
            }
            Error::Absent(_)
            | Error::Compression(_)
            | Error::Unreadable(_)
            | Error::Archive(_)
            | Error::NarInfoLength
            | Error::ListingLength
            | Error::NarInfo(_)
            | Error::Unfit(_)
            | Error::NoArchive(_)
            | Error::References { .. }
            | Error::Taken(_)
            | Error::Store(_)
            | Error::Log(_) => {}
        }
        response
    }
}
