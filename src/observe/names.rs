//! The names of all metrics. `docs/metrics.md` has the same, and tests compare both with what servers answer.

use super::metric::{
    Kind::{self, Counter, Gauge, Histogram},
    Metric,
    Role::{self, Daemon, Mount, Serve, Virtiofs},
};

const EVERYWHERE: &[Role] = &Role::ALL;
const KERNELS: &[Role] = &[Mount, Virtiofs];

/// All of them, in the order in which they are told.
pub const ALL: &[&Metric] = &[
    &BUILD_INFO,
    &START_TIME,
    &CPU,
    &RESIDENT,
    &THREADS,
    &OPEN_FDS,
    &MAX_FDS,
    &FUSE_OPERATION,
    &FUSE_ERRORS,
    &FUSE_WAITING,
    &READ_BYTES,
    &INODES,
    &GUESTS,
    &GRPC_REQUESTS,
    &GRPC_REQUEST,
    &GRPC_IN_FLIGHT,
    &HTTP_REQUESTS,
    &HTTP_REQUEST,
    &HTTP_IN_FLIGHT,
    &HTTP_NAR_BYTES,
    &SERVICE_OPERATION,
    &SERVICE_ABSENT,
    &SERVICE_ERRORS,
    &SERVICE_BYTES,
    &CACHE_REQUESTS,
    &FETCHED_BYTES,
    &CACHE_EVICTIONS,
    &CACHE_EVICTED_BYTES,
    &CACHE_BYTES,
    &CACHE_SIZE,
    &CIRCUITS_OPEN,
    &CIRCUIT_OPENINGS,
    &SLOW_OPERATIONS,
];

const fn metric(
    name: &'static str,
    kind: Kind,
    roles: &'static [Role],
    labels: &'static [&'static str],
    help: &'static str,
) -> Metric {
    Metric { name, kind, help, labels, roles }
}

// The process.

/// What runs.
pub static BUILD_INFO: Metric = metric(
    "lazystore_build_info",
    Gauge,
    EVERYWHERE,
    &["version", "command"],
    "Always 1; the labels say which version runs as which command.",
);
/// Since when.
pub static START_TIME: Metric = metric(
    "lazystore_process_start_time_seconds",
    Gauge,
    EVERYWHERE,
    &[],
    "When the process started, in seconds since 1970.",
);
/// Processor time.
pub static CPU: Metric = metric(
    "lazystore_process_cpu_seconds_total",
    Counter,
    EVERYWHERE,
    &[],
    "Processor time that was used, in the program and in the kernel.",
);
/// Memory.
pub static RESIDENT: Metric = metric(
    "lazystore_process_resident_memory_bytes",
    Gauge,
    EVERYWHERE,
    &[],
    "Memory that the process has at the moment.",
);
/// Threads.
pub static THREADS: Metric =
    metric("lazystore_process_threads", Gauge, EVERYWHERE, &[], "Threads of the process.");
/// Descriptors.
pub static OPEN_FDS: Metric =
    metric("lazystore_process_open_fds", Gauge, EVERYWHERE, &[], "File descriptors that are open.");
/// Their limit.
pub static MAX_FDS: Metric = metric(
    "lazystore_process_max_fds",
    Gauge,
    EVERYWHERE,
    &[],
    "How many file descriptors may be open.",
);

// The kernel, or kernels of guests.

/// Requests of kernels.
pub static FUSE_OPERATION: Metric = metric(
    "lazystore_fuse_operation_seconds",
    Histogram,
    KERNELS,
    &["operation"],
    "Time from a request of the kernel to its reply.",
);
/// Errors that kernels got.
pub static FUSE_ERRORS: Metric = metric(
    "lazystore_fuse_errors_total",
    Counter,
    KERNELS,
    &["operation", "error"],
    "Requests of the kernel that were answered with an error, by its name. ENOENT is what a name gets that is not there.",
);
/// Readers that wait.
pub static FUSE_WAITING: Metric = metric(
    "lazystore_fuse_waiting",
    Gauge,
    KERNELS,
    &[],
    "Requests of the kernel that wait for something to be fetched.",
);
/// What readers got.
pub static READ_BYTES: Metric = metric(
    "lazystore_read_bytes_total",
    Counter,
    KERNELS,
    &["source"],
    "Bytes of files that were read through the kernel: from a local file, or from the store, which may have fetched them. What is passed through, or is in the kernel's page cache, is not seen.",
);
/// Inodes.
pub static INODES: Metric =
    metric("lazystore_inodes", Gauge, KERNELS, &[], "Inodes that kernels know at the moment.");
/// Guests.
pub static GUESTS: Metric =
    metric("lazystore_guests", Gauge, &[Virtiofs], &[], "Guests that are connected.");

// Servers.

