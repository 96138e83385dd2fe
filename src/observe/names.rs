//! The names of all metrics. `docs/metrics.md` has the same, and tests compare both with what servers answer.

use super::metric::{
    Kind::{self, Counter, Gauge},
    Metric, Role,
};

const EVERYWHERE: &[Role] = &Role::ALL;

/// All of them, in the order in which they are told.
pub const ALL: &[&Metric] =
    &[&BUILD_INFO, &START_TIME, &CPU, &RESIDENT, &THREADS, &OPEN_FDS, &MAX_FDS];

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
            assert!(metric.kind != Kind::Histogram || name.ends_with("_seconds"), "{name}");
            assert!(metric.help.ends_with('.') && !metric.help.contains(['\n', '\\']), "{name}");
            assert!(metric.labels.iter().all(|label| is_word(label) && *label != "le"), "{name}");
            assert!(!metric.roles.is_empty(), "{name}");
        }
    }
}
