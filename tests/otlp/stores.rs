//! Traces of what stores are asked that are no daemons.

use std::{net::TcpListener, path::Path};

use opentelemetry_proto::tonic::trace::v1::{Span, span::SpanKind, status::StatusCode::Error};

use crate::{
    Collector,
    bigtable_emulator::{self, Emulator},
    collector::{hex, number, text},
    end,
    http::Server,
    made_cache::{Made, address, file_archive, serve_info},
    s3::s3,
    sending,
    support::{import, lazystore, noise, run, write},
    traces::spans_of,
    web::{HttpServer, Trouble},
};
use lazystore::nix::Compression;

/// What a server told of one store path, whose answer had this status, and of its archive if it is there.
struct Told {
    status: u16,
    spans: Vec<Span>,
    operations: Vec<Span>,
    calls: Vec<Span>,
}

impl Told {
    /// Of a server that `prepare` made ready, which is asked for the store path `name`.
    fn of(name: &str, folder: &Path, prepare: impl FnOnce(&mut std::process::Command)) -> Self {
        let collector = Collector::new();
        let mut command = sending(lazystore(&folder.join("nothing")));
        prepare(&mut command);
        let server = Server::start(&mut command, &["--otlp-endpoint", &collector.endpoint]);
        let answer = server.get(&format!("{}.narinfo", &name[..32]), &[]);
        let status = answer.status;
        if let Some(url) = answer.text().lines().find_map(|line| line.strip_prefix("URL: ")) {
            assert_eq!(server.get(url, &[]).status, 200);
        }
        end(server.running);
        let all = collector.spans();
        assert!(!format!("{all:?}").contains("secret"), "{all:?}");
        Told {
            status,
            spans: all.iter().map(|(_, span)| span.clone()).collect(),
            operations: spans_of(&all, "serve", SpanKind::Internal),
            calls: spans_of(&all, "serve", SpanKind::Client),
        }
    }

    /// The first operation of that name, and the calls that were made for it. It belongs to a request.
    fn operation(&self, name: &str) -> (&Span, Vec<&Span>) {
        let operation = self.operations.iter().find(|span| span.name == name);
        let operation = operation.unwrap_or_else(|| panic!("no {name} in {:?}", self.operations));
        let is_of_trace = |span: &&Span| span.trace_id == operation.trace_id;
        let mut roots =
            self.spans.iter().filter(is_of_trace).filter(|s| s.parent_span_id.is_empty());
        assert!(roots.next().is_some_and(|root| root.name.starts_with("GET nar")), "{operation:?}");
        let calls = self.calls.iter().filter(|call| call.parent_span_id == operation.span_id);
        (operation, calls.collect())
    }
}

/// A tree, and a store directory with it.
fn made(folder: &Path) -> String {
    let tree = folder.join("tree");
    std::fs::create_dir(&tree).expect("new");
    write(tree.join("file"), noise(1, 300_000), 0o644);
    import(&folder.join("store"), &tree)
}

fn failed(span: &Span) -> bool {
    span.status.as_ref().is_some_and(|status| status.code() == Error)
}

#[test]
fn what_a_bucket_is_asked_is_told_each_request_of_it() {
    let Some(s3) = s3() else { return };
    let folder = tempfile::tempdir().expect("a folder");
    let name = made(folder.path());
    let store = s3.store();
    let mut import = lazystore(&folder.path().join("nothing"));
    run(import.env("LAZYSTORE_STORE", &store).arg("import").arg(folder.path().join("tree")));
    let told = Told::of(&name, folder.path(), |serve| {
        serve.env("LAZYSTORE_STORE", &store);
    });
    assert_eq!(told.status, 200);
    let (operation, calls) = told.operation("objectstore path_info get");
    assert_eq!(text(&operation.attributes, "lazystore.key").as_deref(), Some(&name[..32]));
    let [call] = &calls[..] else { panic!("{calls:?}") };
    assert_eq!(call.name, "GET");
    assert_eq!(number(&call.attributes, "http.response.status_code"), Some(200));
    assert_eq!(text(&call.attributes, "server.address").as_deref(), Some("127.0.0.1"));
    assert_eq!(number(&call.attributes, "server.port"), Some(s3.address.port().into()));
    assert!(number(&call.attributes, "lazystore.bytes").is_some_and(|bytes| bytes > 50));
    let url = text(&call.attributes, "url.full").expect("it says where");
    assert!(url.contains("/pathinfos/") && url.ends_with(&name[..32]), "{url}");
    for name in ["objectstore directory get_closure", "objectstore blob read"] {
        let (operation, calls) = told.operation(name);
        assert!(!calls.is_empty() && !failed(operation), "{name}");
    }
}

#[test]
fn attempts_that_come_to_nothing_are_told_each() {
    let folder = tempfile::tempdir().expect("a folder");
    // A port that was free a moment ago.
    let listener = TcpListener::bind("127.0.0.1:0").expect("it listens");
    let address = listener.local_addr().expect("an address");
    drop(listener);
    let name = "0".repeat(32);
    let store = format!(
        "objectstore+s3://bucket?endpoint=http://{address}&allow_http=true&region=eu&timeout=2\
         &access_key_id=key&secret_access_key=secret"
    );
    let told = Told::of(&name, folder.path(), |serve| {
        serve.env("LAZYSTORE_STORE", &store);
    });
    assert!(told.status >= 503, "{}", told.status);
    let (operation, calls) = told.operation("objectstore path_info get");
    assert!(failed(operation), "{operation:?}");
    assert!(calls.len() > 1 && calls.iter().all(|call| failed(call)), "{calls:?}");
}

