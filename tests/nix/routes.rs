//! What `lazystore serve` answers, request by request.

use std::{
    io::{Read as _, Write as _},
    net::TcpStream,
    time::Duration,
};

use crate::{
    http::Server,
    support::{import, lazystore, noise, resident, run, wait_until, write},
};

/// A served file of `len` bytes, with its base name and the URL of its archive.
struct Served {
    folder: tempfile::TempDir,
    server: Server,
    name: String,
    nar: String,
}

impl Served {
    fn new(len: usize, args: &[&str]) -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let file = folder.path().join("file");
        write(&file, noise(1, len), 0o644);
        let store = folder.path().join("store");
        let name = import(&store, &file);
        let server = Server::start(&mut lazystore(&store), args);
        let narinfo = server.get(&format!("{}.narinfo", &name[..32]), &[]).text();
        let nar = narinfo.lines().find_map(|line| line.strip_prefix("URL: "));
        let nar = nar.unwrap_or_else(|| panic!("{narinfo}")).to_owned();
        Served { folder, server, name, nar }
    }

    fn dump(&self) -> Vec<u8> {
        let mut dump = lazystore(&self.folder.path().join("store"));
        run(dump.args(["nar", "dump", &self.name])).stdout
    }
}

#[test]
fn an_archive_comes_whole_in_part_or_compressed() {
    let served = Served::new(700_001, &[]);
    let (server, nar) = (&served.server, &served.nar);
    let expected = served.dump();
    let whole = server.get(nar, &[]);
    assert_eq!(whole.status, 200);
    assert!(whole.body == expected);
    let len = expected.len();
    assert_eq!(whole.header("content-length"), Some(&*len.to_string()));
    let etag = whole.header("etag").expect("it is known").to_owned();

    for (range, start, end) in [
        ("bytes=0-0", 0, 1),
        ("bytes=100000-600000", 100_000, 600_001),
        ("bytes=699999-", 699_999, len),
        ("bytes=-9", len - 9, len),
    ] {
        for condition in ["x: y".to_owned(), format!("if-range: {etag}")] {
            let range = format!("range: {range}");
            let part = server.get(nar, &[&range, &condition, "accept-encoding: zstd"]);
            assert_eq!(part.status, 206, "{range}");
            assert!(part.body == expected[start..end], "{range}");
            let told = format!("bytes {start}-{}/{len}", end - 1);
            assert_eq!(part.header("content-range"), Some(&*told));
        }
    }
    let other = server.get(nar, &["range: bytes=0-0", "if-range: \"other\""]);
    assert_eq!((other.status, other.body.len()), (200, len));
    let beyond = server.get(nar, &[&format!("range: bytes={len}-")]);
    assert_eq!(beyond.status, 416);
    assert_eq!(beyond.header("content-range"), Some(&*format!("bytes */{len}")));

    let coded = server.get(nar, &["accept-encoding: br, zstd"]);
    assert_eq!(coded.header("content-encoding"), Some("zstd"));
    assert!(zstd::decode_all(&coded.body[..]).expect("a frame") == expected);
    let file = server.get(&format!("{nar}.zst"), &[]);
    assert_eq!(file.header("content-encoding"), None);
    assert!(zstd::decode_all(&file.body[..]).expect("a frame") == expected);

    let same = server.get(nar, &[&format!("if-none-match: {etag}")]);
    assert_eq!((same.status, same.body.len()), (304, 0));
    let head = server.request("HEAD", nar, &[], b"");
    assert_eq!((head.status, head.body.len()), (200, 0));
    assert_eq!(head.header("content-length"), Some(&*len.to_string()));
    let head = server.request("HEAD", &format!("{nar}.zst"), &[], b"");
    assert_eq!((head.status, head.header("content-length")), (200, None));
}

