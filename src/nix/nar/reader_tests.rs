use std::{
    collections::BTreeMap,
    io::{self, Cursor},
};

use proptest::{collection, prelude::*};
use rstest::rstest;

use super::*;
use crate::nix::nar::NarWriter;

/// Gives at most so many bytes at a time, and is interrupted before each.
struct Drip {
    bytes: Cursor<Vec<u8>>,
    piece_len: usize,
    interrupted: bool,
}

impl Drip {
    fn new(bytes: &[u8], piece_len: usize) -> Self {
        Drip { bytes: Cursor::new(bytes.to_vec()), piece_len, interrupted: false }
    }
}

impl Read for Drip {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.interrupted = !self.interrupted;
        if self.interrupted {
            return Err(io::ErrorKind::Interrupted.into());
        }
        let len = buffer.len().min(self.piece_len);
        self.bytes.read(&mut buffer[..len])
    }
}

/// Reads an archive and writes what it holds as an archive again.
fn copy_with(
    input: impl Read,
    limits: NarLimits,
) -> std::result::Result<(Vec<u8>, u64), NarReadError> {
    let mut reader = NarReader::with_limits(input, limits);
    let mut writer = NarWriter::new(Vec::new()).expect("memory");
    while let Some(event) = reader.next_event()? {
        match event {
            NarEvent::Directory => writer.begin_directory(),
            NarEvent::Entry(name) => writer.entry(name.as_bytes()),
            NarEvent::EndDirectory => writer.end_directory(),
            NarEvent::Symlink(target) => writer.symlink(target.as_bytes()),
            NarEvent::File { executable, len } => {
                writer.begin_file(executable, len).expect("in order");
                while let Some(piece) = reader.contents()? {
                    assert!(!piece.is_empty());
                    writer.contents(piece).expect("as long as announced");
                }
                writer.end_file()
            }
        }
        .expect("what is read is legal");
    }
    assert!(matches!(reader.next_event(), Ok(None)));
    Ok((writer.finish().expect("complete"), reader.offset()))
}

fn copy(bytes: &[u8]) -> std::result::Result<Vec<u8>, NarReadError> {
    copy_with(bytes, NarLimits::default()).map(|(copy, offset)| {
        assert_eq!(offset, bytes.len() as u64);
        copy
    })
}

fn problem(bytes: &[u8]) -> String {
    copy(bytes).expect_err("refused").to_string()
}

/// The strings of an archive.
fn words(words: &[&[u8]]) -> Vec<u8> {
    let mut out = Vec::new();
    for word in words {
        out.extend_from_slice(&(word.len() as u64).to_le_bytes());
        out.extend_from_slice(word);
        out.resize(out.len().next_multiple_of(8), 0);
    }
    out
}

/// The strings of an archive, written with spaces between them. `''` is the empty one.
fn spaced(text: &str) -> Vec<u8> {
    let word = |word| if word == "''" { &b""[..] } else { str::as_bytes(word) };
    words(&text.split_whitespace().map(word).collect::<Vec<_>>())
}

/// One of everything.
fn sample() -> Vec<u8> {
    spaced(
        "nix-archive-1 ( type directory \
         entry ( name bin node ( type directory \
         entry ( name tool node ( type regular executable '' contents #!/bin/sh ) ) ) ) \
         entry ( name empty node ( type regular contents '' ) ) \
         entry ( name link node ( type symlink target bin/tool ) ) )",
    )
}

