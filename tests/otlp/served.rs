//! Traces of what clients ask of `serve`.

use std::{
    io::{Read as _, Write as _},
    net::TcpStream,
};

use lazystore::nix::Compression;
use opentelemetry_proto::tonic::trace::v1::{
    Span,
    span::SpanKind,
    status::StatusCode::{Error, Unset},
};
use rustix::process::Signal;

use crate::{
    Collector, FILE_LEN, Far,
    collector::{flag, hex, number, text},
    end,
    http::Server,
    made_cache::{Made, file_archive},
    over,
    support::{noise, wait_until},
    traces::{spans_of, without_greetings},
};

const TRACE: &str = "0af7651916cd43dd8448eb211c80319c";
const PARENT: &str = "b7ad6b7169203331";

fn traceparent() -> String {
    format!("traceparent: 00-{TRACE}-{PARENT}-01")
}

/// The NAR of the one path that is served, below the cache's URL; and what was asked for to know it.
fn nar_of(server: &Server, far: &Far) -> (String, String) {
    let narinfo = format!("{}.narinfo", &far.name[..32]);
    let answer = server.get(&narinfo, &[]);
    assert_eq!(answer.status, 200, "{}", answer.text());
    let url = answer.text().lines().find_map(|line| line.strip_prefix("URL: ").map(str::to_owned));
    (url.expect("it tells where the archive is"), narinfo)
}

fn named<'a>(spans: &'a [Span], name: &str) -> &'a Span {
    let mut found = spans.iter().filter(|span| span.name == name);
    let span = found.next().unwrap_or_else(|| panic!("no {name} among {spans:?}"));
    assert!(found.next().is_none(), "{name} is there twice");
    span
}

#[test]
fn a_request_of_nix_is_one_trace_with_what_the_daemon_is_asked_for_it() {
    let (collector, far) = (Collector::new(), Far::new());
    let (daemon, address) = far.daemon(&collector.endpoint);
    let mut command = over(address);
    let server = Server::start(&mut command, &["--otlp-endpoint", &collector.endpoint]);
    let (url, narinfo) = nar_of(&server, &far);
    let headers = [&*traceparent(), "authorization: Bearer sekret"];
    let answer = server.get(&format!("{url}?token=sekret"), &headers);
    assert_eq!(answer.status, 200, "{}", answer.text());
    assert!(answer.body.len() > FILE_LEN);
    assert_eq!(server.get("sekret/path", &[]).status, 404);
    assert_eq!(server.request("SEKRET", "nix-cache-info", &[], b"").status, 405);
    assert_eq!(server.request("HEAD", &url, &[], b"").status, 200);
    end(server.running);
    end(daemon);

    let spans = collector.spans();
    assert!(!format!("{spans:?}").to_lowercase().contains("sekret"), "{spans:?}");
    let served = spans_of(&spans, "serve", SpanKind::Server);
    assert_eq!(served.len(), 5, "{served:?}");
    let nar = named(&served, "GET nar");
    assert_eq!((&*hex(&nar.trace_id), &*hex(&nar.parent_span_id)), (TRACE, PARENT));
    assert_eq!(number(&nar.attributes, "http.response.status_code"), Some(200));
    assert_eq!(number(&nar.attributes, "lazystore.bytes"), Some(answer.body.len() as i64));
    assert_eq!(text(&nar.attributes, "http.route").as_deref(), Some("/nar/{file}"));
    assert_eq!(text(&nar.attributes, "url.path"), Some(format!("/{url}")));
    assert_eq!(nar.status.clone().unwrap_or_default().code(), Unset);

    // Whatever the daemon was asked for it is part of it, also what was read while the answer was on its way.
    let calls = spans_of(&spans, "serve", SpanKind::Client);
    let asked = without_greetings(spans_of(&spans, "daemon", SpanKind::Server));
    let read = asked.iter().filter(|span| hex(&span.trace_id) == TRACE);
    let names: Vec<_> = read.clone().map(|span| span.name.as_str()).collect();
    assert!(names.iter().any(|name| name.contains("Blob") && name.ends_with("/Read")), "{names:?}");
    for span in read {
        let call = calls.iter().find(|call| call.span_id == span.parent_span_id);
        let call = call.unwrap_or_else(|| panic!("nobody asked for {span:?}"));
        assert!(nar.end_time_unix_nano >= call.start_time_unix_nano, "{call:?} {nar:?}");
    }
    let told = named(&served, "GET narinfo");
    assert!(told.parent_span_id.is_empty());
    assert_eq!(text(&told.attributes, "url.path"), Some(format!("/{narinfo}")));
    let of_told = asked.iter().filter(|span| span.trace_id == told.trace_id);
    assert!(of_told.clone().any(|span| span.name.ends_with("PathInfoService/Get")), "{asked:?}");

    let absent = named(&served, "GET none");
    assert_eq!(number(&absent.attributes, "http.response.status_code"), Some(404));
    assert_eq!(text(&absent.attributes, "url.path"), None);
    let odd = named(&served, "HTTP cache_info");
    assert_eq!(text(&odd.attributes, "http.request.method").as_deref(), Some("_OTHER"));
    assert!(served.iter().all(|span| !flag(&span.attributes, "lazystore.cut_short")), "{served:?}");
}

