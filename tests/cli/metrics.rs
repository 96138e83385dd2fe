//! What `--metrics` tells.

use std::{fs, os::unix::fs::PermissionsExt as _};

use crate::{
    commands::failed,
    scrape::{address, ask, scrape},
    support::{Running, lazystore},
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
