//! `lazystore access-report`.

use std::{
    cmp::Reverse,
    collections::BTreeMap,
    fs::File,
    io::{self, BufRead, BufReader, Write as _},
    path::PathBuf,
};

use anyhow::Context as _;
use clap::Args;

use crate::access::{Report, Sum};

/// How many commands and store paths are told; the rest is left out.
const LINES_MAX: usize = 100;

/// Sum up what --access-log of mount or virtiofs wrote.
#[derive(Debug, Args)]
#[command(after_help = "Example:
  lazystore mount --access-log log --closure-of /nix/store/…-hello-2.12 -- /build/store
  lazystore access-report log")]
pub(super) struct AccessReport {
    /// The log, or - for one on standard input
    #[arg(value_name = "FILE")]
    log: PathBuf,
}

impl AccessReport {
    pub(super) fn run(&self) -> anyhow::Result<()> {
        let log: Box<dyn BufRead> = match self.log.as_os_str() == "-" {
            true => Box::new(io::stdin().lock()),
            false => Box::new(BufReader::new(
                File::open(&self.log)
                    .with_context(|| format!("cannot open {}", self.log.display()))?,
            )),
        };
        let report = Report::read(log).context("cannot read the access log")?;
        let mut out = io::stdout().lock();
        let Sum { files, bytes, fetched } = report.all;
        let here = bytes.saturating_sub(fetched);
        writeln!(out, "{files} files, {bytes} bytes read: {here} here, {fetched} fetched")?;
        write_sums(&mut out, "store path", &report.store_paths)?;
        write_sums(&mut out, "command", &report.commands)?;
        writeln!(out, "\n{} inputs of which nothing was read", report.untouched.len())?;
        for input in &report.untouched {
            writeln!(out, "  {}", printable(input))?;
        }
        if report.lost > 0 {
            writeln!(out, "\n{} lines were lost, of which nothing is known", report.lost)?;
        }
        if report.damaged > 0 {
            writeln!(out, "\n{} lines make no sense and were left out", report.damaged)?;
        }
        Ok(())
    }
}

/// A table, what was read most first.
fn write_sums(
    out: &mut impl io::Write,
    what: &str,
    sums: &BTreeMap<String, Sum>,
) -> io::Result<()> {
    let mut sums: Vec<_> = sums.iter().collect();
    sums.sort_by_key(|(_, sum)| Reverse(sum.bytes));
    writeln!(out, "\n{:>10} {:>14} {:>14}  {what}", "files", "bytes read", "fetched")?;
    for (key, Sum { files, bytes, fetched }) in sums.iter().take(LINES_MAX) {
        let key = if key.is_empty() { "(unknown)".to_owned() } else { printable(key) };
        writeln!(out, "{files:>10} {bytes:>14} {fetched:>14}  {key}")?;
    }
    if sums.len() > LINES_MAX {
        writeln!(out, "{:>10} more", sums.len() - LINES_MAX)?;
    }
    Ok(())
}

/// Whoever made the log must not write to the terminal.
fn printable(text: &str) -> String {
    let escape = |c: char| {
        if c.is_ascii_graphic() || c == ' ' {
            c.to_string()
        } else {
            c.escape_unicode().to_string()
        }
    };
    text.chars().map(escape).collect()
}
