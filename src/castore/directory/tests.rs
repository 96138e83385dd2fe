//! Tests of the canonical directory.

use super::{
    wire::{TAG_DIRECTORY, TAG_EXECUTABLE, TAG_FILE, TAG_NAME, TAG_SIZE, TAG_SYMLINK, TAG_VALUE},
    *,
};
use crate::castore::{SymlinkTarget, check_name};

fn name(text: &str) -> Name {
    Name::try_from(text).expect("a legal name")
}

fn sub(size: u64) -> Node {
    Node::Directory { digest: Digest::EMPTY, size }
}

fn file(contents: &[u8], executable: bool) -> Node {
    Node::File { digest: Digest::of(contents), size: contents.len() as u64, executable }
}

fn link(target: &str) -> Node {
    Node::Symlink { target: SymlinkTarget::try_from(target.as_bytes()).expect("a legal target") }
}

fn sample() -> Directory {
    Directory::builder()
        .add(name("run"), file(b"#!/bin/sh\n", true))
        .add(name("zz"), sub(3))
        .add(name("empty"), file(b"", false))
        .add(name("alias"), link("run"))
        .add(name("b"), sub(0))
        .build()
        .expect("a legal directory")
}

fn malformed(bytes: &[u8]) -> &'static str {
    match Directory::decode(Bytes::copy_from_slice(bytes)) {
        Err(DirectoryError::Malformed { what, .. }) => what,
        other => panic!("expected a malformed message, got {other:?}"),
    }
}

/// A FileNode message with that name and digest, as an entry of a directory.
fn entry(tag: u8, name: &[u8], value: &[u8], rest: &[u8]) -> Vec<u8> {
    let mut inner = vec![TAG_NAME, name.len() as u8];
    inner.extend_from_slice(name);
    inner.extend_from_slice(&[TAG_VALUE, value.len() as u8]);
    inner.extend_from_slice(value);
    inner.extend_from_slice(rest);
    let mut out = vec![tag, inner.len() as u8];
    out.extend(inner);
    out
}

#[test]
fn the_empty_directory_is_no_bytes() {
    assert_eq!(Directory::empty().digest(), Digest::EMPTY);
    assert_eq!(Directory::decode(Bytes::new()), Ok(Directory::empty()));
    assert_eq!(Directory::builder().build(), Ok(Directory::empty()));
}

#[test]
fn entries_come_in_the_order_of_names_and_are_found() {
    let directory = sample();
    let names: Vec<_> = directory.entries().map(|e| e.name).collect();
    assert_eq!(names, [&b"alias"[..], b"b", b"empty", b"run", b"zz"]);
    for entry in directory.entries() {
        assert_eq!(directory.find(entry.name), Some(entry));
    }
    assert_eq!(directory.find(b"c"), None);
    assert_eq!(directory.find(b"run").map(|e| e.node.to_node()), Some(file(b"#!/bin/sh\n", true)));
    assert_eq!(directory.find(b"alias").map(|e| e.node.to_node()), Some(link("run")));
}

#[test]
fn decoding_gives_back_what_was_built() {
    let directory = sample();
    let again = Directory::decode(directory.encoded().clone()).expect("canonical");
    assert_eq!(again.digest(), directory.digest());
    assert_eq!(again.entries().collect::<Vec<_>>(), directory.entries().collect::<Vec<_>>());
}

#[test]
fn the_encoding_is_that_of_protobuf() {
    let directory = Directory::builder().add(name("a"), file(b"xyz", true)).build().expect("legal");
    let mut expected = vec![0x12, 41, 0x0a, 1, b'a', 0x12, 32];
    expected.extend_from_slice(Digest::of(b"xyz").as_bytes());
    expected.extend_from_slice(&[0x18, 3, 0x20, 1]);
    assert_eq!(directory.encoded(), &expected);
}

#[test]
fn sizes_by_both_rules() {
    let directory = sample();
    assert_eq!(directory.size(SizeRule::Documented), 5 + 3);
    assert_eq!(directory.size(SizeRule::Doubled), 10 + 3);
    assert!(directory.has_size(8) && directory.has_size(13) && !directory.has_size(9));
}

#[test]
fn sizes_that_overflow_are_refused() {
    let overflow = |sizes: &[u64]| {
        let mut builder = Directory::builder();
        for (index, &size) in sizes.iter().enumerate() {
            builder.add(name(&index.to_string()), sub(size));
        }
        builder.build()
    };
    assert_eq!(overflow(&[u64::MAX, 1]), Err(DirectoryError::SizeOverflow));
    assert_eq!(overflow(&[u64::MAX - 1]), Err(DirectoryError::SizeOverflow));
    assert!(overflow(&[u64::MAX - 2]).is_ok());
}

#[test]
fn a_name_is_unique_across_the_kinds() {
    let result = Directory::builder().add(name("a"), sub(0)).add(name("a"), link("b")).build();
    assert_eq!(result, Err(DirectoryError::Duplicate("a".to_owned())));
    let result = Directory::builder().add(name("a"), link("b")).add(name("a"), link("c")).build();
    assert_eq!(result, Err(DirectoryError::Duplicate("a".to_owned())));
}

#[test]
fn the_order_of_lists_and_names_is_part_of_the_form() {
    let a = entry(TAG_FILE, b"a", &[1; 32], &[]);
    let b = entry(TAG_FILE, b"b", &[1; 32], &[]);
    let dir = entry(TAG_DIRECTORY, b"c", &[1; 32], &[]);
    for bytes in [[&b[..], &a].concat(), [&a[..], &dir].concat()] {
        assert!(matches!(Directory::decode(bytes.into()), Err(DirectoryError::Unsorted(_))));
    }
    assert!(Directory::decode([&dir[..], &a, &b].concat().into()).is_ok());
}

