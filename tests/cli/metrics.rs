//! What `--metrics` tells.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    os::unix::fs::PermissionsExt as _,
    path::Path,
};

use lazystore::observe::{Kind, Role, names};

use crate::{
    commands::failed,
    scrape::{Families, address, ask, scrape},
    support::{Running, can_mount, import, lazystore, run, wait_until, write},
};

#[test]
fn the_endpoint_answers_what_it_has_and_nothing_else() {
    let folder = tempfile::tempdir().expect("a folder");
    let socket = folder.path().join("metrics.sock");
    let addresses = format!("127.0.0.1:0,unix:{}", socket.display());
    let mut daemon = lazystore(&folder.path().join("store"));
    daemon.env("LAZYSTORE_METRICS", &addresses).args(["daemon", "--listen", "127.0.0.1:0"]);
    let mut daemon = Running::start(&mut daemon);
    let (tcp, unix) = (address(&mut daemon), address(&mut daemon));
    for address in [&tcp, &unix] {
        assert_eq!(ask(address, "GET /healthz").body, "ok\n");
        assert!(ask(address, "GET /").body.contains("/metrics"));
        let head = ask(address, "HEAD /metrics");
        assert_eq!((head.status, head.body.as_str()), (200, ""));
        assert_eq!(ask(address, "GET /metrics/").status, 404);
        assert_eq!(ask(address, "GET /../etc/passwd").status, 404);
        for method in ["POST", "PUT", "DELETE", "OPTIONS", "PATCH", "BREW"] {
            assert_eq!(ask(address, &format!("{method} /metrics")).status, 405, "{method}");
        }
        let families = scrape(address);
        let labels = [("command", "daemon"), ("version", env!("CARGO_PKG_VERSION"))];
        assert_eq!(families.sum("lazystore_build_info", &labels), 1.0);
        assert!(families.sum("lazystore_process_resident_memory_bytes", &[]) > 1e6);
    }
    let long = format!("GET /metrics?{}", "x".repeat(20_000));
    assert_ne!(ask(&tcp, &long).status, 200, "what is long is not read");
    // Clients that say nothing take no place for ever, and others are answered meanwhile.
    let _idle: Vec<_> = (0..10).map(|_| std::net::TcpStream::connect(&tcp)).collect();
    assert_eq!(ask(&tcp, "GET /healthz").body, "ok\n");
}

#[test]
fn an_address_that_cannot_be_had_is_told_before_anything_is_done() {
    let folder = tempfile::tempdir().expect("a folder");
    let taken = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
    let taken = taken.local_addr().expect("it is bound").to_string();
    let file = folder.path().join("file");
    fs::write(&file, "no socket").expect("written");
    fs::set_permissions(&file, fs::Permissions::from_mode(0o600)).expect("its mode can be set");
    for wrong in [&taken, "nonsense", &format!("unix:{}", file.display())] {
        let store = folder.path().join("store");
        let mut command = lazystore(&store);
        let output = command.args(["daemon", "--metrics", wrong]).output().expect("it runs");
        let said = failed(&output, 1);
        assert!(said.contains("choose another address for --metrics"), "{said}");
        assert!(said.contains(wrong), "{said}");
        assert!(!store.exists(), "nothing was opened");
    }
}

/// A row of the table in the document: kind, labels, commands and words of each metric.
fn documented() -> BTreeMap<String, [String; 4]> {
    let document = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/metrics.md");
    let document = fs::read_to_string(document).expect("the document");
    let rows = document.lines().filter(|line| line.starts_with("| `lazystore_"));
    rows.map(|row| {
        let mut cells = row.trim_matches('|').split(" | ").map(|cell| cell.trim().to_owned());
        let name = cells.next().expect("a name").trim_matches('`').to_owned();
        let cells: Vec<_> = cells.collect();
        (name, cells.try_into().unwrap_or_else(|_| panic!("five cells: {row}")))
    })
    .collect()
}

#[test]
fn the_document_has_every_metric_as_the_source_has_it() {
    let mut documented = documented();
    for metric in names::ALL {
        let labels: Vec<_> = metric.labels.iter().map(|label| format!("`{label}`")).collect();
        let commands: Vec<_> = metric.roles.iter().map(|role| role.name()).collect();
        let commands = match commands.len() == Role::ALL.len() {
            true => "all".to_owned(),
            false => commands.join(", "),
        };
        let expected =
            [metric.kind.name().to_owned(), labels.join(", "), commands, metric.help.to_owned()];
        assert_eq!(documented.remove(metric.name), Some(expected), "{}", metric.name);
    }
    assert!(documented.is_empty(), "the source has no {documented:?}");
}