#[test]
fn everything_comes_in_order() {
    let name = |name: &'static str| {
        NarEvent::Entry(Name::try_from(Bytes::from_static(name.as_bytes())).expect("legal"))
    };
    let target = SymlinkTarget::try_from(Bytes::from_static(b"bin/tool")).expect("legal");
    let bytes = sample();
    let mut reader = NarReader::new(&bytes[..]);
    for event in [
        NarEvent::Directory,
        name("bin"),
        NarEvent::Directory,
        name("tool"),
        NarEvent::File { executable: true, len: 9 },
    ] {
        assert_eq!(reader.next_event().expect("legal"), Some(event));
    }
    let begin = usize::try_from(reader.offset()).expect("small");
    assert_eq!(&bytes[begin..begin + 9], b"#!/bin/sh");
    // The contents are not asked for.
    for event in [
        NarEvent::EndDirectory,
        name("empty"),
        NarEvent::File { executable: false, len: 0 },
        name("link"),
        NarEvent::Symlink(target),
        NarEvent::EndDirectory,
    ] {
        assert_eq!(reader.next_event().expect("legal"), Some(event));
        assert!(matches!(reader.contents(), Ok(None)));
    }
    assert_eq!(reader.next_event().expect("legal"), None);
    assert_eq!(copy(&bytes).expect("legal"), bytes);
}

#[test]
fn an_archive_that_is_cut_off_anywhere_is_refused() {
    let bytes = sample();
    for len in 0..bytes.len() {
        for piece_len in [1, 5, usize::MAX] {
            let error = copy_with(Drip::new(&bytes[..len], piece_len), NarLimits::default())
                .expect_err("cut off");
            assert!(matches!(error.problem, NarProblem::CutOff), "{len}: {error}");
            assert!(error.offset <= len as u64);
        }
    }
}

#[test]
fn whatever_bit_is_flipped_is_found_or_kept() {
    let bytes = sample();
    let find = |text: &str| {
        let begin = bytes.windows(text.len()).position(|window| window == text.as_bytes());
        let begin = begin.expect("it is in the sample");
        begin..begin + text.len()
    };
    // Names and the target are free; of 9 bytes of contents the length is too, up to 16, where the padding ends.
    let contents = find("#!/bin/sh");
    let free = [
        contents.start - 8..contents.start + 16,
        find("bin"),
        find("tool"),
        find("empty"),
        find("link"),
        find("bin/tool"),
    ];
    for bit in 0..bytes.len() * 8 {
        let mut flipped = bytes.clone();
        flipped[bit / 8] ^= 1 << (bit % 8);
        match copy(&flipped) {
            Ok(copy) => {
                assert_eq!(copy, flipped, "bit {bit}");
                assert!(free.iter().any(|free| free.contains(&(bit / 8))), "bit {bit}");
            }
            Err(error) => assert!(!find("bin/tool").contains(&(bit / 8)), "bit {bit}: {error}"),
        }
    }
}

#[test]
fn no_string_may_claim_to_be_longer() {
    let bytes = sample();
    let mut at = 0;
    while at < bytes.len() {
        for len in [24, 4096, 1 << 31, 1 << 32, 1 << 62, i64::MAX as u64, 1 << 63, u64::MAX] {
            let mut changed = bytes.clone();
            changed[at..at + 8].copy_from_slice(&len.to_le_bytes());
            let error = copy(&changed).expect_err("refused");
            assert!(error.offset <= bytes.len() as u64, "{error}");
        }
        let len = u64::from_le_bytes(bytes[at..at + 8].try_into().expect("8 bytes"));
        at += 8 + usize::try_from(len).expect("small").next_multiple_of(8);
    }
}

