//! Requests as spans, which belong to what their client does.

use std::task::{Context, Poll};

use futures::{
    FutureExt as _,
    future::{BoxFuture, Either},
};
use tonic::{
    body::Body,
    codegen::http::{Request, Response},
};
use tower::{Layer, Service};

use super::measured::known_method;
use crate::observe::{Span, TracedBody, span};

/// Makes a span of each request, if spans are sent somewhere.
#[derive(Debug, Clone, Copy)]
pub(super) struct TraceLayer;

impl<S> Layer<S> for TraceLayer {
    type Service = TraceService<S>;

    fn layer(&self, inner: S) -> TraceService<S> {
        TraceService { inner }
    }
}

/// The service behind the layer.
#[derive(Debug, Clone)]
pub(super) struct TraceService<S> {
    inner: S,
}

impl<S, B> Service<Request<B>> for TraceService<S>
where
    S: Service<Request<B>, Response = Response<Body>>,
    S::Future: Send + 'static,
    S::Error: Send + 'static,
{
    type Response = Response<Body>;
    type Error = S::Error;
    type Future = Either<S::Future, BoxFuture<'static, Result<Response<Body>, S::Error>>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(context)
    }

    fn call(&mut self, request: Request<B>) -> Self::Future {
        if !span::are_sent() {
            return Either::Left(self.inner.call(request));
        }
        let span = Span::grpc_server(known_method(request.uri().path()), request.headers());
        let answer = {
            let _entered = span.enter();
            span::carried(self.inner.call(request))
        };
        let traced = async move {
            let answer = answer.await?;
            // Of one that is nothing but headers.
            span.grpc_status(answer.headers());
            Ok(answer.map(|inner| Body::new(TracedBody::new(inner, span, None))))
        };
        Either::Right(traced.boxed())
    }
}
