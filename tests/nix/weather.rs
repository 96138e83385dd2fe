//! Binary caches that are slow, far, behind a password, or not there.

use std::{
    fs,
    path::Path,
    time::{Duration, Instant},
};

use axum::http::header::{AUTHORIZATION, IF_RANGE, RANGE};
use lazystore::{
    compose::{Addresses, open},
    nix::Compression,
    service::{Error, Stores},
};
use tokio::runtime::Runtime;

use crate::{
    made_cache::{Made, address, file_archive, serve_info},
    proxy::{Proxy, Weather},
    refusing::{addresses, tree},
    support::noise,
    web::{HttpServer, Trouble},
};

/// How long an answer may take in these tests, in seconds.
const TIMEOUT: u64 = 2;

/// What is done within the deadline is done within this, on a loaded machine.
const IN_TIME: Duration = Duration::from_secs(3 * TIMEOUT);

struct Fixture {
    folder: tempfile::TempDir,
    runtime: Runtime,
}

impl Fixture {
    fn new() -> Self {
        Fixture {
            folder: tempfile::tempdir().expect("a folder"),
            runtime: Runtime::new().expect("a runtime"),
        }
    }

    fn path(&self) -> &Path {
        self.folder.path()
    }

    fn open(&self, store: &str) -> Stores {
        self.open_at(&addresses(self.path(), store))
    }

    fn open_at(&self, addresses: &Addresses) -> Stores {
        let _in_runtime = self.runtime.enter();
        open(addresses).expect("it opens")
    }

    fn get(&self, stores: &Stores, made: &Made) -> Result<bool, Error> {
        let digest = made.told.store_path.digest();
        let found = stores.path_infos.get(&digest);
        self.runtime.block_on(found).map(|found| found.is_some())
    }

    /// The error of looking the path up, and that it came in time.
    fn fails_in_time(&self, stores: &Stores, made: &Made) -> Error {
        let began = Instant::now();
        let error = self.get(stores, made).expect_err("it fails");
        assert!(began.elapsed() < IN_TIME, "{:?}: {error}", began.elapsed());
        error
    }
}

fn server() -> HttpServer {
    let server = HttpServer::new();
    serve_info(&server);
    server
}

fn impatient(server: &HttpServer) -> String {
    format!("{}&timeout={TIMEOUT}", address(server))
}

/// A path whose archive is long enough to break off, and does not compress.
fn large(name: &str) -> Made {
    Made::new(name, &file_archive(&noise(name.len() as u64, 3 << 20)), Compression::Zstd)
}

#[test]
fn absent_is_not_broken() {
    let (fixture, server) = (Fixture::new(), server());
    let stores = fixture.open(&impatient(&server));
    let made = Made::new("somewhere", &tree(1), Compression::Xz);
    assert!(!fixture.get(&stores, &made).expect("it is absent"));
    for status in [403, 404, 410] {
        server.trouble(&made.narinfo_name(), Trouble::Status(status));
        assert!(!fixture.get(&stores, &made).expect("it is absent"), "{status}");
    }
    for (status, said) in [(500, "500"), (503, "503"), (429, "429"), (400, "400"), (401, "netrc")] {
        server.trouble(&made.narinfo_name(), Trouble::Status(status));
        let error = fixture.fails_in_time(&stores, &made);
        assert!(matches!(error, Error::Unavailable { .. }), "{error}");
        assert!(error.to_string().contains(said), "{error}");
    }
    made.serve(&server);
    server.heal();
    assert!(fixture.get(&stores, &made).expect("it is there"));
}

#[test]
fn what_stands_still_or_trickles_ends_in_time() {
    let (fixture, server) = (Fixture::new(), server());
    let made = large("slow");
    made.serve(&server);
    let archive = made.told.archive.url.to_string();
    for name in [made.narinfo_name(), archive] {
        for trouble in
            [Trouble::Silence, Trouble::Stall(100), Trouble::Trickle(Duration::from_millis(100))]
        {
            // Each has a circuit of its own.
            let stores = fixture.open(&impatient(&server));
            server.trouble(&name, trouble.clone());
            let error = fixture.fails_in_time(&stores, &made);
            let is_late = matches!(error, Error::TimedOut { .. } | Error::Unavailable { .. });
            assert!(is_late, "{name} {trouble:?}: {error}");
            server.heal();
        }
    }
    let stores = fixture.open(&impatient(&server));
    assert!(fixture.get(&stores, &made).expect("it heals"));
}

#[test]
fn a_cache_that_is_not_there_is_named_at_once_and_taken_back() {
    let fixture = Fixture::new();
    let server = server();
    let made = Made::new("late", &tree(2), Compression::Gzip);
    made.serve(&server);
    let proxy = Proxy::new(server.address());
    let at = format!("http://{}", proxy.address);
    let far = address(&server).replace(&server.url(), &at);
    let stores = fixture.open(&format!("{far}&timeout={TIMEOUT}"));
    proxy.weather(Weather::Down);
    for _ in 0..6 {
        let error = fixture.fails_in_time(&stores, &made);
        assert!(matches!(error, Error::Unavailable { .. }), "{error}");
    }
    let began = Instant::now();
    for _ in 0..100 {
        fixture.get(&stores, &made).expect_err("it is away");
    }
    assert!(began.elapsed() < Duration::from_secs(2), "{:?}", began.elapsed());
    proxy.weather(Weather::Fair);
    crate::support::wait_until("the cache is back", || fixture.get(&stores, &made).is_ok());
    assert!(fixture.get(&stores, &made).expect("it is there"));
}