#[test]
fn what_a_table_is_asked_is_told() {
    let Some(emulator) = Emulator::start() else { return };
    let folder = tempfile::tempdir().expect("a folder");
    let name = made(folder.path());
    let local = format!("local://{}", folder.path().join("store").display());
    let mut command = lazystore(&folder.path().join("store"));
    let over_table = |command: &mut std::process::Command| {
        command
            .env("BIGTABLE_EMULATOR_HOST", emulator.address.to_string())
            .env("BLOB_SERVICE_ADDR", &local)
            .env("DIRECTORY_SERVICE_ADDR", bigtable_emulator::address())
            .env("PATH_INFO_SERVICE_ADDR", bigtable_emulator::address());
    };
    over_table(&mut command);
    run(command.arg("import").arg(folder.path().join("tree")));
    let told = Told::of(&name, folder.path(), over_table);
    assert_eq!(told.status, 200);
    for (operation, key) in
        [("bigtable path_info get", Some(&name[..32])), ("bigtable directory get_closure", None)]
    {
        let (operation, calls) = told.operation(operation);
        if let Some(key) = key {
            assert_eq!(text(&operation.attributes, "lazystore.key").as_deref(), Some(key));
        }
        assert!(!calls.is_empty(), "{operation:?}");
        for call in calls {
            assert_eq!(call.name, "google.bigtable.v2.Bigtable/ReadRows");
            let port = number(&call.attributes, "server.port");
            assert_eq!(port, Some(emulator.address.port().into()));
            assert!(!failed(call), "{call:?}");
        }
    }
}

#[test]
fn what_a_binary_cache_is_asked_is_told_and_it_is_told_of_no_trace() {
    let folder = tempfile::tempdir().expect("a folder");
    let server = HttpServer::new();
    serve_info(&server);
    let mut made = Made::new("traced", &file_archive(&noise(7, 200_000)), Compression::None);
    made.told.archive.url = "nar/traced.nar?token=secret".parse().expect("a URL");
    made.serve(&server);
    server.put("nar/traced.nar", made.file.clone());
    server.trouble("nar/traced.nar", Trouble::Break { after: 100_000, times: 1 });
    server.require("Basic bWU6c2VjcmV0");
    let netrc = folder.path().join("netrc");
    std::fs::write(&netrc, "machine 127.0.0.1 login me password secret").expect("written");
    let name = made.told.store_path.to_string();
    let told = Told::of(&name, folder.path(), |serve| {
        serve.env("LAZYSTORE_STORE", address(&server));
        serve.env("LAZYSTORE_CACHE_DIR", folder.path().join("cache"));
        serve.env("NETRC", &netrc);
    });
    assert_eq!(told.status, 200);
    let (_, calls) = told.operation("nix path_info get");
    let of = |name: &str| calls.iter().filter(|call| call.name == name).collect::<Vec<_>>();
    let [narinfo] = &of("GET narinfo")[..] else { panic!("{calls:?}") };
    let url = format!("{}/{}", server.url(), made.narinfo_name());
    assert_eq!(text(&narinfo.attributes, "url.full"), Some(url));
    // The first breaks off, the second goes on.
    let [broken, rest] = &of("GET nar")[..] else { panic!("{calls:?}") };
    assert!(failed(broken) && !failed(rest), "{calls:?}");
    assert_eq!(number(&rest.attributes, "http.response.status_code"), Some(206));
    let url = format!("{}/nar/traced.nar", server.url());
    assert_eq!(text(&rest.attributes, "url.full"), Some(url));
    let bytes = [broken, rest].map(|call| number(&call.attributes, "lazystore.bytes"));
    assert_eq!(bytes.iter().flatten().sum::<i64>(), made.file.len() as i64, "{bytes:?}");

    for name in ["nix-cache-info", &*made.narinfo_name(), "nar/traced.nar"] {
        let told = server.headers(name, "traceparent".parse().expect("a header"));
        assert!(!told.is_empty() && told.iter().all(Option::is_none), "{name}: {told:?}");
    }
}

#[test]
fn a_trace_goes_on_in_a_binary_cache_of_ones_own_and_nowhere_else() {
    let folder = tempfile::tempdir().expect("a folder");
    let (ours, other) = (HttpServer::new(), HttpServer::new());
    serve_info(&ours);
    let made = Made::new("traced", &file_archive(&noise(7, 20_000)), Compression::None);
    made.serve(&ours);
    made.serve(&other);
    ours.trouble("nar/traced.nar", Trouble::Redirect(format!("{}/nar/traced.nar", other.url())));
    let name = made.told.store_path.to_string();
    let told = Told::of(&name, folder.path(), |serve| {
        serve.env("LAZYSTORE_STORE", format!("{}&traceparent=1", address(&ours)));
        serve.env("LAZYSTORE_CACHE_DIR", folder.path().join("cache"));
    });
    assert_eq!(told.status, 200);
    let traceparent = || "traceparent".parse().expect("a header");
    let (_, calls) = told.operation("nix path_info get");
    let narinfo = calls.iter().find(|call| call.name == "GET narinfo").expect("it was asked");
    let told = ours.headers(&made.narinfo_name(), traceparent());
    let expected = format!("00-{}-{}-01", hex(&narinfo.trace_id), hex(&narinfo.span_id));
    assert_eq!(told, [Some(expected)]);
    assert!(ours.headers("nar/traced.nar", traceparent()).iter().all(Option::is_some));
    assert_eq!(other.headers("nar/traced.nar", traceparent()), [None]);
}
