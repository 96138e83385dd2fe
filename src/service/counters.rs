//! What the `metrics` layers count, and what they tell of far stores as spans.

use std::{
    fmt,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
};

use futures::{Stream, StreamExt as _, stream};

use super::Result;
use crate::observe::{
    Histogram, Scrape, Span, names,
    spent::{self, Phase},
    timing,
};

/// Whom a `metrics` layer asks.
#[derive(Debug, Clone)]
pub struct Backend {
    name: Arc<str>,
    phase: Phase,
}

impl Backend {
    /// One that is called `name`. Waiting for it is waiting for `phase`.
    pub fn new(name: &str, phase: Phase) -> Self {
        Backend { name: name.into(), phase }
    }
}

/// Counts of one operation of one service. Counting is some relaxed additions, without locks.
#[derive(Debug, Default)]
pub struct Operation {
    service: &'static str,
    name: &'static str,
    calls: AtomicU64,
    absent: AtomicU64,
    errors: AtomicU64,
    bytes: AtomicU64,
    took: Histogram,
}

/// The counts of an [`Operation`] at one moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Counts {
    /// How often it was called.
    pub calls: u64,
    /// How often the answer was that the object is absent.
    pub absent: u64,
    /// How often it failed, be it at the call or later, in a stream.
    pub errors: u64,
    /// How many bytes of contents went through it.
    pub bytes: u64,
}

/// A call of an operation. Of a far store it is a span, which ends with this.
pub(super) struct Call {
    phase: Phase,
    span: Span,
}

impl Call {
    /// Waits for a part of it.
    async fn wait<T>(&self, part: impl Future<Output = Result<T>>) -> Result<T> {
        let outcome = spent::on(self.phase, self.span.covers(part)).await;
        outcome.inspect_err(|error| self.span.fail(error))
    }

    /// The same stream, as the rest of the call.
    pub(super) fn follow<T: Send + 'static>(
        self,
        items: impl Stream<Item = Result<T>> + Send + Unpin + 'static,
    ) -> impl Stream<Item = Result<T>> + Send {
        stream::unfold((self, items), |(call, mut items)| async move {
            let item = spent::on(call.phase, call.span.covers(items.next())).await?;
            let item = item.inspect_err(|error| call.span.fail(error));
            Some((item, (call, items)))
        })
    }
}

impl Operation {
    /// Nothing was counted yet.
    pub(super) fn new(service: &'static str, name: &'static str) -> Self {
        Operation { service, name, ..Operation::default() }
    }

    /// What it is called.
    pub fn name(&self) -> &'static str {
        self.name
    }

    /// Begins a call. `key` is what it is about, if that is known.
    pub(super) fn begin(&self, backend: &Backend, key: Option<&dyn fmt::Display>) -> Call {
        let span = match backend.phase {
            Phase::Remote => Span::operation(&backend.name, (self.service, self.name), key),
            Phase::Disk | Phase::Verify => Span::none(),
        };
        Call { phase: backend.phase, span }
    }

    /// The counts so far.
    pub fn counts(&self) -> Counts {
        Counts {
            calls: self.calls.load(Relaxed),
            absent: self.absent.load(Relaxed),
            errors: self.errors.load(Relaxed),
            bytes: self.bytes.load(Relaxed),
        }
    }

    /// Waits for a call, and counts it, how long it took and how it ended.
    pub(super) async fn run<T>(
        &self,
        call: &Call,
        answer: impl Future<Output = Result<T>>,
    ) -> Result<T> {
        let began = timing::now();
        let result = call.wait(answer).await;
        if let Some(began) = began {
            self.took.note(began.elapsed());
        }
        self.ended(result)
    }

    /// The same for a call that may find nothing.
    pub(super) async fn find<T>(
        &self,
        call: &Call,
        answer: impl Future<Output = Result<Option<T>>>,
    ) -> Result<Option<T>> {
        let result = self.run(call, answer).await;
        self.count_absent(&result);
        result
    }

    /// Waits for what comes later in a call that was counted before.
    pub(super) async fn go_on<T>(
        &self,
        call: &Call,
        step: impl Future<Output = Result<T>>,
    ) -> Result<T> {
        self.continued(call.wait(step).await)
    }

    /// Counts a call and how it ended.
    pub(super) fn ended<T>(&self, result: Result<T>) -> Result<T> {
        self.calls.fetch_add(1, Relaxed);
        self.continued(result)
    }

    /// Counts a call that may find nothing.
    pub(super) fn found<T>(&self, result: Result<Option<T>>) -> Result<Option<T>> {
        self.count_absent(&result);
        self.ended(result)
    }

    fn count_absent<T>(&self, result: &Result<Option<T>>) {
        if matches!(result, Ok(None)) {
            self.absent.fetch_add(1, Relaxed);
        }
    }

    /// Counts what came later in a call that was counted before.
    pub(super) fn continued<T>(&self, result: Result<T>) -> Result<T> {
        if result.is_err() {
            self.errors.fetch_add(1, Relaxed);
        }
        result
    }

    /// Counts contents.
    pub(super) fn moved(&self, bytes: usize) {
        self.bytes.fetch_add(bytes as u64, Relaxed);
    }
}

/// Adds what was counted of the operations of a service to a scrape. Those that never happened are left out.
pub(super) fn collect(scrape: &mut Scrape, backend: &str, operations: &[&Operation]) {
    for operation in operations {
        let labels = [operation.service, backend, operation.name];
        let counts = operation.counts();
        if counts.calls == 0 {
            continue;
        }
        let took = operation.took.snapshot();
        if took.count() > 0 {
            scrape.durations(&names::SERVICE_OPERATION, &labels, &took);
        }
        scrape.count(&names::SERVICE_ABSENT, &labels, counts.absent);
        scrape.count(&names::SERVICE_ERRORS, &labels, counts.errors);
        scrape.count(&names::SERVICE_BYTES, &labels, counts.bytes);
    }
}
/// A struct of the counts of all operations of one service.
macro_rules! counters {
    ($(#[$attribute:meta])* $counters:ident of $service:literal: $($operation:ident)*) => {
        $(#[$attribute])*
        #[derive(Debug)]
        pub struct $counters {
            $($operation: $crate::service::counters::Operation,)*
        }

        impl Default for $counters {
            fn default() -> Self {
                let operation = |name| $crate::service::counters::Operation::new($service, name);
                $counters { $($operation: operation(stringify!($operation)),)* }
            }
        }

        impl $counters {
            /// Makes the counts known as those of `backend`, for as long as somebody counts.
            pub fn tell(self: &std::sync::Arc<Self>, backend: &str) {
                let (counters, backend) = (std::sync::Arc::downgrade(self), backend.to_owned());
                $crate::observe::register(move |scrape| {
                    let Some(counters) = counters.upgrade() else { return false };
                    $crate::service::counters::collect(scrape, &backend, &counters.operations());
                    true
                });
            }

            /// Each operation.
            pub fn operations(
                &self,
            ) -> [&$crate::service::counters::Operation; [$(stringify!($operation)),*].len()] {
                [$(&self.$operation),*]
            }
        }
    };
}
pub(super) use counters;