/// What a command tells is what it should, with the labels that it should.
fn check_names(role: Role, families: &Families) {
    let expected = names::ALL.iter().filter(|metric| metric.roles.contains(&role));
    let expected: BTreeMap<_, _> = expected.map(|metric| (metric.name, *metric)).collect();
    let told: Vec<_> = families.0.keys().map(String::as_str).collect();
    assert_eq!(told, expected.keys().copied().collect::<Vec<_>>(), "{role:?}");
    for (name, family) in &families.0 {
        let metric = expected[name.as_str()];
        assert_eq!((family.kind.as_str(), &*family.help), (metric.kind.name(), metric.help));
        let labels: BTreeSet<_> = metric.labels.iter().copied().collect();
        for (sample, told, _) in &family.samples {
            let mut told: BTreeSet<_> = told.keys().map(String::as_str).collect();
            assert_eq!(told.remove("le"), sample.ends_with("_bucket"), "{sample}");
            assert_eq!(told, labels, "{sample}");
        }
    }
    let labels = [("command", role.name())];
    assert_eq!(families.sum(names::BUILD_INFO.name, &labels), 1.0);
}

#[test]
fn every_command_tells_what_the_source_says_and_nothing_else() {
    let folder = tempfile::tempdir().expect("a folder");
    let (store, file) = (folder.path().join("store"), folder.path().join("file"));
    write(&file, "contents", 0o644);
    import(&store, &file);
    let (mnt, guests) = (folder.path().join("mnt"), folder.path().join("guests"));
    for role in Role::ALL {
        let mut command = lazystore(&store);
        command.arg(role.name()).args(["--metrics", "127.0.0.1:0"]);
        match role {
            Role::Mount if !can_mount() => continue,
            Role::Mount => command.arg(&mnt),
            Role::Virtiofs => command.arg(&guests),
            Role::Daemon | Role::Serve => command.args(["--listen", "127.0.0.1:0"]),
        };
        let mut running = Running::start(&mut command);
        let address = address(&mut running);
        match role {
            Role::Mount => running.wait_for_line("mounted; Ctrl-C unmounts"),
            Role::Virtiofs => running.wait_for_line("waiting for guests"),
            Role::Daemon | Role::Serve => running.wait_for_line("listening"),
        };
        check_names(role, &scrape(&address));
        running.signal(rustix::process::Signal::TERM);
        assert!(running.wait());
    }
}

/// All words of `text` that begin like a metric.
fn named(text: &str) -> BTreeSet<String> {
    let is_of_name = |c: char| c.is_ascii_alphanumeric() || c == '_';
    let words = text.split(|c| !is_of_name(c)).filter(|word| word.starts_with("lazystore_"));
    words.map(str::to_owned).collect()
}

#[test]
fn the_dashboard_shows_every_metric_and_none_that_is_not_there() {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/grafana.json");
    let text = fs::read_to_string(file).expect("the dashboard");
    let dashboard: serde_json::Value = serde_json::from_str(&text).expect("JSON");
    let panels = dashboard["panels"].as_array().expect("panels");
    let ids: BTreeSet<_> = panels.iter().map(|panel| panel["id"].as_u64().expect("one")).collect();
    assert_eq!(ids.len(), panels.len());
    let mut shown = BTreeSet::new();
    for target in panels.iter().flat_map(|panel| panel["targets"].as_array()).flatten() {
        let query = target["expr"].as_str().expect("a query");
        for word in named(query) {
            let metric = names::ALL.iter().find(|metric| {
                let is_part = |part| word == format!("{}{part}", metric.name);
                match metric.kind {
                    Kind::Histogram => ["_bucket", "_sum", "_count"].into_iter().any(is_part),
                    Kind::Counter | Kind::Gauge => is_part(""),
                }
            });
            let metric = metric.unwrap_or_else(|| panic!("there is no {word}: {query}"));
            shown.insert(metric.name);
            // What is told apart is a label, and a counter is never looked at as it is.
            if let Some((_, by)) = query.split_once("sum by (") {
                let (by, _) = by.split_once(')').expect("it ends");
                let known = |label: &str| {
                    ["instance", "le"].contains(&label) || metric.labels.contains(&label)
                };
                assert!(by.split(", ").all(known), "{query}");
            }
            let is_rate = query.contains(&format!("rate({word}"))
                || query.contains(&format!("increase({word}"));
            assert_eq!(is_rate, metric.kind != Kind::Gauge, "{query}");
        }
    }
    let missing: Vec<_> =
        names::ALL.iter().map(|metric| metric.name).filter(|name| !shown.contains(name)).collect();
    assert_eq!(missing, [""; 0], "no panel shows those");
    for variable in named(&dashboard["templating"].to_string()) {
        assert!(names::ALL.iter().any(|metric| metric.name == variable), "{variable}");
    }
}

