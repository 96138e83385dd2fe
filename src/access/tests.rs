use super::*;

fn placed(log: &AccessLog) -> Ino {
    let (outer, inner) = (Ino::from_raw(20), Ino::from_raw(21));
    log.placed(Ino::ROOT, b"name-x", outer);
    log.placed(outer, b"odd\n\x1b[31m\"\xff", inner);
    inner
}

#[test]
fn what_is_logged_is_summed_up_and_odd_names_are_escaped() {
    let dir = tempfile::tempdir().expect("a folder");
    let path = dir.path().join("log");
    let inputs = ["name-x", "name-y"].map(str::to_owned);
    let log = AccessLog::create(&path, true, inputs).expect("it begins");
    let inner = placed(&log);
    let me = std::process::id();
    for fetched in [true, false] {
        log.accessed(inner, me, Access::Read { len: 100, fetched });
    }
    log.accessed(inner, 0, Access::Open);
    drop(log);
    let text = std::fs::read(&path).expect("it is there");
    assert!(text.iter().all(|byte| *byte == b'\n' || (b' '..=b'~').contains(byte)));
    // A process that was killed in mid-write.
    let cut = [&text[..], b"{\"path\":\"na"].concat();
    let report = Report::read(&cut[..]).expect("it reads");
    assert_eq!(report.all, Sum { files: 1, bytes: 200, fetched: 100 });
    assert_eq!(report.store_paths.keys().collect::<Vec<_>>(), ["name-x"]);
    assert_eq!(report.untouched.iter().collect::<Vec<_>>(), ["name-y"]);
    assert_eq!((report.lost, report.damaged), (0, 1));
    assert_eq!(report.commands.len(), 2);
}

#[test]
fn a_path_is_told_whole_as_far_as_it_is_known() {
    let dir = tempfile::tempdir().expect("a folder");
    let path = dir.path().join("log");
    let log = AccessLog::create(&path, false, []).expect("it begins");
    let [outer, middle, inner, beside, lost] = [20, 21, 22, 23, 24].map(Ino::from_raw);
    log.placed(Ino::ROOT, b"name-x", outer);
    log.placed(outer, b"bin", middle);
    log.placed(middle, b"a b", inner);
    log.placed(middle, b"c", beside);
    log.placed(Ino::from_raw(99), b"of a directory that is not known", lost);
    for ino in [outer, inner, beside, lost, Ino::ROOT] {
        log.accessed(ino, 1, Access::Open);
    }
    drop(log);
    let text = std::fs::read_to_string(&path).expect("it is there");
    let mut paths: Vec<String> = text
        .lines()
        .map(|line| match serde_json::from_str(line).expect("it is a line") {
            Line::Read(read) => read.path,
            other => panic!("{other:?}"),
        })
        .collect();
    paths.sort();
    assert_eq!(paths, ["", "", "name-x", "name-x/bin/a b", "name-x/bin/c"]);
}

#[test]
fn what_is_kept_is_bounded_and_what_is_lost_is_told() {
    let dir = tempfile::tempdir().expect("a folder");
    let path = dir.path().join("log");
    let log = AccessLog::create(&path, false, []).expect("it begins");
    for number in 0..3 * PENDING_MAX as u64 {
        log.accessed(Ino::from_raw(number + 100), 1, Access::Open);
        let state = log.shared.state.lock();
        assert!(state.pending.len() <= PENDING_MAX && state.events.len() <= EVENTS_MAX);
    }
    drop(log);
    let text = std::fs::read(&path).expect("it is there");
    let report = Report::read(&text[..]).expect("it reads");
    let lines = text.split(|byte| *byte == b'\n').filter(|line| line.starts_with(b"{\"path"));
    assert_eq!(lines.count() as u64 + report.lost, 3 * PENDING_MAX as u64);
}

#[test]
fn a_full_disk_loses_lines_and_counts_them() {
    let log = AccessLog::create(Path::new("/dev/full"), false, []).expect("it begins");
    let inner = placed(&log);
    log.accessed(inner, 1, Access::Open);
    assert!(log.shared.write().is_err());
    assert_eq!(log.shared.state.lock().lost, 1);
}
