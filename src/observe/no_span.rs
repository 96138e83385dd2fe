//! What `span.rs` is in a build without the feature `otlp`: there are no spans, and all of this is nothing.

use std::{fmt, future::Future};

use tonic::codegen::http::{HeaderMap, Method, StatusCode};

/// Nothing is.
pub fn are_sent() -> bool {
    false
}

/// No span.
#[derive(Debug, Default)]
pub struct Span;

impl Span {
    /// No span.
    pub fn none() -> Self {
        Span
    }

    /// No span.
    pub fn request(_: &'static str, _: impl IntoIterator<Item = (&'static str, u64)>) -> Self {
        Span
    }

    /// No span.
    pub fn operation(
        _: &str,
        _: (&'static str, &'static str),
        _: Option<&dyn fmt::Display>,
    ) -> Self {
        Span
    }

    /// No span.
    pub fn grpc_client(_: &str, _: &str) -> Self {
        Span
    }

    /// No span.
    pub fn grpc_server(_: Option<(&'static str, &'static str)>, _: &HeaderMap) -> Self {
        Span
    }

    /// No span.
    pub fn http_server(
        _: &Method,
        _: &'static str,
        _: Option<&'static str>,
        _: &HeaderMap,
    ) -> Self {
        Span
    }

    /// No span.
    pub fn http_client(_: &Method, _: &str, _: impl fmt::Display) -> Self {
        Span
    }

    /// Takes note of nothing.
    pub fn http_status(&self, _: StatusCode) {}

    /// Tells nothing.
    pub fn inject(&self, _: &mut HeaderMap) {}

    /// Adds nothing.
    pub fn record(&self, _: &'static str, _: u64) {}

    /// Says nothing.
    pub fn flag(&self, _: &'static str) {}

    /// Adds nothing.
    pub fn text(&self, _: &'static str, _: impl fmt::Display) {}

    /// Tells nothing.
    pub fn fail(&self, _: impl fmt::Display) {}

    /// Takes note of nothing.
    pub fn grpc_status(&self, _: &HeaderMap) {}

    /// Makes nothing current.
    pub fn enter(&self) -> Entered {
        Entered
    }

    /// The future itself.
    pub fn around<F: Future>(self, future: F) -> F {
        future
    }

    /// The future itself.
    pub fn covers<F: Future>(&self, future: F) -> F {
        future
    }
}

/// Nothing is current.
#[derive(Debug)]
pub struct Entered;

/// The future itself.
pub fn carried<F: Future>(future: F) -> F {
    future
}

/// The work itself.
pub fn carrying<T>(work: impl FnOnce() -> T) -> impl FnOnce() -> T {
    work
}

/// Tells nothing.
pub fn fail(_: impl fmt::Display) {}
