//! What `--metrics` answers, read strictly.
#![allow(dead_code)] // Each binary uses its part.

use std::{
    collections::{BTreeMap, BTreeSet},
    io::{Read, Write},
    net::TcpStream,
    os::unix::net::UnixStream,
};

use crate::support::{Running, SOON};

/// What was answered to one request.
pub struct Answer {
    pub status: u16,
    pub head: String,
    pub body: String,
}

/// Asks at `unix:/path` or `host:port`.
pub fn ask(address: &str, request: &str) -> Answer {
    let request = format!("{request} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n");
    let text = match address.strip_prefix("unix:") {
        Some(path) => exchange(UnixStream::connect(path).expect("it listens"), &request),
        None => {
            let socket = TcpStream::connect(address).expect("it listens");
            socket.set_read_timeout(Some(SOON)).expect("it can be set");
            exchange(socket, &request)
        }
    };
    let (head, body) = text.split_once("\r\n\r\n").expect("a head");
    let status = head.split(' ').nth(1).and_then(|status| status.parse().ok()).expect("a status");
    Answer { status, head: head.to_owned(), body: body.to_owned() }
}

fn exchange(mut socket: impl Read + Write, request: &str) -> String {
    socket.write_all(request.as_bytes()).expect("it reads");
    let mut text = String::new();
    socket.read_to_string(&mut text).expect("it answers in UTF-8");
    text
}

/// The address that a process with `--metrics` has told in its log.
pub fn address(running: &mut Running) -> String {
    let line = running.wait_for_line("telling metrics");
    let address = line.split("address=").nth(1).expect("it is told");
    address.split(' ').next().expect("it is told").to_owned()
}

/// Labels and their values.
pub type Labels = BTreeMap<String, String>;

/// One metric of a scrape.
#[derive(Debug, Default)]
pub struct Family {
    pub kind: String,
    pub help: String,
    /// The name of each sample, which may end in `_bucket` and the like, its labels and its value.
    pub samples: Vec<(String, Labels, f64)>,
}

/// All metrics of a scrape, by their names.
#[derive(Debug, Default)]
pub struct Families(pub BTreeMap<String, Family>);

/// Scrapes.
pub fn scrape(address: &str) -> Families {
    let answer = ask(address, "GET /metrics");
    assert_eq!(answer.status, 200);
    let form = "content-type: text/plain; version=0.0.4; charset=utf-8";
    assert!(answer.head.to_ascii_lowercase().contains(form), "{}", answer.head);
    parse(&answer.body)
}

/// Whatever does not stand where Prometheus wants it is a panic.
pub fn parse(text: &str) -> Families {
    let mut families: BTreeMap<String, Family> = BTreeMap::new();
    let mut current = String::new();
    let mut seen = BTreeSet::new();
    assert!(text.ends_with('\n'));
    for line in text.lines() {
        if let Some(rest) = line.strip_prefix("# HELP ") {
            let (name, help) = rest.split_once(' ').expect("a text");
            let family = Family { help: help.to_owned(), ..Family::default() };
            assert!(families.insert(name.to_owned(), family).is_none(), "{name} twice");
            current = name.to_owned();
        } else if let Some(rest) = line.strip_prefix("# TYPE ") {
            let (name, kind) = rest.split_once(' ').expect("a kind");
            assert_eq!(name, current);
            assert!(["counter", "gauge", "histogram"].contains(&kind), "{line}");
            families.get_mut(name).expect("it has a help").kind = kind.to_owned();
        } else {
            let (name, labels, value) = sample(line);
            let family = families.get_mut(&current).expect("samples follow their type");
            let suffixes: &[&str] = match family.kind.as_str() {
                "histogram" => &["_bucket", "_sum", "_count"],
                _ => &[""],
            };
            let is_own = suffixes.iter().any(|suffix| name == format!("{current}{suffix}"));
            assert!(is_own, "{line} below {current}");
            assert!(seen.insert((name.clone(), labels.clone())), "{line} twice");
            family.samples.push((name, labels, value));
        }
    }
    families.iter().for_each(|(name, family)| check_histogram(name, family));
    Families(families)
}

/// `name{label="value",…} number`.
fn sample(line: &str) -> (String, Labels, f64) {
    let end = line.find(['{', ' ']).expect("a value");
    let (name, mut rest) = line.split_at(end);
    let mut labels = Labels::new();
    if let Some(inner) = rest.strip_prefix('{') {
        rest = inner;
        while !rest.starts_with('}') {
            let (label, after) = rest.split_once("=\"").expect("a label");
            let is_word = |c: char| c.is_ascii_lowercase() || c == '_';
            assert!(!label.is_empty() && label.chars().all(is_word), "{line}");
            let mut value = String::new();
            let mut characters = after.char_indices();
            let close = loop {
                match characters.next().expect("a closing quote") {
                    (at, '"') => break at,
                    (_, '\\') => match characters.next().expect("what is escaped").1 {
                        'n' => value.push('\n'),
                        escaped @ ('\\' | '"') => value.push(escaped),
                        other => panic!("\\{other} in {line}"),
                    },
                    (_, other) => value.push(other),
                }
            };
            assert!(labels.insert(label.to_owned(), value).is_none(), "{line}");
            rest = &after[close + 1..];
            match rest.strip_prefix(',') {
                Some(more) => {
                    assert!(!more.starts_with('}'), "{line}");
                    rest = more;
                }
                None => assert!(rest.starts_with('}'), "{line}"),
            }
        }
        rest = &rest[1..];
    }
    let value = rest.strip_prefix(' ').expect("one space");
    (name.to_owned(), labels, value.parse().unwrap_or_else(|_| panic!("no number: {line}")))
}

/// Buckets grow up to the count.
fn check_histogram(name: &str, family: &Family) {
    if family.kind != "histogram" {
        return;
    }
    let mut buckets: BTreeMap<Labels, Vec<(f64, f64)>> = BTreeMap::new();
    let mut counts: BTreeMap<Labels, f64> = BTreeMap::new();
    for (sample, labels, value) in &family.samples {
        let mut labels = labels.clone();
        if sample.ends_with("_bucket") {
            let bound = labels.remove("le").expect("a bound");
            let bound = bound.replace("+Inf", "inf").parse().expect("a number");
            buckets.entry(labels).or_default().push((bound, *value));
        } else if sample.ends_with("_count") {
            counts.insert(labels, *value);
        }
    }
    assert_eq!(buckets.len(), counts.len(), "{name}");
    for (labels, buckets) in buckets {
        let grows = buckets.is_sorted_by(|a, b| a.0 < b.0 && a.1 <= b.1);
        assert!(grows, "{name} {labels:?}: {buckets:?}");
        let last = buckets.last().expect("there is one");
        assert_eq!((last.0, Some(&last.1)), (f64::INFINITY, counts.get(&labels)), "{name}");
    }
}

impl Families {
    /// The sum of what `name` counts where the labels have these values. A histogram counts how many there were.
    pub fn sum(&self, name: &str, labels: &[(&str, &str)]) -> f64 {
        let family = self.0.get(name).unwrap_or_else(|| panic!("no {name}"));
        let wanted = match family.kind.as_str() {
            "histogram" => format!("{name}_count"),
            _ => name.to_owned(),
        };
        let has = |all: &Labels| {
            labels.iter().all(|(label, value)| all.get(*label).is_some_and(|v| v == value))
        };
        let counted = family.samples.iter().filter(|(name, all, _)| *name == wanted && has(all));
        counted.map(|(.., value)| value).sum()
    }
}
