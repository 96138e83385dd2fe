//! What is counted of the calls of clients.

use std::{
    collections::BTreeMap,
    pin::Pin,
    sync::Once,
    task::{Context, Poll},
    time::{Duration, Instant},
};

use futures::future::BoxFuture;
use parking_lot::Mutex;
use tonic::{
    Code,
    body::Body,
    codegen::{
        Bytes,
        http::{HeaderMap, Request, Response},
    },
};
use tower::{Layer, Service};

use crate::observe::{
    Gauge, Held, Scrape, Snapshot, names, register_once, slow,
    spent::{self, Spent},
    timing,
};

/// The calls that are told apart, under their older names. What else clients may ask for counts as one.
const METHODS: [(&str, &str); 17] = [
    ("tvix.castore.v1.BlobService", "Stat"),
    ("tvix.castore.v1.BlobService", "Read"),
    ("tvix.castore.v1.BlobService", "Put"),
    ("tvix.castore.v1.DirectoryService", "Get"),
    ("tvix.castore.v1.DirectoryService", "Put"),
    ("tvix.store.v1.PathInfoService", "Get"),
    ("tvix.store.v1.PathInfoService", "Put"),
    ("tvix.store.v1.PathInfoService", "CalculateNAR"),
    ("tvix.store.v1.PathInfoService", "List"),
    ("lazystore.v1.BlobRangeService", "Read"),
    ("lazystore.v1.BlobRangeService", "Stat"),
    ("grpc.health.v1.Health", "Check"),
    ("grpc.health.v1.Health", "Watch"),
    ("grpc.health.v1.Health", "List"),
    ("grpc.reflection.v1.ServerReflection", "ServerReflectionInfo"),
    ("grpc.reflection.v1alpha.ServerReflection", "ServerReflectionInfo"),
    ("other", "other"),
];

/// Calls of one kind.
#[derive(Debug, Clone, Default)]
struct Calls {
    by_code: BTreeMap<i32, u64>,
    took: Snapshot,
}

/// By method, as [`METHODS`] counts them.
static CALLS: Mutex<BTreeMap<usize, Calls>> = Mutex::new(BTreeMap::new());
static IN_FLIGHT: Gauge = Gauge::new();

/// Makes the numbers known.
pub(super) fn tell() {
    static TOLD: Once = Once::new();
    register_once(&TOLD, collect);
}

fn collect(scrape: &mut Scrape) {
    scrape.number(&names::GRPC_IN_FLIGHT, &[], IN_FLIGHT.get() as f64);
    for (method, calls) in &*CALLS.lock() {
        let (service, method) = METHODS[*method];
        scrape.durations(&names::GRPC_REQUEST, &[service, method], &calls.took);
        for (code, count) in &calls.by_code {
            let code = format!("{:?}", Code::from_i32(*code));
            scrape.count(&names::GRPC_REQUESTS, &[service, method, &code], *count);
        }
    }
}

/// Which of [`METHODS`] a path names.
fn method_of(path: &str) -> usize {
    let named = path.strip_prefix('/').and_then(|path| path.split_once('/'));
    let found = named.and_then(|named| METHODS.iter().position(|method| *method == named));
    found.unwrap_or(METHODS.len() - 1)
}

/// The method that a path names, if it is told apart from others.
pub(super) fn known_method(path: &str) -> Option<(&'static str, &'static str)> {
    let at = method_of(path);
    (at < METHODS.len() - 1).then(|| METHODS[at])
}

/// Counts calls, their outcome, and how long it takes until their answer begins. It stands where they have their older
/// names, and before whatever refuses them.
#[derive(Debug, Clone, Copy)]
pub(super) struct MeasuredLayer;

impl<S> Layer<S> for MeasuredLayer {
    type Service = MeasuredService<S>;

    fn layer(&self, inner: S) -> MeasuredService<S> {
        tell();
        MeasuredService { inner }
    }
}

/// The service behind the layer.
#[derive(Debug, Clone)]
pub(super) struct MeasuredService<S> {
    inner: S,
}

impl<S, B> Service<Request<B>> for MeasuredService<S>
where
    S: Service<Request<B>, Response = Response<Body>>,
    S::Future: Send + 'static,
{
    type Response = Response<Body>;
    type Error = S::Error;
    type Future = BoxFuture<'static, Result<Response<Body>, S::Error>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(context)
    }

    fn call(&mut self, request: Request<B>) -> Self::Future {
        let call = Call {
            method: method_of(request.uri().path()),
            began: timing::now(),
            code: None,
            _held: IN_FLIGHT.hold(),
        };
        let answer = self.inner.call(request);
        Box::pin(async move {
            let (answer, spent) = spent::watch(answer).await;
            call.begins(spent);
            Ok(call.follow(answer?))
        })
    }
}

/// A call that is under way. Dropped without a code, the client has given it up.
struct Call {
    method: usize,
    began: Option<Instant>,
    code: Option<Code>,
    _held: Held,
}

impl Call {
    /// Its answer begins.
    fn begins(&self, spent: Spent) {
        let Some(took) = self.began.map(|began| began.elapsed()) else { return };
        CALLS.lock().entry(self.method).or_default().took.note(took);
        // What is brought takes as long as the client takes, and who watches waits for ever.
        let (service, method) = METHODS[self.method];
        if matches!(method, "Put" | "Watch" | "ServerReflectionInfo") {
            return;
        }
        if let Some(held_back) = slow::is_told(took) {
            tell_of_slow((service, method), (took, spent), held_back);
        }
    }

    /// Looks for its code: in the head, if there is nothing else, or else at the end.
    fn follow(mut self, answer: Response<Body>) -> Response<Body> {
        self.code = code_in(answer.headers());
        match self.code {
            Some(_) => answer,
            None => answer.map(|body| Body::new(Followed { body, call: self })),
        }
    }
}

impl Drop for Call {
    fn drop(&mut self) {
        let code = self.code.unwrap_or(Code::Cancelled) as i32;
        *CALLS.lock().entry(self.method).or_default().by_code.entry(code).or_default() += 1;
    }
}

fn code_in(headers: &HeaderMap) -> Option<Code> {
    headers.get("grpc-status").map(|code| Code::from_bytes(code.as_bytes()))
}

fn tell_of_slow((service, method): (&str, &str), (took, spent): (Duration, Spent), held_back: u64) {
    slow::tell!(
        {
            operation = "grpc",
            service,
            method,
        },
        took,
        spent,
        held_back
    );
}

/// An answer that is being sent.
struct Followed {
    body: Body,
    call: Call,
}

impl http_body::Body for Followed {
    type Data = Bytes;
    type Error = tonic::Status;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<http_body::Frame<Bytes>, tonic::Status>>> {
        let polled = Pin::new(&mut self.body).poll_frame(context);
        match &polled {
            Poll::Ready(Some(Ok(frame))) => {
                if let Some(code) = frame.trailers_ref().and_then(code_in) {
                    self.call.code = Some(code);
                }
            }
            Poll::Ready(Some(Err(status))) => self.call.code = Some(status.code()),
            Poll::Ready(None) | Poll::Pending => {}
        }
        polled
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> http_body::SizeHint {
        self.body.size_hint()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_known_methods_have_names() {
        let named = |path| METHODS[method_of(path)];
        let read = ("tvix.castore.v1.BlobService", "Read");
        assert_eq!(named("/tvix.castore.v1.BlobService/Read"), read);
        for other in ["", "/", "/x/y", "/other", "tvix.castore.v1.BlobService/Read", "/a/b/c"] {
            assert_eq!(named(other), ("other", "other"), "{other}");
        }
    }
}