#[test]
fn what_documents_ask_prometheus_is_there() {
    let document = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/metrics.md");
    for word in named(&fs::read_to_string(document).expect("the document")) {
        let is_it = |name: &str| word == name || word.strip_prefix(name) == Some("_bucket");
        let was = "lazystore_service_";
        assert!(word == was || names::ALL.iter().any(|metric| is_it(metric.name)), "{word}");
    }
}

#[test]
fn programs_see_the_names_of_events_and_people_do_not() {
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("file");
    write(&file, "contents", 0o644);
    let import_as = |format: &str| {
        let mut command = lazystore(&folder.path().join("store"));
        command.args(["import", "--log-level", "info", "--log-format", format]).arg(&file);
        String::from_utf8(run(&mut command).stderr).expect("text")
    };
    for format in ["text", "journal"] {
        let said = import_as(format);
        assert!(said.contains("imported path=/nix/store/") && said.contains(" files=1"), "{said}");
        assert!(!said.contains("event"), "{said}");
    }
    let said = import_as("json");
    let line: serde_json::Value = serde_json::from_str(&said).expect("JSON");
    assert_eq!(
        (&line["fields"]["event"], &line["fields"]["files"]),
        (&"imported".into(), &1.into())
    );
}

#[test]
fn a_daemon_counts_calls_by_how_they_ended_under_one_name_for_both_dialects() {
    let folder = tempfile::tempdir().expect("a folder");
    let (store, file) = (folder.path().join("store"), folder.path().join("file"));
    write(&file, "contents", 0o644);
    let name = import(&store, &file);
    let mut daemon = lazystore(&store);
    daemon.args(["daemon", "--listen", "127.0.0.1:0", "--metrics", "127.0.0.1:0"]);
    let mut daemon = Running::start(&mut daemon);
    let metrics = address(&mut daemon);
    let line = daemon.wait_for_line("listening");
    let listening = line.split("address=").nth(1).and_then(|rest| rest.split(' ').next());
    let listening = listening.expect("it is told").trim_matches('"').to_owned();
    for dialect in ["tvix", "snix"] {
        let far = format!("grpc+http://{listening}?dialect={dialect}");
        let ask = |command: &str, path: &str| {
            let mut ask = lazystore(Path::new("/nonexistent"));
            ask.env("LAZYSTORE_STORE", &far).args([command, path]).output().expect("it runs")
        };
        assert_eq!(ask("cat", &format!("/nix/store/{name}")).stdout, b"contents");
        failed(&ask("path-info", &format!("/nix/store/{}-absent", "0".repeat(32))), 3);
    }
    // The daemon may be done a little later than its clients.
    let under_way = || scrape(&metrics).sum("lazystore_grpc_requests_in_flight", &[]);
    wait_until("all are over", || under_way() == 0.0);
    let count = |method, code| {
        let families = scrape(&metrics);
        let all =
            [("service", "tvix.store.v1.PathInfoService"), ("method", method), ("code", code)];
        families.sum("lazystore_grpc_requests_total", &all)
    };
    assert_eq!((count("Get", "Ok"), count("Get", "NotFound")), (2.0, 2.0));
    let families = scrape(&metrics);
    let get = [("service", "tvix.store.v1.PathInfoService"), ("method", "Get")];
    assert_eq!(families.sum("lazystore_grpc_request_seconds", &get), 4.0);
    let read = [("service", "tvix.castore.v1.BlobService"), ("method", "Read"), ("code", "Ok")];
    assert_eq!(families.sum("lazystore_grpc_requests_total", &read), 2.0);
    let asked = [("backend", "local"), ("service", "path_info"), ("operation", "get")];
    assert_eq!(families.sum("lazystore_service_absent_total", &asked), 2.0);
}
