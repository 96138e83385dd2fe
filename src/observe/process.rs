//! What the system tells of this process.

use std::{
    fs,
    sync::OnceLock,
    time::{SystemTime, UNIX_EPOCH},
};

use rustix::process::{Resource, getrlimit};

use super::{Role, Scrape, names};

struct Begun {
    role: Role,
    at: SystemTime,
}

static BEGUN: OnceLock<Begun> = OnceLock::new();

/// The process runs as this command.
pub fn begin(role: Role) {
    let _ = BEGUN.set(Begun { role, at: SystemTime::now() });
}

/// The command, if it is one that can be watched.
pub(super) fn role() -> Option<Role> {
    BEGUN.get().map(|begun| begun.role)
}

/// In which `/proc/self/stat` counts, on every machine that Linux runs on today.
const TICKS_A_SECOND: f64 = 100.0;

/// Tells it. What cannot be read is left out.
pub(super) fn collect(scrape: &mut Scrape) {
    if let Some(Begun { role, at }) = BEGUN.get() {
        let labels = [env!("CARGO_PKG_VERSION"), role.name()];
        scrape.count(&names::BUILD_INFO, &labels, 1);
        let since = at.duration_since(UNIX_EPOCH).unwrap_or_default();
        scrape.number(&names::START_TIME, &[], since.as_secs_f64());
    }
    // "pid (command) state ppid …": utime and stime are the fields 14 and 15, the threads field 20.
    let stat = fs::read_to_string("/proc/self/stat").unwrap_or_default();
    let fields: Vec<&str> =
        stat.rsplit(')').next().unwrap_or_default().split_ascii_whitespace().collect();
    let field = |number: usize| fields.get(number - 3)?.parse::<f64>().ok();
    if let (Some(user), Some(system), Some(threads)) = (field(14), field(15), field(20)) {
        scrape.number(&names::CPU, &[], (user + system) / TICKS_A_SECOND);
        scrape.number(&names::THREADS, &[], threads);
    }
    // "VmRSS:  1234 kB".
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let resident = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let kib = resident.and_then(|text| text.split_ascii_whitespace().next()?.parse::<u64>().ok());
    if let Some(kib) = kib {
        scrape.count(&names::RESIDENT, &[], kib << 10);
    }
    if let Ok(descriptors) = fs::read_dir("/proc/self/fd") {
        // One of them reads the folder.
        scrape.count(&names::OPEN_FDS, &[], (descriptors.count() as u64).saturating_sub(1));
    }
    if let Some(max) = getrlimit(Resource::Nofile).current {
        scrape.count(&names::MAX_FDS, &[], max);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_system_tells_something_of_all() {
        let mut scrape = Scrape::default();
        collect(&mut scrape);
        let text = scrape.text();
        let number = |name: &str| {
            let line = text.lines().find_map(|line| line.strip_prefix(&format!("{name} ")));
            line.unwrap_or_else(|| panic!("{name} in {text}")).parse::<f64>().expect("a number")
        };
        assert!(number(names::RESIDENT.name) > 1e6);
        assert!(number(names::THREADS.name) >= 1.0);
        assert!(number(names::OPEN_FDS.name) >= 3.0);
        assert!(number(names::MAX_FDS.name) >= number(names::OPEN_FDS.name));
        assert!(number(names::CPU.name) >= 0.0);
    }
}
