//! Spans: what takes long, and what it belongs to, over the borders of processes. The feature `otlp`.
//!
//! There are spans only while [`super::otlp`] sends them somewhere; until then each function here ends after one look at
//! a flag. A [request](Span::request) becomes a span only when it has to be waited for, so what is at hand costs no span
//! even then.
//!
//! A span is *current* while a future that it is [around](Span::around), or that is [`carried`], is polled; those that
//! begin meanwhile are its children. This is the API of OpenTelemetry and not that of `tracing`: its spans would have to
//! pass the filter of the log, and could not begin in hindsight.
//!
//! `no_span.rs` stands in for this file in a build without the feature.

mod headers;
mod http;
mod told;

use std::{
    borrow::Cow,
    cell::RefCell,
    fmt,
    future::{Future, poll_fn},
    sync::{Arc, OnceLock},
    time::SystemTime,
};

use futures::{FutureExt as _, future::Either};
use opentelemetry::{
    Context, KeyValue,
    trace::{SpanBuilder, SpanKind, Status, TraceContextExt as _, Tracer as _},
};
use opentelemetry_sdk::trace::SdkTracer;
use tonic::{Code, codegen::http::HeaderMap};

pub(super) use told::told;

/// What any method is called that we do not know: clients may send what they want.
const OTHER: &str = "_OTHER";

/// Set once spans are sent somewhere.
static TRACER: OnceLock<SdkTracer> = OnceLock::new();

thread_local! {
    static CURRENT: RefCell<Option<Arc<Work>>> = const { RefCell::new(None) };
}

/// From now on there are spans.
pub(super) fn begin(tracer: SdkTracer) {
    let _ = TRACER.set(tracer);
}

/// Whether spans are sent anywhere.
pub fn are_sent() -> bool {
    TRACER.get().is_some()
}

/// To what a span belongs.
#[derive(Debug)]
enum Parent {
    /// A span, perhaps of another process; or none.
    Known(Context),
    /// What becomes a span at the latest when this one does.
    Begun(Arc<Work>),
}

impl Parent {
    fn current() -> Self {
        let current = CURRENT.with_borrow(Clone::clone);
        current.map_or_else(|| Parent::Known(Context::new()), Parent::Begun)
    }

    fn context(&self, tracer: &SdkTracer) -> &Context {
        match self {
            Parent::Known(context) => context,
            Parent::Begun(work) => work.context(tracer),
        }
    }
}

/// What a span is about; it may have become none yet.
#[derive(Debug)]
struct Work {
    name: Cow<'static, str>,
    kind: SpanKind,
    parent: Parent,
    began: SystemTime,
    attributes: Vec<KeyValue>,
    /// Once it is a span.
    context: OnceLock<Context>,
}

impl Work {
    fn context(&self, tracer: &SdkTracer) -> &Context {
        self.context.get_or_init(|| {
            let builder = SpanBuilder::from_name(self.name.clone())
                .with_kind(self.kind.clone())
                .with_start_time(self.began)
                .with_attributes(self.attributes.iter().cloned());
            let parent = self.parent.context(tracer);
            parent.with_span(tracer.build_with_context(builder, parent))
        })
    }
}

/// A span, which ends when this is dropped. Nothing, if there are no spans.
#[derive(Debug, Default)]
pub struct Span(Option<Arc<Work>>);

impl Span {
    fn new(
        name: impl Into<Cow<'static, str>>,
        kind: SpanKind,
        parent: Parent,
        attributes: Vec<KeyValue>,
    ) -> Self {
        let (name, began) = (name.into(), SystemTime::now());
        let context = OnceLock::new();
        Span(Some(Arc::new(Work { name, kind, parent, began, attributes, context })))
    }

    /// No span, for what nothing is told of.
    pub fn none() -> Self {
        Span(None)
    }

