//! A report for people.

use std::{
    fmt::{self, Display, Formatter, Write as _},
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use indicatif::{BinaryBytes, HumanCount, HumanDuration};

use super::report::{Report, Requests};

impl Display for Report {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let up = now.saturating_sub(Duration::try_from_secs_f64(self.started).unwrap_or_default());
        let health = if self.healthy { "healthy" } else { "UNHEALTHY" };
        let Report { version, command, .. } = self;
        writeln!(f, "lazystore {version} {command}, up {}: {health}", HumanDuration(up))?;
        writeln!(
            f,
            "process  {} resident, {:.1} s of processor time, {} of {} descriptors",
            bytes(self.resident_bytes),
            self.cpu_seconds,
            self.open_fds,
            self.max_fds
        )?;
        let mut facts = vec![format!("{} wait", count(self.waiting))];
        facts.push(format!("{} were slow", count(self.slow)));
        facts.extend(self.inodes.map(|inodes| format!("{} inodes are known", count(inodes))));
        facts.extend(self.guests.map(|guests| format!("{} guests", count(guests))));
        writeln!(f, "requests {}", facts.join(", "))?;
        table(f, &self.requests)?;
        if !self.read_bytes.is_empty() {
            writeln!(f, "read     {}", amounts(&self.read_bytes))?;
        }
        writeln!(f, "fetched  {}", amounts(&self.fetched_bytes))?;
        if let Some(cache) = &self.cache {
            writeln!(
                f,
                "cache    {} of {}, {} evicted",
                bytes(cache.bytes),
                bytes(cache.size_max_bytes),
                bytes(cache.evicted_bytes)
            )?;
        }
        for asked in &self.caches {
            let all = asked.hits + asked.misses;
            let rate = 100.0 * asked.hits / all;
            let what = format!("{}, {}", asked.kind, asked.tier);
            writeln!(f, "  {what:<24} {rate:>6.1}% of {} were there", count(all))?;
        }
        if !self.backends.is_empty() {
            writeln!(f, "stores")?;
            table(f, &self.backends)?;
        }
        self.circuits_open.iter().try_for_each(|name| writeln!(f, "OUT OF REACH: {name}"))
    }
}

fn table(f: &mut Formatter<'_>, rows: &[Requests]) -> fmt::Result {
    if rows.is_empty() {
        return Ok(());
    }
    writeln!(
        f,
        "  {:<28} {:>12} {:>9} {:>10} {:>10} {:>8}",
        "", "count", "a second", "half in", "99% in", "failed"
    )?;
    for row in rows {
        writeln!(
            f,
            "  {:<28} {:>12} {:>9.1} {:>10} {:>10} {:>8}",
            row.name,
            count(row.count),
            row.rate,
            time(row.p50_seconds),
            time(row.p99_seconds),
            count(row.errors)
        )?;
    }
    Ok(())
}

fn count(number: f64) -> String {
    HumanCount(number as u64).to_string()
}

fn bytes(number: f64) -> String {
    BinaryBytes(number as u64).to_string()
}

fn amounts(all: &std::collections::BTreeMap<String, f64>) -> String {
    let mut text = String::new();
    for (name, amount) in all {
        let comma = if text.is_empty() { "" } else { ", " };
        // Writing to a string cannot fail.
        let _ = write!(text, "{comma}{name} {}", bytes(*amount));
    }
    text
}

/// A bound of a histogram.
fn time(seconds: Option<f64>) -> String {
    match seconds {
        None => "long".to_owned(),
        Some(seconds) if seconds >= 1.0 => format!("{seconds} s"),
        Some(seconds) if seconds >= 1e-3 => format!("{} ms", (seconds * 1e4).round() / 10.0),
        Some(seconds) => format!("{} µs", (seconds * 1e7).round() / 10.0),
    }
}

#[cfg(test)]
mod tests {
    use super::time;

    #[test]
    fn times_have_units() {
        for (seconds, text) in [
            (Some(0.000_001), "1 µs"),
            (Some(0.000_002_5), "2.5 µs"),
            (Some(0.000_5), "500 µs"),
            (Some(0.002_5), "2.5 ms"),
            (Some(0.25), "250 ms"),
            (Some(30.0), "30 s"),
            (None, "long"),
        ] {
            assert_eq!(time(seconds), text);
        }
    }
}
