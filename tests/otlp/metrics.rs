//! Metrics, beside those that Prometheus gets.

use std::{
    collections::BTreeSet,
    io::{Read as _, Write as _},
    os::unix::net::UnixStream,
    path::Path,
};

use opentelemetry_proto::tonic::metrics::v1::{metric::Data, number_data_point::Value};

use crate::{
    Collector, Far,
    collector::text,
    end, sending,
    support::{Running, lazystore, wait_until},
};

/// The names of the metrics of which Prometheus gets numbers.
fn scraped(socket: &Path) -> BTreeSet<String> {
    let mut stream = UnixStream::connect(socket).expect("it listens");
    let request = "GET /metrics HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n";
    stream.write_all(request.as_bytes()).expect("it takes requests");
    let mut answer = String::new();
    stream.read_to_string(&mut answer).expect("it answers");
    let mut histograms = BTreeSet::new();
    let mut names = BTreeSet::new();
    for line in answer.split("\r\n\r\n").nth(1).expect("a body").lines() {
        if let Some(name) = line.strip_prefix("# TYPE ").and_then(|l| l.strip_suffix(" histogram"))
        {
            histograms.insert(name.to_owned());
        }
        let name = line.split(['{', ' ']).next().unwrap_or_default();
        let of_histogram = histograms.iter().find(|histogram| name.starts_with(histogram.as_str()));
        if name.starts_with("lazystore_") {
            names.insert(of_histogram.cloned().unwrap_or_else(|| name.to_owned()));
        }
    }
    names
}

#[test]
fn a_collector_gets_the_metrics_that_prometheus_gets() {
    let (collector, far) = (Collector::new(), Far::new());
    let socket = far.dir.path().join("metrics");
    let mut command = sending(lazystore(&far.dir.path().join("store")));
    command.env("OTEL_METRIC_EXPORT_INTERVAL", "100");
    command.args(["daemon", "--listen=127.0.0.1:0", "--otlp-endpoint", &collector.endpoint]);
    command.arg("--metrics").arg(format!("unix:{}", socket.display()));
    let mut daemon = Running::start(&mut command);
    daemon.wait_for_line("listening");
    wait_until("metrics come again and again", || {
        let metrics = collector.metrics();
        metrics.iter().filter(|(_, metric)| metric.name == "lazystore_build_info").count() > 2
    });
    let scraped = scraped(&socket);
    let got = collector.metrics();
    end(daemon);
    assert!(scraped.len() > 5, "{scraped:?}");
    let names: BTreeSet<_> = got.iter().map(|(_, metric)| metric.name.clone()).collect();
    assert_eq!(names, scraped);
    assert!(got.iter().all(|(command, _)| command == "daemon"));

    let resident = got.iter().find(|(_, m)| m.name.ends_with("resident_memory_bytes"));
    let (_, resident) = resident.expect("it is there");
    assert_eq!(resident.unit, "By");
    let Some(Data::Gauge(gauge)) = &resident.data else { panic!("{resident:?}") };
    let Some(Value::AsDouble(bytes)) = gauge.data_points[0].value else { panic!("{resident:?}") };
    assert!(bytes > 1e6, "{bytes}");
    let cpu = got.iter().find(|(_, m)| m.name == "lazystore_process_cpu_seconds_total");
    let Some(Data::Sum(sum)) = &cpu.expect("it is there").1.data else { panic!("{cpu:?}") };
    assert!(sum.is_monotonic);
    let build = got.iter().find(|(_, m)| m.name == "lazystore_build_info");
    let Some(Data::Gauge(gauge)) = &build.expect("it is there").1.data else { panic!("{build:?}") };
    let command = text(&gauge.data_points[0].attributes, "command");
    assert_eq!(command.as_deref(), Some("daemon"));
}