#[test]
fn a_file_that_breaks_off_goes_on_where_it_broke() {
    for ranges in [true, false] {
        let (fixture, server) = (Fixture::new(), server());
        if !ranges {
            server.without_ranges();
        }
        let made = large("broken");
        made.serve(&server);
        let archive = made.told.archive.url.to_string();
        server.trouble(&archive, Trouble::Break { after: 1 << 20, times: 2 });
        let stores = fixture.open(&address(&server));
        assert!(fixture.get(&stores, &made).expect("it goes on"), "ranges: {ranges}");
        let asked = server.headers(&archive, RANGE);
        assert_eq!(asked.len(), 3, "{asked:?}");
        assert_eq!(asked[0], None);
        assert!(asked[1..].iter().all(Option::is_some), "{asked:?}");
        assert_eq!(server.headers(&archive, IF_RANGE), [None, None, None]);

        // One that never gets on is given up.
        let made = large("always-broken");
        made.serve(&server);
        let archive = made.told.archive.url.to_string();
        server.trouble(&archive, Trouble::Break { after: 0, times: usize::MAX });
        let error = fixture.get(&stores, &made).expect_err("it is given up");
        assert!(matches!(error, Error::Unavailable { .. }), "{error}");
        assert!(server.asked(&archive) <= 4, "{}", server.asked(&archive));
    }
}

#[test]
fn redirects_are_followed_but_not_for_ever_nor_with_a_token() {
    let (fixture, server, other) = (Fixture::new(), server(), server());
    let token = fixture.path().join("token");
    fs::write(&token, "t0ken").expect("written");
    let stores = fixture.open(&format!("{}&token-file={}", address(&server), token.display()));
    let made = large("moved");
    made.serve(&server);
    let archive = made.told.archive.url.to_string();
    let moved = format!("{}/elsewhere?signed=1", other.url());
    server.trouble(&archive, Trouble::Redirect("/second".to_owned()));
    server.put("second", "");
    server.trouble("second", Trouble::Redirect(moved));
    other.put("elsewhere", made.file.clone());
    assert!(fixture.get(&stores, &made).expect("it is found"));
    let bearer = [Some("Bearer t0ken".to_owned())];
    assert_eq!(server.headers("second", AUTHORIZATION), bearer);
    assert_eq!(other.headers("elsewhere", AUTHORIZATION), [None]);

    let circle = Made::new("circle", &tree(3), Compression::Xz);
    server.put(&circle.narinfo_name(), "");
    let again = Trouble::Redirect(format!("/{}", circle.narinfo_name()));
    server.trouble(&circle.narinfo_name(), again);
    let error = fixture.get(&stores, &circle).expect_err("it does not end").to_string();
    assert!(error.contains("more than 5 redirects"), "{error}");
    assert_eq!(server.asked(&circle.narinfo_name()), 6);
    for (to, said) in [("file:///etc/passwd", "not followed"), ("http://[", "invalid")] {
        server.trouble(&circle.narinfo_name(), Trouble::Redirect(to.to_owned()));
        let error = fixture.get(&stores, &circle).expect_err("it leads nowhere").to_string();
        assert!(error.contains(said), "{error}");
    }
}

#[test]
fn a_cache_may_want_a_name_and_password_or_a_token() {
    let (fixture, server) = (Fixture::new(), server());
    let made = Made::new("private", &tree(4), Compression::Xz);
    made.serve(&server);
    let (netrc, token) = (fixture.path().join("netrc"), fixture.path().join("token"));
    fs::write(&netrc, "machine 127.0.0.1 login me password pass").expect("written");
    fs::write(&token, "t0ken\n").expect("written");
    for (authorization, option) in [
        ("Basic bWU6cGFzcw==", format!("netrc={}", netrc.display())),
        ("Bearer t0ken", format!("netrc=/dev/null&token-file={}", token.display())),
    ] {
        server.require(authorization);
        let nothing = fixture.open(&format!("{}&netrc=/dev/null", address(&server)));
        let error = fixture.get(&nothing, &made).expect_err("it wants to know who").to_string();
        assert!(error.contains("401") && error.contains("netrc"), "{error}");
        let folder = tempfile::tempdir().expect("a folder");
        let at = addresses(folder.path(), &format!("{}&{option}", address(&server)));
        assert!(fixture.get(&fixture.open_at(&at), &made).expect("it is let in"), "{option}");
    }
}

