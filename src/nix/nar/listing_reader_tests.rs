use std::io::Read as _;

use super::{super::ListingWriter, *};

fn read(text: &[u8]) -> std::result::Result<Vec<ListingEvent>, ListingReadError> {
    let mut reader = ListingReader::new(text);
    let mut events = Vec::new();
    while let Some(event) = reader.next_event()? {
        events.push(event);
    }
    assert!(reader.next_event()?.is_none(), "the end stays the end");
    Ok(events)
}

fn write(events: &[ListingEvent]) -> Vec<u8> {
    let mut out = ListingWriter::new(Vec::new()).expect("memory");
    for event in events {
        match event {
            ListingEvent::Directory => out.begin_directory(),
            ListingEvent::Entry(name) => out.entry(name.as_bytes()),
            ListingEvent::EndDirectory => out.end_directory(),
            ListingEvent::File { size, executable, .. } => out.file(*executable, *size).map(drop),
            ListingEvent::Symlink(target) => out.symlink(target.as_bytes()),
        }
        .expect("in order");
    }
    out.finish().expect("complete")
}

#[test]
fn what_is_written_is_read_back() {
    let mut out = ListingWriter::new(Vec::new()).expect("memory");
    out.begin_directory().expect("in order");
    for name in [&b"\x01\x1f"[..], b"\"", b"\\n", b"a b", "\u{e9}\u{1f41a}".as_bytes(), b"\xff\xfe"]
    {
        out.entry(name).expect("in order");
        out.symlink(name).expect("in order");
    }
    out.end_directory().expect("in order");
    let text = out.finish().expect("complete");
    let events = read(&text).expect("legal");
    assert_eq!(events.len(), 14);
    assert_eq!(write(&events), text);
}

#[test]
fn fields_may_come_in_any_order_and_escapes_in_any_form() {
    let text = br#" { "root" : {"entries":{
        "a\u0041\ud83d\udc1a" : {"narOffset":7,"executable":false,"type":"regular","size":18446744073709551615},
        "b":{"entries":{},"type":"directory"},
        "c":{"target":"\b\f\t\/","type":"symlink"}}, "type":"directory"},"version":1}
        "#;
    let name = |text: &str| Name::try_from(text.as_bytes()).expect("legal");
    let file = |size| ListingEvent::File { size, executable: false, nar_offset: Some(7) };
    let target = SymlinkTarget::try_from(&b"\x08\x0c\t/"[..]).expect("legal");
    assert_eq!(
        read(text).expect("legal"),
        [
            ListingEvent::Directory,
            ListingEvent::Entry(name("aA\u{1f41a}")),
            file(u64::MAX),
            ListingEvent::Entry(name("b")),
            ListingEvent::Directory,
            ListingEvent::EndDirectory,
            ListingEvent::Entry(name("c")),
            ListingEvent::Symlink(target),
            ListingEvent::EndDirectory,
        ]
    );
}

