//! Spans of what is asked by HTTP, as <https://opentelemetry.io/docs/specs/semconv/http/http-spans/> wants them.

use std::fmt;

use opentelemetry::{
    KeyValue,
    trace::{SpanKind, Status, TraceContextExt as _},
};
use tonic::codegen::http::{HeaderMap, Method, StatusCode};

use super::{OTHER, Parent, Span, TRACER, headers, told};

impl Span {
    /// What a client asks of us: what that is called, and the form of its path. Its headers may tell to which trace that
    /// belongs.
    pub fn http_server(
        method: &Method,
        what: &'static str,
        route: Option<&'static str>,
        headers: &HeaderMap,
    ) -> Self {
        let Some(tracer) = TRACER.get() else { return Span(None) };
        let method = name_of(method);
        let mut attributes = vec![KeyValue::new("http.request.method", method)];
        attributes.extend(route.map(|route| KeyValue::new("http.route", route)));
        let name = format!("{} {what}", if method == OTHER { "HTTP" } else { method });
        let parent = Parent::Known(headers::extract(headers));
        Span::new(name, SpanKind::Server, parent, attributes).begun(tracer)
    }

    /// What we ask of a server, which is called `what`, if it is called anything. Of the URL neither user nor query are
    /// told.
    pub fn http_client(method: &Method, what: &str, url: impl fmt::Display) -> Self {
        let Some(tracer) = TRACER.get() else { return Span(None) };
        let (method, url) = (name_of(method), told::url(url));
        let mut attributes = vec![KeyValue::new("http.request.method", method)];
        attributes.extend(url.server());
        attributes.push(KeyValue::new("url.full", url.full));
        let name = format!("{method} {what}");
        let name = name.trim_end().to_owned();
        Span::new(name, SpanKind::Client, Parent::current(), attributes).begun(tracer)
    }

    /// It is answered so. What is refused is for whoever knows whether that was to be expected.
    pub fn http_status(&self, status: StatusCode) {
        let Some(context) = self.context() else { return };
        let span = context.span();
        span.set_attribute(KeyValue::new("http.response.status_code", i64::from(status.as_u16())));
        if status.is_server_error() {
            span.set_attribute(KeyValue::new("error.type", status.as_str().to_owned()));
            span.set_status(Status::error(""));
        }
    }
}

fn name_of(method: &Method) -> &'static str {
    match *method {
        Method::GET => "GET",
        Method::HEAD => "HEAD",
        Method::PUT => "PUT",
        Method::POST => "POST",
        Method::DELETE => "DELETE",
        Method::OPTIONS => "OPTIONS",
        _ => OTHER,
    }
}