#[test]
fn the_other_routes_answer() {
    let logs = tempfile::tempdir().expect("a folder");
    std::fs::create_dir_all(logs.path().join("drvs/00")).expect("new");
    let derivation = format!("00{}-x.drv", "1".repeat(30));
    write(logs.path().join("drvs/00").join(&derivation[2..]), "it was built\n", 0o644);
    let served =
        Served::new(10, &["--priority", "7", "--log-dir", logs.path().to_str().expect("UTF-8")]);
    let server = &served.server;
    let hash = &served.name[..32];
    assert_eq!(
        server.get("nix-cache-info", &[]).text(),
        "StoreDir: /nix/store\nWantMassQuery: 1\nPriority: 7\n"
    );
    assert_eq!(
        server.get(&format!("{hash}.ls"), &[]).text(),
        r#"{"version":1,"root":{"type":"regular","size":10,"narOffset":96}}"#
    );
    assert_eq!(server.get(&format!("log/{derivation}"), &[]).text(), "it was built\n");
    assert_eq!(server.get("healthz", &[]).text(), "ok\n");
    let metrics = server.get("metrics", &[]).text();
    assert!(metrics.contains("lazystore_http_requests_total{route=\"log\",status=\"200\"} 1\n"));

    let none = "0".repeat(32);
    for absent in [
        "".to_owned(),
        format!("{none}.narinfo"),
        format!("{none}.ls"),
        format!("log/{none}-y.drv"),
        served.nar.replace(hash, &none),
        // Another archive of a path that is here.
        format!("nar/{hash}-{}.nar", "0".repeat(52)),
        "log/../../../etc/passwd".to_owned(),
        "realisations/x".to_owned(),
    ] {
        let answer = server.get(&absent, &[]);
        assert_eq!(answer.status, 404, "{absent}: {}", answer.text());
        assert!(answer.text().ends_with("is not here\n"), "{absent}: {}", answer.text());
    }
    for method in ["PUT", "POST", "DELETE"] {
        let answer = server.request(method, &served.nar, &[], b"x");
        assert_eq!((answer.status, answer.header("allow")), (405, Some("GET, HEAD")), "{method}");
    }
}

/// Clients that stop reading, and clients that go away, of an archive that is far larger than what is read ahead.
#[test]
fn slow_clients_cost_little_and_gone_ones_nothing() {
    let served = Served::new(300_000_000, &[]);
    let server = &served.server;
    let rendering = || {
        let metrics = server.get("metrics", &[]).text();
        let line = metrics.lines().find(|line| line.starts_with("lazystore_http_nar_bytes_total"));
        let count = line.and_then(|line| line.rsplit(' ').next()).expect("it is counted");
        count.parse::<u64>().expect("a number")
    };
    let before = resident(server.running.child.id());
    let clients: Vec<_> = (0..8)
        .map(|_| {
            let mut client = TcpStream::connect(&server.client.address).expect("it listens");
            let request = format!("GET /{} HTTP/1.0\r\n\r\n", served.nar);
            client.write_all(request.as_bytes()).expect("it reads");
            client.read_exact(&mut [0; 1000]).expect("it answers");
            client
        })
        .collect();
    std::thread::sleep(Duration::from_millis(500));
    let stalled = rendering();
    assert!(stalled < 200_000_000, "{stalled} bytes were rendered for nobody");
    let grown = resident(server.running.child.id()).saturating_sub(before);
    assert!(grown < 100_000_000, "{grown} bytes for 8 clients");
    drop(clients);
    let mut last = 0;
    wait_until("rendering ends", || {
        std::thread::sleep(Duration::from_millis(200));
        let now = rendering();
        std::mem::replace(&mut last, now) == now
    });
    assert!(last < 250_000_000, "{last} bytes were rendered for clients that are gone");
    assert_eq!(server.get("healthz", &[]).status, 200);
}

#[test]
fn clients_learn_nothing_of_this_machine() {
    let served = Served::new(200_000, &[]);
    let store = served.folder.path().join("store");
    std::fs::remove_dir_all(store.join("blobs")).expect("it is there");
    let answer = served.server.get(&served.nar, &[]);
    // It was known by then that the path is here: the body breaks off.
    assert!(answer.body.len() < 200_000, "{}", answer.body.len());
    assert!(!answer.text().contains(store.to_str().expect("UTF-8")));
}
