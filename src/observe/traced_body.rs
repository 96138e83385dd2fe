//! The body of an HTTP message, which belongs to a span for as long as it moves.

use std::{
    fmt,
    pin::Pin,
    task::{Context, Poll},
};

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};

use super::Span;

/// A body with its span, which is current while what follows is made, and ends with the body. It says how many bytes
/// moved (`lazystore.bytes`), what went wrong, and whether whoever takes it went away before the end
/// (`lazystore.cut_short`).
#[derive(Debug)]
pub struct TracedBody<B> {
    inner: B,
    span: Span,
    /// How many bytes there will be, if that is known.
    len: Option<u64>,
    moved: u64,
    has_ended: bool,
}

impl<B: Body> TracedBody<B> {
    /// The same body. `len` says how many bytes will be taken of it at most, if that is known.
    pub fn new(inner: B, span: Span, len: Option<u64>) -> Self {
        let has_ended = inner.is_end_stream() || len == Some(0);
        TracedBody { inner, span, len, moved: 0, has_ended }
    }
}

impl<B> Body for TracedBody<B>
where
    B: Body<Data = Bytes> + Unpin,
    B::Error: fmt::Display,
{
    type Data = Bytes;
    type Error = B::Error;

    fn poll_frame(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, B::Error>>> {
        let this = self.get_mut();
        let _entered = this.span.enter();
        let polled = Pin::new(&mut this.inner).poll_frame(context);
        match &polled {
            Poll::Pending => {}
            Poll::Ready(None) => this.has_ended = true,
            Poll::Ready(Some(Err(error))) => {
                this.span.fail(error);
                this.has_ended = true;
            }
            Poll::Ready(Some(Ok(frame))) => {
                this.moved += frame.data_ref().map_or(0, |data| data.len() as u64);
                if let Some(trailers) = frame.trailers_ref() {
                    this.span.grpc_status(trailers);
                    this.has_ended = true;
                }
                // Then nobody may ask whether there is more.
                this.has_ended |=
                    this.inner.is_end_stream() || this.len.is_some_and(|len| this.moved >= len);
            }
        }
        polled
    }

    fn is_end_stream(&self) -> bool {
        self.inner.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.inner.size_hint()
    }
}

impl<B> Drop for TracedBody<B> {
    fn drop(&mut self) {
        self.span.record("lazystore.bytes", self.moved);
        if !self.has_ended {
            self.span.flag("lazystore.cut_short");
        }
    }
}