#[rstest]
#[case("", "byte 0 of the archive, in \"\": the archive is cut off")]
#[case(
    "nix-archive-2 (",
    "byte 0 of the archive, in \"\": expected \"nix-archive-1\", found \"nix-archive-2\""
)]
#[case("nix-archive-1 [", "expected \"(\", found \"[\"")]
#[case("nix-archive-1 ( regular", "expected \"type\", found \"regular\"")]
#[case(
    "nix-archive-1 ( type fifo",
    "expected \"regular\", \"symlink\" or \"directory\", found \"fifo\""
)]
#[case("nix-archive-1 ( type longer-than-any-word", "found a string of 20 bytes")]
#[case("nix-archive-1 ( type regular )", "expected \"executable\" or \"contents\", found \")\"")]
#[case("nix-archive-1 ( type regular executable x", "expected \"\", found \"x\"")]
#[case(
    "nix-archive-1 ( type regular executable '' executable '' contents x )",
    "expected \"contents\", found \"executable\""
)]
#[case(
    "nix-archive-1 ( type regular contents x contents x )",
    "expected \")\", found \"contents\""
)]
#[case(
    "nix-archive-1 ( type regular contents x executable '' )",
    "expected \")\", found \"executable\""
)]
#[case("nix-archive-1 ( type regular contents x ) )", "something follows where the archive ends")]
#[case("nix-archive-1 ( type directory ) (", "something follows where the archive ends")]
#[case("nix-archive-1 ( type symlink )", "expected \"target\", found \")\"")]
#[case("nix-archive-1 ( type symlink target '' )", "a symlink target must not be empty")]
#[case("nix-archive-1 ( type symlink target a\0 )", "contains a NUL")]
#[case("nix-archive-1 ( type directory name", "expected \"entry\" or \")\", found \"name\"")]
#[case("nix-archive-1 ( type directory entry ( node", "expected \"name\", found \"node\"")]
#[case(
    "nix-archive-1 ( type directory entry ( name a )",
    "in \"a\": expected \"node\", found \")\""
)]
#[case(
    "nix-archive-1 ( type directory entry ( name a node )",
    "in \"a\": expected \"(\", found \")\""
)]
#[case(
    "nix-archive-1 ( type directory entry ( name a node ( type regular contents x ) entry",
    "in \"a\": expected \")\", found \"entry\""
)]
#[case("nix-archive-1 ( type directory entry ( name '' node", "a name must not be empty")]
#[case("nix-archive-1 ( type directory entry ( name . node", "\".\" is not a name")]
#[case("nix-archive-1 ( type directory entry ( name .. node", "\"..\" is not a name")]
#[case("nix-archive-1 ( type directory entry ( name a/b node", "the name \"a/b\" contains '/'")]
#[case("nix-archive-1 ( type directory entry ( name / node", "the name \"/\" contains '/'")]
#[case(
    "nix-archive-1 ( type directory entry ( name a\0 node",
    "the name \"a\\x00\" contains '\\0'"
)]
fn what_is_no_archive_is_refused(#[case] text: &str, #[case] expected: &str) {
    let error = problem(&spaced(text));
    assert!(error.contains(expected), "{error}");
}

#[rstest]
#[case("b", "a")]
#[case("a", "a")]
#[case("aa", "a")]
#[case("a", "B")]
#[case("\u{ff}", "z")]
fn names_that_do_not_increase_are_refused(#[case] first: &str, #[case] second: &str) {
    let node = "node ( type symlink target x ) )";
    let text = format!(
        "nix-archive-1 ( type directory entry ( name top node ( type directory \
         entry ( name {first} {node} entry ( name {second} {node}"
    );
    let error = copy(&spaced(&text)).expect_err("refused");
    assert!(matches!(error.problem, NarProblem::Unsorted { .. }), "{error}");
    assert_eq!(error.path, "top");
}

#[test]
fn names_and_targets_have_a_longest() {
    let begin = "nix-archive-1 ( type directory entry ( name";
    let entry = |len: usize| {
        let rest = "node ( type symlink target x ) ) )";
        spaced(&format!("{begin} {} {rest}", "n".repeat(len)))
    };
    assert!(copy(&entry(255)).is_ok());
    assert!(problem(&entry(256)).contains("at most 255 bytes, not 256"));
    let link =
        |len: usize| spaced(&format!("nix-archive-1 ( type symlink target {} )", "t".repeat(len)));
    assert!(copy(&link(4095)).is_ok());
    assert!(problem(&link(4096)).contains("at most 4095 bytes, not 4096"));
}

#[test]
fn every_byte_of_padding_is_zero() {
    let bytes = sample();
    let mut at = 0;
    while at < bytes.len() {
        let len = u64::from_le_bytes(bytes[at..at + 8].try_into().expect("8 bytes"));
        let end = at + 8 + usize::try_from(len).expect("small");
        at = end.next_multiple_of(8);
        for zero in end..at {
            let mut changed = bytes.clone();
            changed[zero] = 1;
            let error = copy(&changed).expect_err("refused");
            assert!(matches!(error.problem, NarProblem::Padding), "{zero}: {error}");
        }
    }
}

