//! An answer whose contents are still to come.

use bytes::Bytes;
use reqwest::{Response, StatusCode, header::HeaderMap};

use crate::observe::Span;

/// An answer, with the span of what was asked, which ends with it.
#[derive(Debug)]
pub(super) struct Answer {
    response: Response,
    span: Span,
    bytes: u64,
}

impl Answer {
    pub(super) fn new(response: Response, span: Span) -> Self {
        Answer { response, span, bytes: 0 }
    }

    pub(super) fn status(&self) -> StatusCode {
        self.response.status()
    }

    pub(super) fn headers(&self) -> &HeaderMap {
        self.response.headers()
    }

    /// The next bytes. `None` at the end.
    pub(super) async fn chunk(&mut self) -> reqwest::Result<Option<Bytes>> {
        let chunk = self.response.chunk().await;
        match &chunk {
            Ok(chunk) => self.bytes += chunk.as_ref().map_or(0, |chunk| chunk.len() as u64),
            Err(error) => self.span.fail(error),
        }
        chunk
    }
}

impl Drop for Answer {
    fn drop(&mut self) {
        self.span.record("lazystore.bytes", self.bytes);
    }
}