#[test]
fn a_client_that_goes_away_ends_the_span_of_its_request() {
    // Far more than lies between two processes.
    const LEN: usize = 64 << 20;
    let (collector, far) = (Collector::new(), Far::with(LEN));
    let (daemon, address) = far.daemon(&collector.endpoint);
    let mut command = over(address);
    command.env("OTEL_BSP_SCHEDULE_DELAY", "10");
    let server = Server::start(&mut command, &["--otlp-endpoint", &collector.endpoint]);
    let (url, _) = nar_of(&server, &far);
    let mut client = TcpStream::connect(&server.client.address).expect("it listens");
    let request = format!("GET /{url} HTTP/1.1\r\nHost: x\r\n{}\r\n\r\n", traceparent());
    client.write_all(request.as_bytes()).expect("it takes requests");
    client.read_exact(&mut [0; 100_000]).expect("it begins to answer");
    let served = || spans_of(&collector.spans(), "serve", SpanKind::Server);
    let of_nar = || served().into_iter().find(|span| span.name == "GET nar");
    wait_until("the narinfo is told of", || !served().is_empty());
    assert_eq!(of_nar(), None, "it goes on");
    drop(client);
    wait_until("the span ends", || of_nar().is_some());
    let span = of_nar().expect("it was there");
    assert!(flag(&span.attributes, "lazystore.cut_short"), "{span:?}");
    let sent = number(&span.attributes, "lazystore.bytes").expect("it says how much");
    assert!(sent >= 100_000 && sent < LEN as i64, "{sent}");
    end(server.running);
    end(daemon);
}

#[test]
fn a_request_that_fails_on_our_side_is_an_error_with_its_reason() {
    let (collector, far) = (Collector::new(), Far::new());
    let (daemon, address) = far.daemon(&collector.endpoint);
    let mut command = over(address);
    let server = Server::start(&mut command, &["--otlp-endpoint", &collector.endpoint]);
    daemon.signal(Signal::KILL);
    let narinfo = format!("{}.narinfo", &far.name[..32]);
    assert_eq!(server.get(&narinfo, &[]).status, 503);
    end(server.running);
    let served = spans_of(&collector.spans(), "serve", SpanKind::Server);
    let span = named(&served, "GET narinfo");
    let status = span.status.clone().expect("it has one");
    assert_eq!(status.code(), Error);
    assert!(status.message.contains(&address.to_string()), "{status:?}");
    assert_eq!(text(&span.attributes, "error.type").as_deref(), Some("503"));
}

#[test]
fn what_a_client_brings_is_stored_as_part_of_its_trace() {
    let (collector, far) = (Collector::new(), Far::new());
    let (daemon, address) = far.daemon(&collector.endpoint);
    let mut command = over(address);
    let args = ["--allow-upload", "--otlp-endpoint", &collector.endpoint];
    let server = Server::start(&mut command, &args);
    // A file that is sent in pieces, and a short one.
    for (name, len) in [("long", 3 << 20), ("short", 1000)] {
        let made = Made::new(name, &file_archive(&noise(3, len)), Compression::Zstd);
        let url = made.told.archive.url.as_str();
        let answer = server.request("PUT", url, &[&traceparent()], &made.file);
        assert_eq!(answer.status, 201, "{}", answer.text());
    }
    end(server.running);
    end(daemon);
    let spans = collector.spans();
    let puts = spans_of(&spans, "daemon", SpanKind::Server);
    let puts = puts.iter().filter(|span| span.name.ends_with("BlobService/Put"));
    assert_eq!(puts.clone().count(), 2, "{spans:?}");
    assert!(puts.clone().all(|span| hex(&span.trace_id) == TRACE), "{spans:?}");
    let served = spans_of(&spans, "serve", SpanKind::Server);
    let brought = served.iter().filter(|span| span.name == "PUT file");
    assert!(
        brought.clone().count() == 2 && brought.clone().all(|s| hex(&s.parent_span_id) == PARENT)
    );
}
