//! All numbers at one moment, in the text form of Prometheus.
//!
//! The form is that of <https://prometheus.io/docs/instrumenting/exposition_formats/>, version 0.0.4.

use std::{collections::BTreeMap, fmt::Write as _, sync::Once};

use parking_lot::Mutex;

use super::{
    Kind, Metric, Snapshot, names,
    process::{self, role},
    tally,
};

/// Adds numbers to a scrape. Returns `false` if what it told of is gone, so that it is not asked again.
type Collector = Box<dyn Fn(&mut Scrape) -> bool + Send + Sync>;

static COLLECTORS: Mutex<Vec<Collector>> = Mutex::new(Vec::new());

/// From now on `collector` is asked for its numbers. It returns `false` once what it tells of is gone.
pub fn register(collector: impl Fn(&mut Scrape) -> bool + Send + Sync + 'static) {
    COLLECTORS.lock().push(Box::new(collector));
}

/// The same for numbers of the whole process, once, however often it is asked for: `told` belongs to `collect`.
pub fn register_once(told: &Once, collect: fn(&mut Scrape)) {
    told.call_once(|| {
        register(move |scrape| {
            collect(scrape);
            true
        });
    });
}

/// The metrics that this command has.
pub(super) fn metrics_of_role() -> impl Iterator<Item = &'static Metric> {
    let role = role();
    let all = names::ALL.iter().copied();
    all.filter(move |metric| role.is_none_or(|role| metric.roles.contains(&role)))
}

/// Asks everybody for their numbers.
pub fn scrape() -> Scrape {
    let mut scrape = Scrape::default();
    process::collect(&mut scrape);
    tally::collect(&mut scrape);
    // One scrape at a time: whoever is asked here registers nobody.
    COLLECTORS.lock().retain(|collector| collector(&mut scrape));
    scrape
}

/// The label that has the address of a far store.
const ENDPOINT: &str = "endpoint";

/// The name of a metric, and the values of its labels.
type Series = (&'static str, Vec<String>);

/// The numbers of all metrics at one moment. What is told twice under the same labels is summed up.
#[derive(Debug, Default)]
pub struct Scrape {
    numbers: BTreeMap<Series, f64>,
    histograms: BTreeMap<Series, Snapshot>,
}

impl Scrape {
    /// A number of things.
    pub fn count(&mut self, metric: &'static Metric, labels: &[&str], value: u64) {
        self.number(metric, labels, value as f64);
    }

    /// A number.
    pub fn number(&mut self, metric: &'static Metric, labels: &[&str], value: f64) {
        debug_assert_ne!(metric.kind, Kind::Histogram, "{}", metric.name);
        *self.numbers.entry(series(metric, labels)).or_default() += value;
    }

    /// Durations.
    pub fn durations(&mut self, metric: &'static Metric, labels: &[&str], value: &Snapshot) {
        debug_assert_eq!(metric.kind, Kind::Histogram, "{}", metric.name);
        self.histograms.entry(series(metric, labels)).or_default().add(value);
    }

    /// What was told of a metric: the values of its labels, and a number.
    pub fn numbers_of(&self, metric: &Metric) -> impl Iterator<Item = (&[String], f64)> {
        of(&self.numbers, metric).map(|(labels, value)| (labels, *value))
    }

    /// What was told of a metric that is a histogram.
    pub fn durations_of(&self, metric: &Metric) -> impl Iterator<Item = (&[String], &Snapshot)> {
        of(&self.histograms, metric)
    }

    /// The same without what names others: far stores are counted, and their addresses are not told.
    pub fn without_endpoints(mut self) -> Self {
        for metric in names::ALL {
            let Some(at) = metric.labels.iter().position(|label| *label == ENDPOINT) else {
                continue;
            };
            let told: Vec<_> =
                self.numbers_of(metric).map(|(labels, value)| (labels.to_vec(), value)).collect();
            self.numbers.retain(|(name, _), _| *name != metric.name);
            for (mut labels, value) in told {
                labels[at] = "hidden".to_owned();
                *self.numbers.entry((metric.name, labels)).or_default() += value;
            }
        }
        self
    }

    /// As Prometheus reads it: all metrics that this command has, also those of which there is nothing yet.
    pub fn text(&self) -> String {
        let mut text = String::with_capacity(16 << 10);
        for metric in metrics_of_role() {
            // Writing to a string cannot fail.
            let _ = self.family(&mut text, metric);
        }
        text
    }

    fn family(&self, text: &mut String, metric: &Metric) -> std::fmt::Result {
        let Metric { name, help, kind, .. } = metric;
        writeln!(text, "# HELP {name} {help}\n# TYPE {name} {}", kind.name())?;
        for (labels, value) in self.numbers_of(metric) {
            match written(metric, labels).as_str() {
                "" => writeln!(text, "{name} {value}")?,
                labels => writeln!(text, "{name}{{{labels}}} {value}")?,
            }
        }
        for (labels, value) in self.durations_of(metric) {
            let labels = written(metric, labels);
            let comma = if labels.is_empty() { "" } else { "," };
            for (bound, count) in value.up_to() {
                writeln!(text, "{name}_bucket{{{labels}{comma}le=\"{bound}\"}} {count}")?;
            }
            let count = value.count();
            writeln!(text, "{name}_bucket{{{labels}{comma}le=\"+Inf\"}} {count}")?;
            writeln!(text, "{name}_sum{{{labels}}} {}", value.seconds())?;
            writeln!(text, "{name}_count{{{labels}}} {count}")?;
        }
        Ok(())
    }
}

fn series(metric: &'static Metric, labels: &[&str]) -> Series {
    debug_assert_eq!(metric.labels.len(), labels.len(), "{}", metric.name);
    (metric.name, labels.iter().map(|label| (*label).to_owned()).collect())
}

fn of<'a, T>(
    all: &'a BTreeMap<Series, T>,
    metric: &Metric,
) -> impl Iterator<Item = (&'a [String], &'a T)> {
    let name = metric.name;
    let from = all.range((name, Vec::new())..);
    from.take_while(move |(series, _)| series.0 == name).map(|((_, labels), t)| (&labels[..], t))
}

