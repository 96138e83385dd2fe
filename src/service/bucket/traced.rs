//! Each request to an object store as a span, also those that are tried again.

use async_trait::async_trait;
use object_store::{
    ClientOptions,
    client::{
        HttpClient, HttpConnector, HttpError, HttpRequest, HttpResponse, HttpResponseBody,
        HttpService, ReqwestConnector,
    },
};
use tonic::codegen::http::StatusCode;

use crate::observe::{Span, TracedBody, span};

/// Makes clients whose requests are spans, if spans are sent somewhere.
///
/// Nothing is added to a request: what is signed must stay as it is.
#[derive(Debug, Default)]
pub(super) struct TracedConnector(ReqwestConnector);

impl HttpConnector for TracedConnector {
    fn connect(&self, options: &ClientOptions) -> object_store::Result<HttpClient> {
        Ok(HttpClient::new(TracedClient(self.0.connect(options)?)))
    }
}

#[derive(Debug)]
struct TracedClient(HttpClient);

#[async_trait]
impl HttpService for TracedClient {
    async fn call(&self, request: HttpRequest) -> Result<HttpResponse, HttpError> {
        if !span::are_sent() {
            return self.0.execute(request).await;
        }
        let span = Span::http_client(request.method(), "", request.uri());
        let answer = self.0.execute(request).await.inspect_err(|error| span.fail(error))?;
        let status = answer.status();
        span.http_status(status);
        if status.is_client_error() && !is_expected(status) {
            span.fail(status);
        }
        Ok(answer.map(|body| HttpResponseBody::new(TracedBody::new(body, span, None))))
    }
}

/// What is answered of an object that is not there, or is there where none should be.
fn is_expected(status: StatusCode) -> bool {
    matches!(status, StatusCode::NOT_FOUND | StatusCode::CONFLICT | StatusCode::PRECONDITION_FAILED)
}