#[test]
fn all_else_is_refused_with_its_reason() {
    let file = r#"{"type":"regular","size":1}"#;
    let root = |node: &str| format!(r#"{{"version":1,"root":{node}}}"#);
    let entries =
        |entries: &str| root(&format!(r#"{{"type":"directory","entries":{{{entries}}}}}"#));
    for (text, reason) in [
        (String::new(), "cut off"),
        ("[]".to_owned(), "expected '{', found '['"),
        ("{}".to_owned(), "there is no version"),
        (r#"{"version":1}"#.to_owned(), "there is no root"),
        (format!(r#"{{"root":{file}}}"#), "there is no version"),
        (format!(r#"{{"version":2,"root":{file}}}"#), "version 2"),
        (format!(r#"{{"version":1,"version":1,"root":{file}}}"#), "stands twice"),
        (format!("{}x", root(file)), "expected the end"),
        (root(file)[..30].to_owned(), "cut off"),
        (root("{}"), "there is no type"),
        (root("1"), "expected '{'"),
        (root(r#"{"type":"regular"}"#), "there is no size"),
        (root(r#"{"type":"regular","size":-1}"#), "a number of bytes"),
        (root(r#"{"type":"regular","size":01}"#), "64 bits"),
        (root(r#"{"type":"regular","size":1.5}"#), "',' or '}'"),
        (root(r#"{"type":"regular","size":18446744073709551616}"#), "64 bits"),
        (root(r#"{"type":"regular","size":1,"target":"x"}"#), "no such fields"),
        (root(r#"{"type":"regular","size":1,"colour":1}"#), "\"colour\""),
        (root(r#"{"type":"regular","size":1,"size":1}"#), "stands twice"),
        (root(r#"{"type":"regular","size":1,"executable":trie}"#), "true or false"),
        (root(r#"{"type":"regular" "size":1}"#), "',' or '}'"),
        (root(r#"{"type":"regular","size":1,}"#), "expected '\"'"),
        (root(r#"{"type":"symlink"}"#), "there is no target"),
        (root(r#"{"type":"symlink","target":""}"#), "must not be empty"),
        (root(r#"{"type":"symlink","target":"x","size":1}"#), "no such fields"),
        (root(r#"{"type":"directory"}"#), "there is no entries"),
        (root(r#"{"type":"regular","size":1,"entries":{}}"#), "no such fields"),
        (root(r#"{"type":"fifo"}"#), "no type"),
        (root(&format!(r#"{{"type":"{}"}}"#, "x".repeat(17))), "more than 16 bytes"),
        (root(&format!(r#"{{"target":"{}"}}"#, "x".repeat(4096))), "more than 4095"),
        (entries(&format!(r#""..":{file}"#)), ".."),
        (entries(&format!(r#""a/b":{file}"#)), "/"),
        (entries(&format!(r#""\u0000":{file}"#)), "contains '\\0'"),
        (entries(&format!(r#""":{file}"#)), "empty"),
        (entries(&format!(r#""b":{file},"a":{file}"#)), "\"a\" is out of order"),
        (entries(&format!(r#""a":{file},"a":{file}"#)), "there twice"),
        (entries(&format!(r#""{}":{file}"#, "x".repeat(256))), "more than 255"),
        (entries(&format!("\"\n\":{file}")), "control character"),
        (entries(&format!(r#""\x":{file}"#)), "means nothing"),
        (entries(&format!(r#""\ud800":{file}"#)), "means nothing"),
        (entries(&format!(r#""\udc00":{file}"#)), "means nothing"),
        (entries(&format!(r#""\ud800\u0041":{file}"#)), "means nothing"),
    ] {
        let error = read(text.as_bytes()).expect_err(&text).to_string();
        assert!(error.contains(reason), "{text}: {error}");
    }
    let mut reader = ListingReader::new(&b"[]"[..]);
    assert!(reader.next_event().is_err());
    let after = reader.next_event().expect_err("it failed before");
    assert!(matches!(after.problem, ListingProblem::AfterError));
}

#[test]
fn depth_and_length_are_bounded_and_never_by_the_stack() {
    let deep = |levels: usize| {
        let mut text = r#"{"version":1,"root":"#.to_owned();
        text.push_str(&r#"{"type":"directory","entries":{"a":"#.repeat(levels));
        text.push_str(r#"{"type":"regular","size":1}"#);
        text.push_str(&"}}".repeat(levels));
        text + "}"
    };
    assert_eq!(read(deep(16_384).as_bytes()).expect("legal").len(), 3 * 16_384 + 1);
    let error = read(deep(16_385).as_bytes()).expect_err("too deep");
    assert!(matches!(error.problem, ListingProblem::Nesting(16_384)));

    let limits = ListingLimits { len_max: 1000, ..ListingLimits::default() };
    // White space without end.
    let mut reader = ListingReader::with_limits(io::BufReader::new(io::repeat(b' ')), limits);
    let error = reader.next_event().expect_err("too long");
    assert!(matches!(error.problem, ListingProblem::TooLong(1000)) && error.offset == 1000);
    let noise = io::BufReader::new((&b"{\""[..]).chain(io::repeat(b'x')));
    let error = ListingReader::new(noise).next_event().expect_err("too long");
    assert!(matches!(error.problem, ListingProblem::TextLength(16)));
}
