//! What can be wrong with a request, and what clients are told.

use axum::{
    http::{HeaderValue, StatusCode, header},
    response::{IntoResponse, Response},
};

use crate::{render::RenderError, service};

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
    /// The directory of logs cannot be read.
    #[error("cannot read a log: {0}")]
    Log(std::io::Error),
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
            Error::Store(error) => tell_of_store(error),
            Error::Log(error) => {
                tracing::error!(%error, "cannot read a log");
                (StatusCode::INTERNAL_SERVER_ERROR, "the log cannot be read".to_owned())
            }
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
            tracing::error!(%error, "cannot answer a request");
            (StatusCode::SERVICE_UNAVAILABLE, "the store does not work at the moment")
        }
        service::Error::Offline { .. } => {
            tracing::debug!(%error, "cannot answer a request");
            let text = "this is not here, and the store may not ask for it elsewhere";
            (StatusCode::SERVICE_UNAVAILABLE, text)
        }
        service::Error::TimedOut { .. } => {
            tracing::warn!(%error, "cannot answer a request");
            (StatusCode::GATEWAY_TIMEOUT, "the store did not answer in time")
        }
        service::Error::Corrupt { .. } => {
            tracing::error!(%error, "cannot answer a request");
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
            Error::Absent(_) | Error::Store(_) | Error::Log(_) => {}
        }
        response
    }
}
