//! What a mount of a far store tells of itself, at `--metrics` and in its log.

use std::{fs, os::unix::fs::FileExt as _, time::Duration};

use crate::{
    far::Far,
    proxy::Weather,
    scrape::{Families, scrape},
    support::{Mounted, can_mount, drop_kernel_caches, noise, wait_until, write},
};

const LONG_LEN: usize = 8 << 20;
const SHORT_LEN: usize = 1000;

fn far() -> (Far, String) {
    let (far, names) = Far::new(|sources| {
        let tree = sources.join("tree");
        fs::create_dir_all(tree.join("short")).expect("new");
        write(tree.join("long"), noise(1, LONG_LEN), 0o644);
        for number in 0..40 {
            write(tree.join(format!("short/{number:02}")), noise(2 + number, SHORT_LEN), 0o644);
        }
    });
    let name = names.into_iter().next().expect("one");
    (far, name)
}

fn watched(far: &Far, options: &str, cache: &str, args: &[&str]) -> (Mounted, String) {
    let address = format!("unix:{}", far.dir.path().join("metrics.sock").display());
    let args = [&["--metrics", &address, "--io-mode", "no-open"], args].concat();
    (far.mount_with(options, cache, &args), address)
}

fn hits(families: &Families, result: &str) -> f64 {
    let labels = [("kind", "blob"), ("tier", "disk"), ("result", result)];
    families.sum("lazystore_cache_requests_total", &labels)
}

#[test]
fn what_is_read_is_counted_by_where_it_came_from() {
    if !can_mount() {
        return;
    }
    let (far, name) = far();
    let (mounted, address) = watched(&far, "", "cache", &[]);
    let root = mounted.path.join(&name);
    assert_eq!(scrape(&address).sum("lazystore_inodes", &[]), 0.0);

    let long = fs::File::open(root.join("long")).expect("it is there");
    let mut part = vec![0; 128 << 10];
    // From the beginning in order, as far as it takes to be read ahead of.
    for at in 0..24 {
        long.read_exact_at(&mut part, at * (128 << 10)).expect("it reads");
    }
    let read = 24.0 * part.len() as f64;
    let fetched =
        |reason| scrape(&address).sum("lazystore_fetched_bytes_total", &[("reason", reason)]);
    wait_until("what the kernel and the mount read ahead is here", || {
        let before = fetched("ahead");
        std::thread::sleep(Duration::from_millis(100));
        before == fetched("ahead") && scrape(&address).sum("lazystore_fuse_waiting", &[]) == 0.0
    });
    let families = scrape(&address);
    assert!(fetched("read") >= 128e3 && fetched("read") <= read + (2 << 20) as f64);
    assert!(fetched("read") + fetched("ahead") <= LONG_LEN as f64 + 65536.0);
    assert!(fetched("ahead") > 0.0);
    let got = |families: &Families, source| {
        families.sum("lazystore_read_bytes_total", &[("source", source)])
    };
    assert!(got(&families, "file") + got(&families, "store") >= read);
    assert!(got(&families, "store") > 0.0);
    assert!(hits(&families, "miss") >= 1.0);

    for operation in ["lookup", "read", "init"] {
        let count = families.sum("lazystore_fuse_operation_seconds", &[("operation", operation)]);
        assert!(count >= 1.0, "{operation}");
    }
    assert!(families.sum("lazystore_inodes", &[]) >= 2.0);
    assert_eq!(families.sum("lazystore_fuse_waiting", &[]), 0.0);
    let asked = [("backend", "grpc"), ("service", "path_info"), ("operation", "get")];
    assert_eq!(families.sum("lazystore_service_operation_seconds", &asked), 1.0);
    for backend in ["grpc", "cache"] {
        let labels = [("backend", backend), ("service", "blob")];
        assert!(families.sum("lazystore_service_operation_seconds", &labels) >= 1.0, "{backend}");
    }
    assert!(families.sum("lazystore_cache_bytes", &[]) >= read);
    assert!(families.sum("lazystore_cache_size_max_bytes", &[]) >= 1e9);

    // Once all of it is here, it becomes a file a moment later, and is read as one.
    fs::read(root.join("long")).expect("it reads");
    let mut passes = (Families::default(), Families::default());
    wait_until("the file is whole", || {
        drop_kernel_caches();
        let before = scrape(&address);
        fs::read(root.join("long")).expect("it reads");
        passes = (before, scrape(&address));
        let more = |source| got(&passes.1, source) - got(&passes.0, source);
        more("store") == 0.0 && more("file") == LONG_LEN as f64
    });
    let (before, after) = passes;
    assert_eq!(hits(&after, "miss"), hits(&before, "miss"));
    assert!(hits(&after, "hit") > hits(&before, "hit"));
    drop(long);
    mounted.unmount();
}

