//! The endpoint of `--metrics`: the numbers of this process for Prometheus, over HTTP.
//!
//! | request | answer |
//! | --- | --- |
//! | `metrics` | all numbers |
//! | `healthz` | `ok`: the process answers, whatever it finds |
//! | `` | what is here |
//!
//! Only GET and HEAD are answered, and what a client can cost is bounded: connections, what stands in the head of a
//! request, the time that it takes. No answer names a store path.

use std::{io, time::Duration};

use axum::{
    Router,
    extract::Request,
    http::{HeaderValue, Method, StatusCode, header},
    response::{IntoResponse as _, Response},
};

use super::{
    Listener, Running,
    http::{Limits, serve_router},
};
use crate::observe;

/// What Prometheus calls its text form.
pub(super) const TEXT_FORM: &str = "text/plain; version=0.0.4; charset=utf-8";

const LIMITS: Limits = Limits {
    connections_max: 16,
    head_timeout: Duration::from_secs(10),
    head_bytes_max: 8 << 10,
    connection_streams_max: 4,
};

/// Answers on `listener` until it is told to stop.
pub async fn serve(listener: Listener, running: Running) -> io::Result<()> {
    serve_router(listener, Router::new().fallback(answer), LIMITS, running).await
}

async fn answer(request: Request) -> Response {
    if !matches!(*request.method(), Method::GET | Method::HEAD) {
        let allow = [(header::ALLOW, "GET, HEAD")];
        return (StatusCode::METHOD_NOT_ALLOWED, allow, "only GET and HEAD\n").into_response();
    }
    match request.uri().path() {
        "/metrics" => numbers(),
        "/healthz" => "ok\n".into_response(),
        "/" => concat!(
            "lazystore ",
            env!("CARGO_PKG_VERSION"),
            "\n\n/metrics  numbers for Prometheus\n/healthz  whether this process answers\n"
        )
        .into_response(),
        _ => (StatusCode::NOT_FOUND, "there is /metrics and /healthz here\n").into_response(),
    }
}

/// All numbers.
fn numbers() -> Response {
    text(&observe::scrape())
}

/// The numbers that a client of Nix may see, who is anybody: no addresses of far stores.
pub(super) fn numbers_for_clients() -> Response {
    text(&observe::scrape().without_endpoints())
}

fn text(scrape: &observe::Scrape) -> Response {
    let form = [(header::CONTENT_TYPE, HeaderValue::from_static(TEXT_FORM))];
    (form, scrape.text()).into_response()
}