#[test]
fn each_illegal_entry_has_its_error() {
    let decode = |bytes: Vec<u8>| Directory::decode(bytes.into());
    assert_eq!(
        decode(entry(TAG_FILE, b"..", &[1; 32], &[])),
        Err(DirectoryError::Name(NameError::Dots("..")))
    );
    assert_eq!(
        decode(entry(TAG_FILE, b"a", &[1; 31], &[])),
        Err(DirectoryError::DigestLength { name: "a".to_owned(), len: 31 })
    );
    assert_eq!(
        decode(entry(TAG_SYMLINK, b"a", b"x\0", &[])),
        Err(DirectoryError::Target {
            name: "a".to_owned(),
            source: SymlinkTargetError::Nul("x\\x00".to_owned())
        })
    );
    assert_eq!(
        Directory::decode(Bytes::from(vec![0; DIRECTORY_LEN_MAX + 1])),
        Err(DirectoryError::TooLong(DIRECTORY_LEN_MAX + 1))
    );
}

#[test]
fn other_spellings_are_refused() {
    let digest = [1; 32];
    assert_eq!(
        malformed(&entry(TAG_FILE, b"a", &digest, &[TAG_SIZE, 0])),
        "a default value that is spelled out"
    );
    assert_eq!(
        malformed(&entry(TAG_FILE, b"a", &digest, &[TAG_SIZE, 0x81, 0])),
        "a number with needless bytes"
    );
    assert_eq!(
        malformed(&entry(TAG_FILE, b"a", &digest, &[TAG_EXECUTABLE, 2])),
        "a truth value other than 0 and 1"
    );
    assert_eq!(
        malformed(&entry(TAG_FILE, b"a", &digest, &[TAG_EXECUTABLE, 1, TAG_SIZE, 1])),
        "an unknown field or a wrong length"
    );
    assert_eq!(
        malformed(&entry(TAG_DIRECTORY, b"a", &digest, &[TAG_EXECUTABLE, 1])),
        "an unknown field or a wrong length"
    );
    assert_eq!(malformed(&entry(0x22, b"a", &digest, &[])), "an unknown field");
    assert_eq!(malformed(&[TAG_FILE]), "the message ends too early");
    assert_eq!(malformed(&[TAG_FILE, 200, 1]), "a length that leads past the end");
    assert_eq!(
        malformed(&[&[TAG_FILE][..], &[0xff; 9], &[2]].concat()),
        "a number of more than 64 bits"
    );
    // An inner length may lead past its message only to be caught at its end.
    let past_its_message = [TAG_SYMLINK, 5, TAG_NAME, 1, b'a', TAG_VALUE, 3, b'x', b'y', b'z'];
    assert_eq!(malformed(&past_its_message), "an unknown field or a wrong length");
}

#[test]
fn names_may_be_255_bytes_and_targets_4095() {
    let long = Name::try_from(&[0xffu8; 255][..]).expect("legal");
    let target = SymlinkTarget::try_from(&[b't'; 4095][..]).expect("legal");
    let directory = Directory::builder()
        .add(long.clone(), Node::Symlink { target: target.clone() })
        .build()
        .expect("legal");
    let found = directory.find(long.as_bytes()).map(|e| e.node.to_node());
    assert_eq!(found, Some(Node::Symlink { target }));
}

mod properties {
    use proptest::{collection::btree_map, prelude::*};

    use super::*;

    fn node() -> impl Strategy<Value = Node> {
        prop_oneof![
            (any::<[u8; 32]>(), 0..1u64 << 40)
                .prop_map(|(digest, size)| Node::Directory { digest: digest.into(), size }),
            (any::<[u8; 32]>(), any::<u64>(), any::<bool>()).prop_map(
                |(digest, size, executable)| {
                    Node::File { digest: digest.into(), size, executable }
                }
            ),
            proptest::collection::vec(1..=255u8, 1..300).prop_map(|target| Node::Symlink {
                target: SymlinkTarget::try_from(&target[..]).expect("no NUL")
            }),
        ]
    }

    fn any_name() -> impl Strategy<Value = Vec<u8>> {
        proptest::collection::vec(any::<u8>(), 1..256)
            .prop_filter("legal", |name| check_name(name).is_ok())
    }

    proptest! {
        #[test]
        fn built_and_decoded_alike(entries in btree_map(any_name(), node(), 0..40)) {
            let mut builder = Directory::builder();
            for (name, node) in entries.iter().rev() {
                builder.add(Name::try_from(&name[..]).expect("legal"), node.clone());
            }
            let directory = builder.build().expect("legal");
            let got: Vec<_> =
                directory.entries().map(|e| (e.name.to_vec(), e.node.to_node())).collect();
            prop_assert_eq!(got, entries.into_iter().collect::<Vec<_>>());
        }

        #[test]
        fn any_bytes_are_refused_or_canonical(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            if let Ok(directory) = Directory::decode(bytes.clone().into()) {
                let mut builder = Directory::builder();
                for entry in directory.entries() {
                    builder.add(Name::try_from(entry.name).expect("checked"), entry.node.to_node());
                }
                let again = builder.build().expect("legal");
                prop_assert_eq!(&again.encoded()[..], &bytes[..]);
            }
        }

        #[test]
        fn a_flipped_byte_changes_the_digest_or_is_refused(at in 0usize..1000, bit in 0u8..8) {
            let directory = sample();
            let mut bytes = directory.encoded().to_vec();
            let at = at % bytes.len();
            bytes[at] ^= 1 << bit;
            if let Ok(other) = Directory::decode(bytes.into()) {
                prop_assert_ne!(other.digest(), directory.digest());
            }
        }
    }
}
