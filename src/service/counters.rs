//! What the `metrics` layers count.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use futures::{Stream, StreamExt as _, stream};

use super::Result;
use crate::observe::{
    Histogram, Scrape, names,
    spent::{self, Phase},
    timing,
};

/// Counts of one operation of one service. Counting is some relaxed additions, without locks.
#[derive(Debug, Default)]
pub struct Operation {
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

impl Operation {
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
        phase: Phase,
        call: impl Future<Output = Result<T>>,
    ) -> Result<T> {
        let began = timing::now();
        let result = spent::on(phase, call).await;
        if let Some(began) = began {
            self.took.note(began.elapsed());
        }
        self.ended(result)
    }

    /// The same for a call that may find nothing.
    pub(super) async fn find<T>(
        &self,
        phase: Phase,
        call: impl Future<Output = Result<Option<T>>>,
    ) -> Result<Option<T>> {
        let result = self.run(phase, call).await;
        self.count_absent(&result);
        result
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

/// The same stream, whose time is spent on `phase`.
pub(super) fn spending<T: Send + 'static>(
    phase: Phase,
    items: impl Stream<Item = T> + Send + Unpin + 'static,
) -> impl Stream<Item = T> + Send {
    stream::unfold(items, move |mut items| async move {
        let item = spent::on(phase, items.next()).await?;
        Some((item, items))
    })
}

/// Adds what was counted of the operations of a service to a scrape. Those that never happened are left out.
pub(super) fn collect(
    scrape: &mut Scrape,
    service: &str,
    backend: &str,
    operations: &[(&'static str, &Operation)],
) {
    for (name, operation) in operations {
        let (labels, counts) = ([service, backend, name], operation.counts());
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
