//! Calls on their way out, and answers on their way in: a call is a span, as long as its answer comes; bytes are counted,
//! and what the library below cannot bear is taken out.

use std::{
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    task::{Context, Poll, ready},
};

use bytes::{Buf as _, Bytes};
use futures::{FutureExt as _, future::BoxFuture};
use http_body::{Body, Frame, SizeHint};
use tonic::{
    Status,
    codegen::http::{HeaderMap, Request, Response, header::AUTHORIZATION},
    transport::Channel,
};
use tower::Service;

use super::secrets::BearerToken;
use crate::observe::Span;

/// Details of a status. They are of no use here, and tonic panics if they are not in base64.
const DETAILS: &str = "grpc-status-details-bin";

/// How many bytes of an answer have arrived; among the extensions of the answer.
#[derive(Debug, Clone, Default)]
pub(super) struct Arrived(pub(super) Arc<AtomicU64>);

/// A connection behind the guard, and what is shown on it.
#[derive(Debug, Clone)]
pub(super) struct Guarded {
    pub(super) channel: Channel,
    /// Who is at its other end.
    pub(super) endpoint: Arc<str>,
    pub(super) token: Option<BearerToken>,
}

impl Service<Request<tonic::body::Body>> for Guarded {
    type Response = Response<GuardedBody>;
    type Error = tonic::transport::Error;
    type Future = BoxFuture<'static, Result<Self::Response, Self::Error>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        self.channel.poll_ready(context)
    }

    fn call(&mut self, mut request: Request<tonic::body::Body>) -> Self::Future {
        if let Some(token) = &self.token {
            request.headers_mut().insert(AUTHORIZATION, token.header());
        }
        let span = Span::grpc_client(request.uri().path(), &self.endpoint);
        span.inject(request.headers_mut());
        let answer = self.channel.call(request);
        async move {
            let mut answer = answer.await.inspect_err(|error| span.fail(error))?;
            answer.headers_mut().remove(DETAILS);
            span.grpc_status(answer.headers());
            let arrived = Arrived::default();
            answer.extensions_mut().insert(arrived.clone());
            Ok(answer.map(|inner| GuardedBody { inner, arrived, span }))
        }
        .boxed()
    }
}

/// The body of an answer.
#[derive(Debug)]
pub(super) struct GuardedBody {
    inner: tonic::body::Body,
    arrived: Arrived,
    span: Span,
}

impl Drop for GuardedBody {
    fn drop(&mut self) {
        self.span.record("lazystore.bytes", self.arrived.0.load(Relaxed));
    }
}

impl Body for GuardedBody {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        let this = self.get_mut();
        let mut frame = ready!(Pin::new(&mut this.inner).poll_frame(context));
        if let Some(Ok(frame)) = &mut frame {
            if let Some(data) = frame.data_ref() {
                this.arrived.0.fetch_add(data.remaining() as u64, Relaxed);
            }
            if let Some(trailers) = frame.trailers_mut() {
                HeaderMap::remove(trailers, DETAILS);
                this.span.grpc_status(trailers);
            }
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.inner.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.inner.size_hint()
    }
}