#[rstest]
#[case(1 << 63, true)]
#[case(u64::MAX, true)]
#[case(u64::MAX - 7, true)]
#[case((1 << 63) - 1, true)]
#[case(1 << 62, false)]
fn enormous_contents_are_not_believed(#[case] len: u64, #[case] at_once: bool) {
    let mut bytes = spaced("nix-archive-1 ( type regular contents");
    bytes.extend_from_slice(&len.to_le_bytes());
    bytes.extend_from_slice(b"only this");
    let error = copy(&bytes).expect_err("refused");
    match error.problem {
        NarProblem::Length { len: announced, .. } => assert!(at_once && announced == len),
        NarProblem::CutOff => assert!(!at_once),
        other => panic!("{other}"),
    }
}

#[test]
fn an_archive_is_no_longer_than_it_may_be() {
    let bytes = sample();
    let bounded = |archive_bytes_max: u64| {
        copy_with(&bytes[..], NarLimits { archive_bytes_max, ..NarLimits::default() })
    };
    let len = bytes.len() as u64;
    assert!(bounded(len).is_ok());
    for archive_bytes_max in 0..len {
        let error = bounded(archive_bytes_max).expect_err("too long");
        assert!(
            matches!(error.problem, NarProblem::TooLong(_) | NarProblem::Length { .. }),
            "{archive_bytes_max}: {error}"
        );
    }
}

/// Directories inside of each other, the innermost empty.
fn nested(levels: usize) -> Vec<u8> {
    let mut writer = NarWriter::new(Vec::new()).expect("memory");
    for level in 0..levels {
        if level > 0 {
            writer.entry(b"d").expect("in order");
        }
        writer.begin_directory().expect("in order");
    }
    for _ in 0..levels {
        writer.end_directory().expect("in order");
    }
    writer.finish().expect("complete")
}

#[test]
fn nesting_is_bounded_and_not_by_the_stack() {
    assert!(copy(&nested(NAR_NESTING_MAX)).is_ok());
    for levels in [NAR_NESTING_MAX + 1, 10_000] {
        let error = copy(&nested(levels)).expect_err("too deep");
        assert!(matches!(error.problem, NarProblem::Nesting(NAR_NESTING_MAX)), "{error}");
        assert_eq!(error.path, ["d"; NAR_NESTING_MAX].join("/"));
    }
    let deep = nested(10_000);
    let small_stack = std::thread::Builder::new().stack_size(256 << 10);
    let copied = small_stack
        .spawn(move || {
            let limits = NarLimits { nesting_max: 10_000, ..NarLimits::default() };
            copy_with(&deep[..], limits).is_ok_and(|(copy, _)| copy == deep)
        })
        .expect("a thread");
    assert!(copied.join().expect("no overflow"));
}

#[test]
fn after_an_error_there_is_nothing_but_errors() {
    let bytes = spaced("nix-archive-1 ( type directory entry ( name .. node");
    let mut reader = NarReader::new(&bytes[..]);
    assert!(matches!(reader.next_event(), Ok(Some(NarEvent::Directory))));
    assert!(reader.next_event().is_err());
    let after = |error: NarReadError| matches!(error.problem, NarProblem::AfterError);
    assert!(reader.next_event().is_err_and(after));
    assert!(reader.contents().is_err_and(after));
}

#[test]
fn a_source_that_fails_is_told_from_one_that_ends() {
    struct Broken;
    impl Read for Broken {
        fn read(&mut self, _: &mut [u8]) -> io::Result<usize> {
            Err(io::Error::other("the cable is cut"))
        }
    }
    let bytes = sample();
    for len in 0..=bytes.len() {
        let error = copy_with(bytes[..len].chain(Broken), NarLimits::default());
        let error = error.expect_err("it fails");
        assert!(matches!(error.problem, NarProblem::Io(_)), "{len}: {error}");
        assert!(error.to_string().ends_with("the cable is cut"), "{error}");
    }
}