    /// What somebody has asked of us, at the beginning of a trace.
    pub fn request(
        name: &'static str,
        attributes: impl IntoIterator<Item = (&'static str, u64)>,
    ) -> Self {
        if TRACER.get().is_none() {
            return Span(None);
        }
        let number = |(key, value): (&'static str, u64)| KeyValue::new(key, value as i64);
        let attributes = attributes.into_iter().map(number).collect();
        Span::new(name, SpanKind::Internal, Parent::Known(Context::new()), attributes)
    }

    /// What is asked of a store that is far, which is called `backend`: an operation of a service, about `key`.
    pub fn operation(
        backend: &str,
        (service, operation): (&'static str, &'static str),
        key: Option<&dyn fmt::Display>,
    ) -> Self {
        if TRACER.get().is_none() {
            return Span(None);
        }
        let mut attributes = vec![
            KeyValue::new("lazystore.backend", backend.to_owned()),
            KeyValue::new("lazystore.service", service),
            KeyValue::new("lazystore.operation", operation),
        ];
        attributes.extend(key.map(|key| KeyValue::new("lazystore.key", key.to_string())));
        let name = format!("{backend} {service} {operation}");
        Span::new(name, SpanKind::Internal, Parent::current(), attributes)
    }

    /// What we ask of a server by a gRPC method, `/package.Service/Method`.
    pub fn grpc_client(path: &str, server: &str) -> Self {
        let Some(tracer) = TRACER.get() else { return Span(None) };
        let mut attributes = rpc(path);
        attributes.extend(told::url(server).server());
        Span::new(name_of(path), SpanKind::Client, Parent::current(), attributes).begun(tracer)
    }

    /// What a client asks of us by a method of a service, if we know it. Its headers may tell to which trace that
    /// belongs.
    pub fn grpc_server(method: Option<(&'static str, &'static str)>, headers: &HeaderMap) -> Self {
        let Some(tracer) = TRACER.get() else { return Span(None) };
        let parent = Parent::Known(headers::extract(headers));
        let path = method.map(|(service, method)| format!("{service}/{method}"));
        let (name, attributes) = match path {
            Some(path) => (Cow::Owned(path.clone()), rpc(&path)),
            None => (Cow::Borrowed(OTHER), rpc("")),
        };
        Span::new(name, SpanKind::Server, parent, attributes).begun(tracer)
    }

    fn begun(self, tracer: &SdkTracer) -> Self {
        if let Some(work) = &self.0 {
            work.context(tracer);
        }
        self
    }

    /// Tells a server to which trace its work belongs.
    pub fn inject(&self, headers: &mut HeaderMap) {
        if let Some(context) = self.context() {
            headers::inject(context, headers);
        }
    }

    /// Adds a number.
    pub fn record(&self, key: &'static str, value: u64) {
        if let Some(context) = self.context() {
            context.span().set_attribute(KeyValue::new(key, value as i64));
        }
    }

    /// Says that something is so.
    pub fn flag(&self, key: &'static str) {
        if let Some(context) = self.context() {
            context.span().set_attribute(KeyValue::new(key, true));
        }
    }

    /// Adds a text. It must hold nothing that may not be told.
    pub fn text(&self, key: &'static str, value: impl fmt::Display) {
        if let Some(context) = self.context() {
            context.span().set_attribute(KeyValue::new(key, value.to_string()));
        }
    }

    /// It went wrong. Then it is a span, also if nobody had to wait for that.
    pub fn fail(&self, why: impl fmt::Display) {
        if let (Some(work), Some(tracer)) = (&self.0, TRACER.get()) {
            work.context(tracer).span().set_status(Status::error(told(why)));
        }
    }

    /// Takes note of the status of a gRPC call, if it is among these headers.
    pub fn grpc_status(&self, headers: &HeaderMap) {
        if self.0.is_none() {
            return;
        }
        let status = headers.get("grpc-status").and_then(|status| status.to_str().ok());
        let Some(code) = status.and_then(|status| status.parse::<u16>().ok()) else { return };
        self.record("rpc.grpc.status_code", code.into());
        match Code::from(i32::from(code)) {
            // That there is nothing is an answer like others.
            Code::Ok | Code::NotFound => {}
            code => self.fail(code),
        }
    }

    fn context(&self) -> Option<&Context> {
        self.0.as_ref()?.context.get()
    }

    /// Makes it current until what is returned is dropped.
    pub fn enter(&self) -> Entered {
        Entered(self.0.clone().map(|work| CURRENT.replace(Some(work))))
    }

    /// It is current while `future` is polled, and ends with it. A request becomes a span when it has to wait.
    pub fn around<F: Future>(self, future: F) -> impl Future<Output = F::Output> {
        match self.0 {
            None => Either::Left(future),
            Some(_) => Either::Right(Box::pin(async move { self.covers(future).await })),
        }
    }

    /// The same, and it goes on.
    pub fn covers<F: Future>(&self, future: F) -> impl Future<Output = F::Output> {
        match self.0 {
            None => Either::Left(future),
            Some(_) => Either::Right(self.covered(Box::pin(future))),
        }
    }

    async fn covered<F: Future + Unpin>(&self, mut future: F) -> F::Output {
        poll_fn(|context| {
            let _entered = self.enter();
            let polled = future.poll_unpin(context);
            if let (true, Some(work), Some(tracer)) = (polled.is_pending(), &self.0, TRACER.get()) {
                work.context(tracer);
            }
            polled
        })
        .await
    }
}

impl Drop for Span {
    fn drop(&mut self) {
        if let Some(context) = self.context() {
            context.span().end();
        }
    }
}

/// While this lives, a span is current.
#[derive(Debug)]
pub struct Entered(Option<Option<Arc<Work>>>);

impl Drop for Entered {
    fn drop(&mut self) {
        if let Some(before) = self.0.take() {
            CURRENT.set(before);
        }
    }
}

/// `future`, as part of what is current now, wherever it is polled.
pub fn carried<F: Future>(future: F) -> impl Future<Output = F::Output> {
    let Some(work) = TRACER.get().and_then(|_| CURRENT.with_borrow(Clone::clone)) else {
        return Either::Left(future);
    };
    let mut future = Box::pin(future);
    Either::Right(poll_fn(move |context| {
        let _entered = Entered(Some(CURRENT.replace(Some(work.clone()))));
        future.poll_unpin(context)
    }))
}

/// `work`, as part of what is current now, on whatever thread it is done.
pub fn carrying<T>(work: impl FnOnce() -> T) -> impl FnOnce() -> T {
    let current = TRACER.get().and_then(|_| CURRENT.with_borrow(Clone::clone));
    move || {
        let _entered = Entered(current.map(|current| CURRENT.replace(Some(current))));
        work()
    }
}

/// What is current went wrong.
pub fn fail(why: impl fmt::Display) {
    if TRACER.get().is_some() {
        CURRENT.with_borrow(|current| {
            if let Some(context) = current.as_ref().and_then(|work| work.context.get()) {
                context.span().set_status(Status::error(told(why)));
            }
        });
    }
}

fn name_of(path: &str) -> String {
    path.trim_start_matches('/').to_owned()
}

/// As <https://opentelemetry.io/docs/specs/semconv/rpc/grpc/> wants it.
fn rpc(path: &str) -> Vec<KeyValue> {
    let mut attributes = vec![KeyValue::new("rpc.system", "grpc")];
    if let Some((service, method)) = path.trim_start_matches('/').split_once('/') {
        attributes.push(KeyValue::new("rpc.service", service.to_owned()));
        attributes.push(KeyValue::new("rpc.method", method.to_owned()));
    }
    attributes
}

#[cfg(test)]
mod tests {
    use tonic::codegen::http::{HeaderMap, Method, StatusCode};

    use super::*;

    /// What nobody may look at.
    struct Unseen;

    impl fmt::Display for Unseen {
        fn fmt(&self, _: &mut fmt::Formatter<'_>) -> fmt::Result {
            panic!("it is looked at")
        }
    }

    /// No test of this process sends spans.
    #[tokio::test]
    async fn while_nothing_is_sent_nothing_is_made() {
        assert!(!are_sent());
        let headers = HeaderMap::new();
        for span in [
            Span::operation("backend", ("service", "operation"), Some(&Unseen)),
            Span::http_client(&Method::GET, "what", Unseen),
            Span::http_server(&Method::GET, "what", None, &headers),
            Span::grpc_client("/service/method", "server"),
            Span::grpc_server(Some(("service", "method")), &headers),
            Span::request("what", [("key", 1)]),
        ] {
            assert!(span.0.is_none());
            span.fail(Unseen);
            span.text("key", Unseen);
            span.http_status(StatusCode::INTERNAL_SERVER_ERROR);
            assert_eq!(span.covers(async { carrying(|| 7)() }).await, 7);
            assert_eq!(carried(span.around(async { 7 })).await, 7);
        }
        fail(Unseen);
    }
}
