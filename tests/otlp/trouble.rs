//! Collectors that are no help.

use std::{
    fs,
    net::TcpListener,
    time::{Duration, Instant},
};

use crate::{
    Far, over,
    support::{Mounted, can_mount, lazystore, noise},
};

/// How long the end may take: what the collector gets, and what a loaded machine needs besides.
const END_MAX: Duration = Duration::from_secs(8);

/// Reads through a mount whose collector is at `endpoint`, and ends it. Returns what it said.
fn read_and_end(endpoint: &str) -> Vec<String> {
    let far = Far::new();
    let (daemon, address) = far.daemon(endpoint);
    let mut command = over(address);
    // Everything is tried at once, again and again.
    command.env("OTEL_BSP_SCHEDULE_DELAY", "10").env("OTEL_METRIC_EXPORT_INTERVAL", "100");
    let mut mounted =
        Mounted::with(&mut command, &far.mountpoint(), &["--otlp-endpoint", endpoint]);
    let began = Instant::now();
    let file = mounted.path.join(&far.name).join("file");
    assert_eq!(fs::read(&file).expect("it reads"), noise(1, crate::FILE_LEN));
    assert!(began.elapsed() < Duration::from_secs(5), "{:?}", began.elapsed());
    std::thread::sleep(Duration::from_millis(500));
    let began = Instant::now();
    mounted.running.signal(rustix::process::Signal::TERM);
    assert!(mounted.running.wait(), "it said:\n{}", mounted.running.log.join("\n"));
    assert!(began.elapsed() < END_MAX, "{:?}", began.elapsed());
    crate::end(daemon);
    std::mem::take(&mut mounted.running.log)
}

#[test]
fn a_collector_that_is_not_there_harms_nobody_and_is_told_of_once() {
    if !can_mount() {
        return;
    }
    // A port that was free a moment ago.
    let listener = TcpListener::bind("127.0.0.1:0").expect("it listens");
    let address = listener.local_addr().expect("an address");
    drop(listener);
    let said = read_and_end(&format!("http://{address}"));
    let told = |what: &str| {
        let line = |line: &&String| line.contains("takes nothing") && line.contains(what);
        said.iter().filter(line).count()
    };
    assert_eq!((told("traces"), told("metrics")), (1, 1), "{said:#?}");
}

#[test]
fn a_collector_that_never_answers_holds_nobody_up() {
    if !can_mount() {
        return;
    }
    // It takes connections, and nothing more.
    let listener = TcpListener::bind("127.0.0.1:0").expect("it listens");
    let address = listener.local_addr().expect("an address");
    read_and_end(&format!("http://{address}"));
}

#[test]
fn an_endpoint_that_is_none_is_refused_before_anything_begins() {
    let dir = tempfile::tempdir().expect("a folder");
    for (option, variable, expected) in [
        (Some("collector:4317"), None, "expected http://host:port"),
        (None, Some(("OTEL_EXPORTER_OTLP_ENDPOINT", "x")), "OTEL_EXPORTER_OTLP_ENDPOINT"),
        (Some("http://a:1"), Some(("OTEL_EXPORTER_OTLP_TIMEOUT", "soon")), "milliseconds"),
    ] {
        let mut command = lazystore(dir.path());
        command.args(["daemon", "--listen=127.0.0.1:0"]);
        if let Some(option) = option {
            command.args(["--otlp-endpoint", option]);
        }
        command.envs(variable);
        let output = command.output().expect("it runs");
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(!output.status.success() && said.contains(expected), "{said}");
    }
}
