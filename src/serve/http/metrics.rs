//! Numbers for those who run a cache, in the text form of Prometheus.

use std::{
    collections::BTreeMap,
    fmt,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
};

use axum::http::StatusCode;
use parking_lot::Mutex;

use crate::service::{
    blob::layer::BlobCounters,
    counters::{Counts, Operation},
    directory::layer::DirectoryCounters,
    pathinfo::layer::PathInfoCounters,
};

/// What is counted. Displayed as Prometheus reads it.
#[derive(Debug, Default)]
pub(super) struct Metrics {
    /// By route and status, of which there are few.
    answers: Mutex<BTreeMap<(&'static str, u16), u64>>,
    /// Of archives, before they are compressed.
    pub(super) nar_bytes: Arc<AtomicU64>,
    pub(super) blobs: Arc<BlobCounters>,
    pub(super) directories: Arc<DirectoryCounters>,
    pub(super) path_infos: Arc<PathInfoCounters>,
}

impl Metrics {
    /// A request to `route` was answered.
    pub(super) fn answered(&self, route: &'static str, status: StatusCode) {
        *self.answers.lock().entry((route, status.as_u16())).or_default() += 1;
    }

    fn operations(&self) -> Vec<(&'static str, &'static str, Counts)> {
        let of = |service, operations: Vec<(&'static str, _)>| {
            let counted =
                move |(name, operation): (_, &Operation)| (service, name, operation.counts());
            operations.into_iter().map(counted)
        };
        of("blob", self.blobs.operations().to_vec())
            .chain(of("directory", self.directories.operations().to_vec()))
            .chain(of("path_info", self.path_infos.operations().to_vec()))
            .collect()
    }
}

fn head(f: &mut fmt::Formatter<'_>, name: &str, help: &str) -> fmt::Result {
    writeln!(f, "# HELP {name} {help}\n# TYPE {name} counter")
}

impl fmt::Display for Metrics {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = "lazystore_http_requests_total";
        head(f, name, "Requests that were answered.")?;
        let answers = self.answers.lock().clone();
        for ((route, status), count) in answers {
            writeln!(f, "{name}{{route=\"{route}\",status=\"{status}\"}} {count}")?;
        }
        let name = "lazystore_http_nar_bytes_total";
        head(f, name, "Bytes of archives that were rendered, before they were compressed.")?;
        writeln!(f, "{name} {}", self.nar_bytes.load(Relaxed))?;

        let operations = self.operations();
        let counted = [
            ("calls", "Calls of the store.", (|counts| counts.calls) as fn(Counts) -> u64),
            ("absent", "Calls that found nothing.", |counts| counts.absent),
            ("errors", "Calls that failed.", |counts| counts.errors),
            ("bytes", "Bytes of contents.", |counts| counts.bytes),
        ];
        for (what, help, count) in counted {
            let name = format!("lazystore_store_{what}_total");
            head(f, &name, help)?;
            for (service, operation, counts) in &operations {
                let count = count(*counts);
                writeln!(f, "{name}{{service=\"{service}\",operation=\"{operation}\"}} {count}")?;
            }
        }
        Ok(())
    }
}