#[test]
fn contents_come_in_pieces() {
    let contents: Vec<u8> = (0..1_000_003u32).map(|at| (at % 251) as u8).collect();
    let mut writer = NarWriter::new(Vec::new()).expect("memory");
    writer.begin_file(false, contents.len() as u64).expect("in order");
    writer.contents(&contents).expect("as announced");
    writer.end_file().expect("complete");
    let bytes = writer.finish().expect("complete");
    for piece_len in [1000, 128 << 10, usize::MAX] {
        let (copy, _) =
            copy_with(Drip::new(&bytes, piece_len), NarLimits::default()).expect("legal");
        assert!(copy == bytes, "{piece_len}");
    }
}

#[derive(Debug, Clone)]
enum Tree {
    File(bool, Vec<u8>),
    Symlink(Vec<u8>),
    Directory(BTreeMap<Vec<u8>, Tree>),
}

fn write(tree: &Tree, writer: &mut NarWriter<Vec<u8>>) {
    match tree {
        Tree::Symlink(target) => writer.symlink(target).expect("in order"),
        Tree::File(executable, contents) => {
            writer.begin_file(*executable, contents.len() as u64).expect("in order");
            writer.contents(contents).expect("as announced");
            writer.end_file().expect("complete");
        }
        Tree::Directory(entries) => {
            writer.begin_directory().expect("in order");
            for (name, tree) in entries {
                writer.entry(name).expect("sorted");
                write(tree, writer);
            }
            writer.end_directory().expect("complete");
        }
    }
}

fn any_archive() -> impl Strategy<Value = Vec<u8>> {
    let bytes = |max| collection::vec(1..=u8::MAX, 1..max);
    let name = bytes(20).prop_filter("legal", |name| crate::castore::check_name(name).is_ok());
    let leaf = prop_oneof![
        (any::<bool>(), collection::vec(any::<u8>(), 0..200))
            .prop_map(|(executable, contents)| Tree::File(executable, contents)),
        bytes(100).prop_map(Tree::Symlink),
    ];
    let tree = leaf.prop_recursive(5, 40, 6, move |inner| {
        collection::btree_map(name.clone(), inner, 0..6).prop_map(Tree::Directory)
    });
    tree.prop_map(|tree| {
        let mut writer = NarWriter::new(Vec::new()).expect("memory");
        write(&tree, &mut writer);
        writer.finish().expect("complete")
    })
}

proptest! {
    #[test]
    fn what_is_written_is_read(bytes in any_archive(), piece_len in 1..300usize) {
        let copied = copy_with(Drip::new(&bytes, piece_len), NarLimits::default());
        let len = bytes.len() as u64;
        prop_assert_eq!(copied.expect("legal"), (bytes, len));
    }

    #[test]
    fn of_a_tree_there_is_one_archive(
        bytes in any_archive(), at: prop::sample::Index, word in collection::vec(any::<u8>(), 1..9)
    ) {
        let mut changed = bytes;
        let at = at.index(changed.len());
        let end = changed.len().min(at + word.len());
        changed.splice(at..end, word);
        if let Ok(copied) = copy(&changed) {
            prop_assert_eq!(copied, changed);
        }
    }

    #[test]
    fn words_in_any_order_are_refused_or_read(order in collection::vec(0..14usize, 0..12)) {
        let known: [&[u8]; 14] = [
            OPEN, CLOSE, TYPE, REGULAR, SYMLINK, DIRECTORY, EXECUTABLE, CONTENTS, TARGET, ENTRY,
            NAME, NODE, b"", b"a",
        ];
        let list: Vec<_> = [MAGIC].into_iter().chain(order.into_iter().map(|at| known[at])).collect();
        let bytes = words(&list);
        if let Ok(copied) = copy(&bytes) {
            prop_assert_eq!(copied, bytes);
        }
    }
}
