//! What an access log comes to.

use std::{
    collections::{BTreeMap, BTreeSet},
    io::{self, BufRead, Read as _},
};

use super::Line;

/// The longest line that is read, in bytes: a path is shorter, escaped, too.
const LINE_LEN_MAX: u64 = 64 << 10;

/// How many files, store paths or commands are told apart; the rest is summed up.
const DISTINCT_MAX: usize = 1_000_000;

/// Sums over something.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Sum {
    /// How many files.
    pub files: u64,
    /// How many bytes were read.
    pub bytes: u64,
    /// How many of them were fetched.
    pub fetched: u64,
}

/// A whole log, summed up.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Report {
    /// All in all.
    pub all: Sum,
    /// By store path.
    pub store_paths: BTreeMap<String, Sum>,
    /// By command.
    pub commands: BTreeMap<String, Sum>,
    /// The inputs of which nothing was read.
    pub untouched: BTreeSet<String>,
    /// How many lines were lost when the log was written.
    pub lost: u64,
    /// How many lines make no sense; the last one of a process that was killed may be among them.
    pub damaged: u64,
}

impl Report {
    /// Reads a log.
    pub fn read(mut log: impl BufRead) -> io::Result<Report> {
        let mut report = Report::default();
        let mut files = BTreeSet::new();
        let mut text = Vec::new();
        loop {
            text.clear();
            if (&mut log).take(LINE_LEN_MAX).read_until(b'\n', &mut text)? == 0 {
                return Ok(report);
            }
            match serde_json::from_slice(&text) {
                Ok(Line::Input { input }) if report.untouched.len() < DISTINCT_MAX => {
                    report.untouched.insert(input);
                }
                Ok(Line::Input { .. }) => report.lost += 1,
                Ok(Line::Lost { lost }) => report.lost = report.lost.saturating_add(lost),
                Ok(Line::Read(read)) => {
                    let name = read.path.split('/').next().unwrap_or_default().to_owned();
                    report.untouched.remove(&name);
                    let by_command = (read.command.clone(), read.path.clone());
                    let is_new = files.len() < DISTINCT_MAX && files.insert((None, read.path));
                    let is_new_to_it = files.len() < DISTINCT_MAX
                        && files.insert((Some(by_command.0), by_command.1));
                    let sum = |files: bool| Sum {
                        files: u64::from(files),
                        bytes: read.bytes,
                        fetched: read.fetched,
                    };
                    report.all.add(sum(is_new));
                    add(&mut report.store_paths, name, sum(is_new));
                    add(&mut report.commands, read.command, sum(is_new_to_it));
                }
                Err(_) if text.trim_ascii().is_empty() => {}
                Err(_) => report.damaged += 1,
            }
        }
    }
}

impl Sum {
    fn add(&mut self, other: Sum) {
        self.files = self.files.saturating_add(other.files);
        self.bytes = self.bytes.saturating_add(other.bytes);
        self.fetched = self.fetched.saturating_add(other.fetched);
    }
}

fn add(sums: &mut BTreeMap<String, Sum>, key: String, sum: Sum) {
    let key = if sums.len() < DISTINCT_MAX { key } else { String::new() };
    sums.entry(key).or_default().add(sum);
}
