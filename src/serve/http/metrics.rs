//! What is counted of the requests of clients.

use std::{
    collections::BTreeMap,
    sync::Once,
    time::{Duration, Instant},
};

use axum::http::{Method, StatusCode};
use parking_lot::Mutex;

use crate::observe::{
    Counter, Gauge, Held, Scrape, Snapshot, names, register_once, slow,
    spent::{self, Spent},
    timing,
};

/// Answers to requests of one kind.
#[derive(Debug, Clone, Default)]
struct Answers {
    by_status: BTreeMap<u16, u64>,
    took: Snapshot,
}

/// By route, of which there are few.
static ANSWERS: Mutex<BTreeMap<&'static str, Answers>> = Mutex::new(BTreeMap::new());
static IN_FLIGHT: Gauge = Gauge::new();

/// Of archives, before they are compressed.
pub(super) static NAR_BYTES: Counter = Counter::new();

/// Makes the numbers known.
pub(super) fn tell() {
    static TOLD: Once = Once::new();
    register_once(&TOLD, collect);
}

fn collect(scrape: &mut Scrape) {
    scrape.number(&names::HTTP_IN_FLIGHT, &[], IN_FLIGHT.get() as f64);
    scrape.count(&names::HTTP_NAR_BYTES, &[], NAR_BYTES.get());
    for (route, answers) in &*ANSWERS.lock() {
        scrape.durations(&names::HTTP_REQUEST, &[route], &answers.took);
        for (status, count) in &answers.by_status {
            scrape.count(&names::HTTP_REQUESTS, &[route, &status.to_string()], *count);
        }
    }
}

/// A request that is being answered.
pub(super) struct Answering {
    began: Option<Instant>,
    _held: Held,
}

impl Answering {
    /// It has come.
    pub(super) fn begin() -> Self {
        Answering { began: timing::now(), _held: IN_FLIGHT.hold() }
    }

    /// What answers it, and on what its time goes.
    pub(super) async fn watch<T>(&self, answer: impl Future<Output = T>) -> (T, Spent) {
        spent::watch(answer).await
    }

    /// Its answer begins.
    pub(super) fn answered(
        self,
        (method, path, route): (&Method, &str, &'static str),
        status: StatusCode,
        spent: Spent,
    ) {
        let took = self.began.map(|began| began.elapsed());
        {
            let mut answers = ANSWERS.lock();
            let answers = answers.entry(route).or_default();
            *answers.by_status.entry(status.as_u16()).or_default() += 1;
            took.iter().for_each(|took| answers.took.note(*took));
        }
        // What is brought takes as long as the client takes.
        if *method != Method::PUT
            && let Some(took) = took
            && let Some(held_back) = slow::is_told(took)
        {
            tell_of_slow((method, path), status, (took, spent), held_back);
        }
    }
}

fn tell_of_slow(
    (method, path): (&Method, &str),
    status: StatusCode,
    (took, spent): (Duration, Spent),
    held_back: u64,
) {
    slow::tell!(
        {
            operation = "http",
            %method,
            path,
            status = status.as_u16(),
        },
        took,
        spent,
        held_back
    );
}