#[test]
fn whole_files_that_are_fetched_ahead_are_known_as_such() {
    if !can_mount() {
        return;
    }
    let (far, name) = far();
    far.proxy.delay(Duration::from_millis(20));
    let (mounted, address) = watched(&far, "", "cache", &[]);
    let folder = mounted.path.join(&name).join("short");
    let mut files: Vec<_> = fs::read_dir(&folder).expect("it lists").flatten().collect();
    files.sort_by_key(|file| file.file_name());
    files.iter().for_each(|file| drop(fs::read(file.path()).expect("it reads")));
    let fetched =
        |reason| scrape(&address).sum("lazystore_fetched_bytes_total", &[("reason", reason)]);
    let all = (files.len() * SHORT_LEN) as f64;
    assert_eq!(fetched("read") + fetched("ahead"), all);
    assert!(fetched("ahead") >= all / 2.0, "{}", fetched("ahead"));
    drop(files);
    mounted.unmount();
}

#[test]
fn a_store_that_is_gone_shows_in_circuits_errors_and_those_who_wait() {
    if !can_mount() {
        return;
    }
    let (far, name) = far();
    let (mut mounted, address) = watched(&far, "?timeout=2&attempts=1", "none", &[]);
    let root = mounted.path.join(&name);
    fs::metadata(root.join("short/00")).expect("it is there");
    let open = || scrape(&address).sum("lazystore_circuits_open", &[]);
    assert_eq!(open(), 0.0);
    far.proxy.weather(Weather::Stalled);
    let reader = std::thread::spawn({
        let file = root.join("short/00");
        move || fs::read(file).expect_err("nobody answers")
    });
    wait_until("somebody waits", || scrape(&address).sum("lazystore_fuse_waiting", &[]) == 1.0);
    let errno = reader.join().expect("it ends").raw_os_error().expect("an errno");
    wait_until("it is given up", || open() == 1.0);
    let families = scrape(&address);
    let read = [("operation", "read")];
    assert!(families.sum("lazystore_fuse_errors_total", &read) >= 1.0, "errno {errno}");
    assert_eq!(families.sum("lazystore_fuse_waiting", &[]), 0.0);
    assert!(families.sum("lazystore_circuit_openings_total", &[]) >= 1.0);
    let asked = [("backend", "grpc"), ("service", "blob")];
    assert!(families.sum("lazystore_service_errors_total", &asked) >= 1.0);
    // It took two seconds, which is slow.
    let line = mounted.running.wait_for_line("a request took long");
    assert!(line.contains("operation=\"read\"") && line.contains("remote_ms="), "{line}");
    assert!(families.sum("lazystore_slow_operations_total", &[]) >= 1.0);
    far.proxy.weather(Weather::Fair);
    wait_until("it is back", || open() == 0.0);
    mounted.unmount();
}

#[test]
fn what_is_slow_is_logged_with_where_the_time_went() {
    if !can_mount() {
        return;
    }
    let (far, name) = far();
    let args = ["--slow-log", "0.15", "--log-format", "json"];
    let (mut mounted, _) = watched(&far, "", "cache", &args);
    let root = mounted.path.join(&name);
    fs::metadata(root.join("short/00")).expect("it is there");
    far.proxy.delay(Duration::from_millis(300));
    fs::read(root.join("short/00")).expect("it reads");
    let line = mounted.running.wait_for_line("a request took long");
    let line: serde_json::Value = serde_json::from_str(&line).expect("JSON");
    let fields = &line["fields"];
    let number = |name: &str| fields[name].as_f64().unwrap_or_else(|| panic!("{name} in {line}"));
    assert_eq!(
        (&fields["event"], &fields["operation"]),
        (&"slow_operation".into(), &"read".into())
    );
    assert_eq!((number("errno"), number("offset")), (0.0, 0.0));
    let subject = fields["subject"].as_str().expect("a text");
    assert!(subject.contains(&format!("of {SHORT_LEN} bytes")), "{subject}");
    assert!(number("took_ms") >= 290.0 && number("remote_ms") >= 290.0, "{line}");
    let sum: f64 = ["remote_ms", "disk_ms", "verify_ms", "other_ms"].map(number).iter().sum();
    assert!((sum - number("took_ms")).abs() < 1.0, "{line}");
    assert!(number("other_ms") < number("remote_ms"), "{line}");
    mounted.unmount();
}

#[test]
fn without_a_slow_log_nothing_is_slow() {
    if !can_mount() {
        return;
    }
    let (far, name) = far();
    let (mut mounted, address) = watched(&far, "", "none", &["--slow-log", "0"]);
    far.proxy.delay(Duration::from_millis(1500));
    fs::metadata(mounted.path.join(&name)).expect("it is there");
    assert_eq!(scrape(&address).sum("lazystore_slow_operations_total", &[]), 0.0);
    mounted.running.signal(rustix::process::Signal::TERM);
    assert!(mounted.running.wait());
    let log = mounted.running.log.join("\n");
    assert!(!log.contains("took long"), "{log}");
}
