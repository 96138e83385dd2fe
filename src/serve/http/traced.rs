//! Requests as spans, which belong to what their client does, if it says so.

use axum::{
    body::Body,
    http::{HeaderMap, Method, header},
    response::{IntoResponse as _, Response},
};

use super::{error::Error, route::Route};
use crate::observe::{Span, TracedBody, span};

/// A request has come. Of its path nothing is told unless it names what we have: anything may stand there.
pub(super) fn begin(
    method: &Method,
    route: Option<&Route>,
    headers: &HeaderMap,
    path: &str,
) -> Span {
    if !span::are_sent() {
        return Span::none();
    }
    let name = route.map_or("none", Route::name);
    let span = Span::http_server(method, name, route.map(Route::form), headers);
    if route.is_some() {
        span.text("url.path", path);
    }
    span
}

/// Something is wrong with it, or with us.
pub(super) fn refuse(span: &Span, error: Error) -> Response {
    if !span::are_sent() {
        return error.into_response();
    }
    let why = error.to_string();
    let response = error.into_response();
    if response.status().is_server_error() {
        span.fail(why);
    }
    response
}

/// Its answer begins, and the span goes on until all of it is sent, or the client is gone.
pub(super) fn follow(span: Span, method: &Method, response: Response) -> Response {
    if !span::are_sent() {
        return response;
    }
    span.http_status(response.status());
    let len = response.headers().get(header::CONTENT_LENGTH);
    let len = len.and_then(|len| len.to_str().ok()?.parse().ok());
    // Nobody takes what would follow.
    let is_head = *method == Method::HEAD;
    let len = if is_head { Some(0) } else { len };
    response.map(|body| Body::new(TracedBody::new(body, span, len)))
}