/// Calls of clients.
pub static GRPC_REQUESTS: Metric = metric(
    "lazystore_grpc_requests_total",
    Counter,
    &[Daemon],
    &["service", "method", "code"],
    "Calls of clients that ended, by the name of their status code. Cancelled are those that the client gave up.",
);
/// How long they took.
pub static GRPC_REQUEST: Metric = metric(
    "lazystore_grpc_request_seconds",
    Histogram,
    &[Daemon],
    &["service", "method"],
    "Time from a call of a client until its answer begins.",
);
/// How many there are.
pub static GRPC_IN_FLIGHT: Metric = metric(
    "lazystore_grpc_requests_in_flight",
    Gauge,
    &[Daemon],
    &[],
    "Calls of clients that are under way.",
);
/// Requests of clients.
pub static HTTP_REQUESTS: Metric = metric(
    "lazystore_http_requests_total",
    Counter,
    &[Serve],
    &["route", "status"],
    "Requests of clients that were answered.",
);
/// How long they took.
pub static HTTP_REQUEST: Metric = metric(
    "lazystore_http_request_seconds",
    Histogram,
    &[Serve],
    &["route"],
    "Time from a request of a client until its answer begins.",
);
/// How many there are.
pub static HTTP_IN_FLIGHT: Metric = metric(
    "lazystore_http_requests_in_flight",
    Gauge,
    &[Serve],
    &[],
    "Requests of clients whose answer has not begun.",
);
/// Archives.
pub static HTTP_NAR_BYTES: Metric = metric(
    "lazystore_http_nar_bytes_total",
    Counter,
    &[Serve],
    &[],
    "Bytes of archives that were rendered, before they were compressed.",
);

// Stores.

/// What was asked of stores.
pub static SERVICE_OPERATION: Metric = metric(
    "lazystore_service_operation_seconds",
    Histogram,
    EVERYWHERE,
    &["service", "backend", "operation"],
    "Time that an operation of a store took; of one that answers in pieces, until the answer begins. Looks for local files are not among them.",
);
/// What was not there.
pub static SERVICE_ABSENT: Metric = metric(
    "lazystore_service_absent_total",
    Counter,
    EVERYWHERE,
    &["service", "backend", "operation"],
    "Operations of a store whose answer was that there is no such thing.",
);
/// What failed.
pub static SERVICE_ERRORS: Metric = metric(
    "lazystore_service_errors_total",
    Counter,
    EVERYWHERE,
    &["service", "backend", "operation"],
    "Operations of a store that failed, at once or in the middle of the answer.",
);
/// What went through.
pub static SERVICE_BYTES: Metric = metric(
    "lazystore_service_bytes_total",
    Counter,
    EVERYWHERE,
    &["service", "backend", "operation"],
    "Bytes of contents and directories that came from a store, or went to it.",
);

// Caches.

/// Whether what was wanted was there.
pub static CACHE_REQUESTS: Metric = metric(
    "lazystore_cache_requests_total",
    Counter,
    EVERYWHERE,
    &["kind", "tier", "result"],
    "Whether what was wanted was in a cache: hit or miss. Of a short file whole files are counted, of a long one reads.",
);
/// What came from far.
pub static FETCHED_BYTES: Metric = metric(
    "lazystore_fetched_bytes_total",
    Counter,
    EVERYWHERE,
    &["reason"],
    "Bytes of contents that came from a far store: since somebody wanted to read them, ahead of that, or in an archive.",
);
/// What went.
pub static CACHE_EVICTIONS: Metric = metric(
    "lazystore_cache_evictions_total",
    Counter,
    EVERYWHERE,
    &["kind"],
    "Things that went from a cache to make room.",
);
/// How much went.
pub static CACHE_EVICTED_BYTES: Metric = metric(
    "lazystore_cache_evicted_bytes_total",
    Counter,
    EVERYWHERE,
    &[],
    "Bytes of disk that were freed to make room.",
);
/// How full they are.
pub static CACHE_BYTES: Metric = metric(
    "lazystore_cache_bytes",
    Gauge,
    EVERYWHERE,
    &[],
    "Bytes of disk that caches take, with what is about to be written.",
);
/// How full they may be.
pub static CACHE_SIZE: Metric = metric(
    "lazystore_cache_size_max_bytes",
    Gauge,
    EVERYWHERE,
    &[],
    "Bytes of disk that caches may take.",
);

// Peers.

/// Peers that are out of reach.
pub static CIRCUITS_OPEN: Metric = metric(
    "lazystore_circuits_open",
    Gauge,
    EVERYWHERE,
    &["endpoint"],
    "Circuits to a far store that are open: it is out of reach, and nobody is let through but a try now and then.",
);
/// How often that happened.
pub static CIRCUIT_OPENINGS: Metric = metric(
    "lazystore_circuit_openings_total",
    Counter,
    EVERYWHERE,
    &[],
    "How often a far store was found to be out of reach.",
);
/// What took long.
pub static SLOW_OPERATIONS: Metric = metric(
    "lazystore_slow_operations_total",
    Counter,
    EVERYWHERE,
    &[],
    "Operations that took longer than --slow-log says, also those that were not logged since there were too many.",
);

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn names_are_as_prometheus_wants_them_and_none_is_there_twice() {
        let names: BTreeSet<_> = ALL.iter().map(|metric| metric.name).collect();
        assert_eq!(names.len(), ALL.len());
        let is_word = |word: &str| {
            word.starts_with(|c: char| c.is_ascii_lowercase())
                && word.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'_')
        };
        for metric in ALL {
            let name = metric.name;
            assert!(name.starts_with("lazystore_") && is_word(name), "{name}");
            assert_eq!(metric.kind == Counter, name.ends_with("_total"), "{name}");
            assert!(metric.kind != Histogram || name.ends_with("_seconds"), "{name}");
            assert!(metric.help.ends_with('.') && !metric.help.contains(['\n', '\\']), "{name}");
            assert!(metric.labels.iter().all(|label| is_word(label) && *label != "le"), "{name}");
            assert!(!metric.roles.is_empty(), "{name}");
        }
    }
}