#[test]
fn several_caches_are_asked_in_order_and_one_that_fails_stops_none() {
    let fixture = Fixture::new();
    let (first, second) = (server(), server());
    second.put("nix-cache-info", "StoreDir: /nix/store\nPriority: 10\n");
    let both = format!("{} {}", impatient(&first), impatient(&second));
    let stores = fixture.open(&both);
    let made = |name: &str| Made::new(name, &tree(name.len()), Compression::Xz);

    let everywhere = made("everywhere");
    everywhere.serve(&first);
    everywhere.serve(&second);
    assert!(fixture.get(&stores, &everywhere).expect("it is there"));
    assert_eq!((first.asked("nar/"), second.asked("nar/")), (0, 1), "by their own priorities");
    let only_first = made("only-in-the-first");
    only_first.serve(&first);
    assert!(fixture.get(&stores, &only_first).expect("it is there"));
    let nowhere = made("nowhere-at-all");
    assert!(!fixture.get(&stores, &nowhere).expect("it is absent"));

    // The second lies, is damaged, has lost the archive, or is broken: the first has it all the same.
    let lies = made("lies");
    lies.serve(&first);
    let mut unsigned = lies.clone();
    unsigned.told.info.signatures.clear();
    unsigned.serve(&second);
    assert!(fixture.get(&stores, &lies).expect("the other one is believed"));
    let damaged = made("damaged-archive");
    damaged.serve(&first);
    Made { file: b"garbage".to_vec(), ..damaged.clone() }.serve(&second);
    assert!(fixture.get(&stores, &damaged).expect("the other one is whole"));
    let lost = made("lost-and-found-archive");
    lost.serve(&first);
    second.put(&lost.narinfo_name(), lost.told.to_string());
    assert!(fixture.get(&stores, &lost).expect("the other one has it"));
    let broken = made("broken");
    broken.serve(&first);
    second.trouble(&broken.narinfo_name(), Trouble::Status(500));
    assert!(fixture.get(&stores, &broken).expect("the other one answers"));
    // But what one cannot tell is not absent because the others do not have it.
    second.trouble(&nowhere.narinfo_name(), Trouble::Status(500));
    fixture.get(&stores, &nowhere).expect_err("nobody knows");

    // What is said in the address counts more than what a cache says.
    let folder = tempfile::tempdir().expect("a folder");
    let first_first = format!("{}&priority=1 {}", impatient(&first), impatient(&second));
    let stores = fixture.open_at(&addresses(folder.path(), &first_first));
    let before = (first.asked("nar/"), second.asked("nar/"));
    assert!(fixture.get(&stores, &everywhere).expect("it is there"));
    assert_eq!((first.asked("nar/"), second.asked("nar/")), (before.0 + 1, before.1));
}

#[test]
fn a_slow_cache_does_not_keep_the_others_waiting_for_long() {
    let fixture = Fixture::new();
    let (slow, quick) = (server(), server());
    let made = Made::new("quick", &tree(9), Compression::Xz);
    made.serve(&quick);
    slow.put(&made.narinfo_name(), "");
    slow.trouble(&made.narinfo_name(), Trouble::Silence);
    let stores =
        fixture.open(&format!("{}&priority=1 {}&priority=2", address(&slow), address(&quick)));
    let began = Instant::now();
    assert!(fixture.get(&stores, &made).expect("the other one answers"));
    assert!(began.elapsed() < Duration::from_secs(15), "{:?}", began.elapsed());
}

#[test]
fn offline_nobody_is_asked() {
    let (fixture, server) = (Fixture::new(), server());
    let (kept, other) = (Made::new("kept", &tree(1), Compression::Xz), large("other"));
    kept.serve(&server);
    other.serve(&server);
    let at = addresses(fixture.path(), &address(&server));
    assert!(fixture.get(&fixture.open_at(&at), &kept).expect("it is there"));
    let asked = server.asked("");
    let stores = fixture.open_at(&Addresses { offline: true, ..at });
    assert!(fixture.get(&stores, &kept).expect("it is kept"));
    let error = fixture.get(&stores, &other).expect_err("nobody may be asked");
    assert!(matches!(error, Error::Offline { .. }), "{error}");
    assert_eq!(server.asked(""), asked);
}

#[test]
fn what_cannot_work_is_said_at_start() {
    let (fixture, server) = (Fixture::new(), server());
    let _in_runtime = fixture.runtime.enter();
    let good = addresses(fixture.path(), &address(&server));
    let says = |addresses: &Addresses, reason: &str| {
        let error = open(addresses).expect_err(reason).to_string();
        assert!(error.contains(reason), "{error}");
    };
    let keyless = format!("nix+{}", server.url());
    says(&Addresses { store: Some(keyless.clone()), ..good.clone() }, "no trusted-public-keys");
    says(&Addresses { cache_dir: None, ..good.clone() }, "needs a cache");
    let apart = Addresses { path_infos: Some("memory:".to_owned()), ..good.clone() };
    says(&apart, "only as --path-info-service-addr");
    let blobs = Some(address(&server));
    let apart = Addresses { store: Some("memory:".to_owned()), blobs, ..good.clone() };
    says(&apart, "only as --path-info-service-addr");
    let believes_anybody = Some(format!("{keyless}?require-sigs=0"));
    open(&Addresses { store: believes_anybody, ..good }).expect("it was asked for");
}
