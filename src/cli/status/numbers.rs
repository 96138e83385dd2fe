//! What a scrape says, read back.

use std::collections::BTreeMap;

use anyhow::{Context as _, ensure};

use crate::observe::Metric;

/// A number with its labels.
#[derive(Debug, Clone, PartialEq)]
struct Sample {
    labels: BTreeMap<String, String>,
    value: f64,
}

/// The numbers of one scrape, by the names of their samples.
#[derive(Debug, Default)]
pub(super) struct Numbers(BTreeMap<String, Vec<Sample>>);

/// Labels with the values that they must have.
pub(super) type Wanted<'a> = &'a [(&'a str, &'a str)];

impl Numbers {
    /// Takes the text of a scrape apart.
    pub(super) fn parse(text: &str) -> anyhow::Result<Self> {
        let mut numbers = Numbers::default();
        for line in text.lines().filter(|line| !line.starts_with('#') && !line.is_empty()) {
            let (name, sample) =
                sample(line).with_context(|| format!("no number for Prometheus: {line:?}"))?;
            numbers.0.entry(name).or_default().push(sample);
        }
        ensure!(!numbers.0.is_empty(), "there are no numbers");
        Ok(numbers)
    }

    fn samples<'a>(
        &'a self,
        name: &str,
        wanted: Wanted<'a>,
    ) -> impl Iterator<Item = &'a Sample> + 'a {
        let all = self.0.get(name).map(Vec::as_slice).unwrap_or_default();
        let has = |sample: &&Sample| {
            wanted
                .iter()
                .all(|(label, value)| sample.labels.get(*label).is_some_and(|v| v == value))
        };
        all.iter().filter(has)
    }

    /// The sum of a metric where its labels are so; of a histogram, how many there were. `None` if there is none.
    pub(super) fn sum(&self, metric: &Metric, wanted: Wanted<'_>) -> Option<f64> {
        let count = format!("{}_count", metric.name);
        let mut sum = None;
        for name in [metric.name, &count] {
            for sample in self.samples(name, wanted) {
                *sum.get_or_insert(0.0) += sample.value;
            }
        }
        sum
    }

    /// The values that a label of a metric has.
    pub(super) fn values(&self, metric: &Metric, label: &str) -> Vec<String> {
        let count = format!("{}_count", metric.name);
        let names = [metric.name, count.as_str()];
        let samples = names.iter().flat_map(|name| self.samples(name, &[]));
        let mut values: Vec<_> =
            samples.filter_map(|sample| sample.labels.get(label).cloned()).collect();
        values.sort();
        values.dedup();
        values
    }

    /// The time within which this part of what a histogram counts was done, in seconds: a bound of it, so it may have been
    /// less. `None` if there was nothing, or it took longer than the last bound.
    pub(super) fn quantile(&self, metric: &Metric, wanted: Wanted<'_>, part: f64) -> Option<f64> {
        let mut up_to: BTreeMap<u64, f64> = BTreeMap::new();
        let name = format!("{}_bucket", metric.name);
        for sample in self.samples(&name, wanted) {
            let bound = match sample.labels.get("le")?.as_str() {
                "+Inf" => f64::INFINITY,
                bound => bound.parse().ok()?,
            };
            // Positive numbers are in the order of their bits.
            *up_to.entry(bound.to_bits()).or_default() += sample.value;
        }
        let all = *up_to.last_key_value()?.1;
        let reached = up_to.iter().find(|(_, count)| all > 0.0 && **count >= all * part);
        let bound = f64::from_bits(*reached?.0);
        bound.is_finite().then_some(bound)
    }
}

/// `name{label="value",…} number`.
fn sample(line: &str) -> Option<(String, Sample)> {
    let (name, mut rest) = line.split_at(line.find(['{', ' '])?);
    let mut labels = BTreeMap::new();
    if let Some(inner) = rest.strip_prefix('{') {
        rest = inner;
        while !rest.starts_with('}') {
            let (label, after) = rest.split_once("=\"")?;
            let mut value = String::new();
            let mut characters = after.char_indices();
            let end = loop {
                match characters.next()? {
                    (at, '"') => break at,
                    (_, '\\') => match characters.next()?.1 {
                        'n' => value.push('\n'),
                        escaped => value.push(escaped),
                    },
                    (_, other) => value.push(other),
                }
            };
            labels.insert(label.to_owned(), value);
            rest = &after[end + 1..];
            rest = rest.strip_prefix(',').unwrap_or(rest);
        }
        rest = &rest[1..];
    }
    let value = rest.split_ascii_whitespace().next()?.parse().ok()?;
    Some((name.to_owned(), Sample { labels, value }))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::observe::names::{CIRCUITS_OPEN, FUSE_OPERATION, INODES};

    const TEXT: &str = "# HELP x y\nlazystore_inodes 7\n\
        lazystore_circuits_open{endpoint=\"a\\\"b,c}\"} 1\nlazystore_circuits_open{endpoint=\"d\"} 0\n\
        lazystore_fuse_operation_seconds_bucket{operation=\"read\",le=\"0.001\"} 50\n\
        lazystore_fuse_operation_seconds_bucket{operation=\"read\",le=\"0.01\"} 99\n\
        lazystore_fuse_operation_seconds_bucket{operation=\"read\",le=\"+Inf\"} 100\n\
        lazystore_fuse_operation_seconds_count{operation=\"read\"} 100\n";

    #[test]
    fn a_scrape_is_read_back() {
        let numbers = Numbers::parse(TEXT).expect("legal");
        assert_eq!(numbers.sum(&INODES, &[]), Some(7.0));
        assert_eq!(numbers.sum(&CIRCUITS_OPEN, &[]), Some(1.0));
        assert_eq!(numbers.sum(&CIRCUITS_OPEN, &[("endpoint", "a\"b,c}")]), Some(1.0));
        assert_eq!(numbers.values(&CIRCUITS_OPEN, "endpoint"), ["a\"b,c}", "d"]);
        let read = [("operation", "read")];
        assert_eq!(numbers.sum(&FUSE_OPERATION, &read), Some(100.0));
        assert_eq!(numbers.quantile(&FUSE_OPERATION, &read, 0.5), Some(0.001));
        assert_eq!(numbers.quantile(&FUSE_OPERATION, &read, 0.99), Some(0.01));
        assert_eq!(numbers.quantile(&FUSE_OPERATION, &read, 0.999), None);
        assert_eq!(numbers.quantile(&FUSE_OPERATION, &[("operation", "x")], 0.5), None);
    }

    #[test]
    fn what_is_something_else_is_refused() {
        for text in
            ["", "<html>", "x", "x{", "x{a=\"", "x{a=\"b\"", "x{a=\"b\"}", "x y", "# HELP x"]
        {
            assert!(Numbers::parse(text).is_err(), "{text}");
        }
    }
}
