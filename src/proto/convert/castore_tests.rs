use proptest::{
    collection::{btree_map, vec},
    prelude::*,
};

use super::*;
use crate::castore::{Name, NameError, check_name};

fn directory_node(name: &str) -> proto::DirectoryNode {
    let name = Bytes::copy_from_slice(name.as_bytes());
    proto::DirectoryNode { name, digest: vec![1; 32].into(), size: 1 }
}

fn file_node(name: &str) -> proto::FileNode {
    let name = Bytes::copy_from_slice(name.as_bytes());
    proto::FileNode { name, digest: vec![1; 32].into(), size: 1, executable: true }
}

fn symlink_node(name: &str, target: &[u8]) -> proto::SymlinkNode {
    let name = Bytes::copy_from_slice(name.as_bytes());
    proto::SymlinkNode { name, target: Bytes::copy_from_slice(target) }
}

fn files(names: &[&str]) -> proto::Directory {
    proto::Directory { files: names.iter().map(|n| file_node(n)).collect(), ..Default::default() }
}

#[test]
fn the_order_within_each_list_is_checked() {
    let unsorted = Err(DirectoryError::Unsorted("a".to_owned()));
    assert_eq!(Directory::try_from(files(&["b", "a"])), unsorted);
    let directories = vec![directory_node("b"), directory_node("a")];
    let message = proto::Directory { directories, ..Default::default() };
    assert_eq!(Directory::try_from(message), unsorted);
    let symlinks = vec![symlink_node("b", b"x"), symlink_node("a", b"x")];
    let message = proto::Directory { symlinks, ..Default::default() };
    assert_eq!(Directory::try_from(message), unsorted);
}

#[test]
fn a_name_is_unique_within_and_across_the_lists() {
    let duplicate = Err(DirectoryError::Duplicate("a".to_owned()));
    assert_eq!(Directory::try_from(files(&["a", "a"])), duplicate);
    let message = proto::Directory { directories: vec![directory_node("a")], ..files(&["a"]) };
    assert_eq!(Directory::try_from(message), duplicate);
    let message = proto::Directory { symlinks: vec![symlink_node("a", b"x")], ..files(&["a"]) };
    assert_eq!(Directory::try_from(message), duplicate);
}

#[test]
fn each_illegal_entry_is_refused() {
    for (name, error) in [
        ("", NameError::Empty),
        (".", NameError::Dots(".")),
        ("..", NameError::Dots("..")),
        ("a/b", NameError::Byte { name: "a/b".to_owned(), byte: '/' }),
        (&"x".repeat(256), NameError::TooLong(256)),
    ] {
        assert_eq!(Directory::try_from(files(&[name])), Err(DirectoryError::Name(error)));
    }
    for len in [0, 31, 33] {
        let mut message = files(&["a"]);
        message.files[0].digest = vec![0; len].into();
        let error = DirectoryError::DigestLength { name: "a".to_owned(), len };
        assert_eq!(Directory::try_from(message), Err(error));
    }
    let symlinks = vec![symlink_node("a", b"")];
    let message = proto::Directory { symlinks, ..Default::default() };
    let source = SymlinkTargetError::Empty;
    assert_eq!(
        Directory::try_from(message),
        Err(DirectoryError::Target { name: "a".to_owned(), source })
    );
    let mut directories = vec![directory_node("a"), directory_node("b")];
    directories[0].size = u64::MAX;
    let message = proto::Directory { directories, ..Default::default() };
    assert_eq!(Directory::try_from(message), Err(DirectoryError::SizeOverflow));
}

#[test]
fn each_illegal_node_has_its_error() {
    let read = |node| Node::try_from(proto::Node { node });
    assert_eq!(read(None), Err(NodeMessageError::Missing));
    for len in [0, 31, 33] {
        let digest = Bytes::from(vec![0; len]);
        let error = Err(NodeMessageError::Digest(DigestError::Length(len)));
        let file = proto::FileNode { digest: digest.clone(), ..file_node("a") };
        assert_eq!(read(Some(proto::node::Node::File(file))), error);
        let directory = proto::DirectoryNode { digest, ..directory_node("a") };
        assert_eq!(read(Some(proto::node::Node::Directory(directory))), error);
    }
    for (target, error) in [
        (&b""[..], SymlinkTargetError::Empty),
        (b"a\0", SymlinkTargetError::Nul("a\\x00".to_owned())),
        (&[b'x'; 4096], SymlinkTargetError::TooLong(4096)),
    ] {
        assert_eq!(
            read(Some(proto::node::Node::Symlink(symlink_node("a", target)))),
            Err(NodeMessageError::Target(error))
        );
    }
}

pub(in crate::proto::convert) fn any_node() -> impl Strategy<Value = Node> {
    let digest = || any::<[u8; 32]>().prop_map(Digest::from);
    prop_oneof![
        (digest(), 0..1u64 << 40).prop_map(|(digest, size)| Node::Directory { digest, size }),
        (digest(), any::<u64>(), any::<bool>()).prop_map(|(digest, size, executable)| Node::File {
            digest,
            size,
            executable
        }),
        vec(1..=255u8, 1..300).prop_map(|target| Node::Symlink {
            target: SymlinkTarget::try_from(&target[..]).expect("no NUL")
        }),
    ]
}

fn any_directory() -> impl Strategy<Value = Directory> {
    let name = vec(any::<u8>(), 1..256).prop_filter("legal", |name| check_name(name).is_ok());
    btree_map(name, any_node(), 0..20).prop_map(|entries| {
        let mut builder = Directory::builder();
        for (name, node) in entries {
            builder.add(Name::try_from(&name[..]).expect("filtered"), node);
        }
        builder.build().expect("few and small")
    })
}

/// Messages of which many are legal.
fn any_message() -> impl Strategy<Value = proto::Directory> {
    let names = || proptest::collection::btree_set("[a-c]{1,2}", 0..3);
    (names(), names(), names(), any::<u64>(), any::<bool>()).prop_map(
        |(directories, files, symlinks, size, executable)| proto::Directory {
            directories: directories.iter().map(|name| directory_node(name)).collect(),
            files: files
                .iter()
                .map(|name| proto::FileNode { size, executable, ..file_node(name) })
                .collect(),
            symlinks: symlinks.iter().map(|name| symlink_node(name, b"t")).collect(),
        },
    )
}

proptest! {
    #[test]
    fn a_directory_comes_back_as_it_was_sent(directory in any_directory()) {
        let message = proto::Directory::from(&directory);
        prop_assert_eq!(&message.encode_to_vec()[..], &directory.encoded()[..]);
        prop_assert_eq!(Directory::try_from(message), Ok(directory));
    }

    #[test]
    fn a_message_is_refused_or_comes_back(message in any_message()) {
        if let Ok(directory) = Directory::try_from(message.clone()) {
            prop_assert_eq!(&message.encode_to_vec()[..], &directory.encoded()[..]);
            prop_assert_eq!(proto::Directory::from(&directory), message);
        }
    }

    #[test]
    fn a_node_comes_back_as_it_was_sent(node in any_node(), name in vec(any::<u8>(), 0..9)) {
        let message = named_node(name.clone().into(), &node);
        prop_assert_eq!(node_name(&message), Some(&name[..]));
        let read = Node::try_from(message.clone());
        prop_assert_eq!(read.as_ref(), Ok(&node));
        prop_assert_eq!(named_node(name.into(), &node), message);
        let nameless = proto::Node::from(&node);
        prop_assert_eq!(node_name(&nameless), Some(&b""[..]));
    }
}