/// Labels as they stand between braces.
fn written(metric: &Metric, values: &[String]) -> String {
    let mut text = String::new();
    for (label, value) in metric.labels.iter().zip(values) {
        if !text.is_empty() {
            text.push(',');
        }
        text.push_str(label);
        text.push_str("=\"");
        for character in value.chars() {
            match character {
                '\\' => text.push_str("\\\\"),
                '"' => text.push_str("\\\""),
                '\n' => text.push_str("\\n"),
                other => text.push(other),
            }
        }
        text.push('"');
    }
    text
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::observe::Histogram;

    #[test]
    fn numbers_are_written_as_prometheus_reads_them() {
        let mut scrape = Scrape::default();
        scrape.count(&names::CIRCUITS_OPEN, &["a\"b\\c\nd"], 1);
        scrape.count(&names::CIRCUITS_OPEN, &["a\"b\\c\nd"], 1);
        scrape.number(&names::RESIDENT, &[], 4096.0);
        let histogram = Histogram::new();
        histogram.note(Duration::from_millis(2));
        scrape.durations(&names::FUSE_OPERATION, &["read"], &histogram.snapshot());
        let text = scrape.text();
        for line in [
            "lazystore_circuits_open{endpoint=\"a\\\"b\\\\c\\nd\"} 2",
            "# TYPE lazystore_process_resident_memory_bytes gauge",
            "lazystore_process_resident_memory_bytes 4096",
            "lazystore_fuse_operation_seconds_bucket{operation=\"read\",le=\"0.001\"} 0",
            "lazystore_fuse_operation_seconds_bucket{operation=\"read\",le=\"0.0025\"} 1",
            "lazystore_fuse_operation_seconds_bucket{operation=\"read\",le=\"+Inf\"} 1",
            "lazystore_fuse_operation_seconds_sum{operation=\"read\"} 0.002",
            "lazystore_fuse_operation_seconds_count{operation=\"read\"} 1",
        ] {
            assert!(text.lines().any(|written| written == line), "{line}: {text}");
        }
    }

    #[test]
    fn a_stranger_is_told_how_many_far_stores_are_away_and_not_which() {
        let mut scrape = Scrape::default();
        scrape.count(&names::CIRCUITS_OPEN, &["grpc+http://one.internal:8000"], 1);
        scrape.count(&names::CIRCUITS_OPEN, &["grpc+http://two.internal:8000"], 2);
        scrape.number(&names::RESIDENT, &[], 4096.0);
        let text = scrape.without_endpoints().text();
        assert!(text.contains("\nlazystore_circuits_open{endpoint=\"hidden\"} 3\n"), "{text}");
        assert!(text.contains("\nlazystore_process_resident_memory_bytes 4096\n"), "{text}");
        assert!(!text.contains("internal"), "{text}");
    }

    #[test]
    fn whoever_is_gone_is_not_asked_again() {
        use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
        static ASKED: AtomicU64 = AtomicU64::new(0);
        register(|_| ASKED.fetch_add(1, Relaxed) == 0);
        (0..4).for_each(|_| drop(scrape()));
        assert_eq!(ASKED.load(Relaxed), 2);
    }
}
