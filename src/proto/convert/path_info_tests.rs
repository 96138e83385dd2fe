use proptest::{collection::vec, option, prelude::*, sample::select};
use prost::Message as _;
use rstest::rstest;

use super::{super::castore::tests::any_node, *};
use crate::{
    castore::{Digest, DigestError},
    nix::{Base32Error, PathInfoError},
};

const BASE: &str = "c4dlvyi5zg15dffrnmsi6ix40cllfac7-hello";
const OTHER: &str = "q3laishhmk84vl44j1973qpzkyhmr90c-text";

fn path(text: &str) -> StorePath {
    text.parse().expect("a store path")
}

fn sample() -> PathInfo {
    PathInfo {
        store_path: path(BASE),
        node: Node::File { digest: Digest::EMPTY, size: 0, executable: false },
        details: Details::NarInfo(NarInfo {
            nar: NarHash { size: 112, sha256: [3; 32] },
            references: vec![path(BASE), path(OTHER)],
            signatures: vec![Signature::new("key-1", &[4; 64]).expect("legal")],
            deriver: Some(path("ykqkpv6sqvdb4x40wgikypk4a6wcpc03-hello.drv")),
            ca: Some(Ca::Nar(NixHash::Sha256([5; 32]))),
        }),
    }
}

/// Reads the message of [`sample`] after `change`.
fn read(change: impl FnOnce(&mut proto::PathInfo)) -> Result<PathInfo, PathInfoMessageError> {
    let mut message = proto::PathInfo::from(&sample());
    change(&mut message);
    PathInfo::try_from(message)
}

/// Reads the message of [`sample`] after a `change` of its second half.
fn read_nar(change: impl FnOnce(&mut proto::NarInfo)) -> Result<PathInfo, PathInfoMessageError> {
    read(|message| change(message.narinfo.as_mut().expect("written")))
}

fn read_named(name: &str) -> Result<PathInfo, PathInfoMessageError> {
    let name = Bytes::copy_from_slice(name.as_bytes());
    read(|message| message.node = Some(named_node(name, &sample().node)))
}

#[test]
fn the_root_node_must_be_there_and_legal() {
    assert_eq!(read(|message| message.node = None), Err(PathInfoMessageError::NoNode));
    assert_eq!(
        read(|message| message.node = Some(Default::default())),
        Err(PathInfoMessageError::Node(NodeMessageError::Missing))
    );
    let file = crate::proto::castore::FileNode { name: BASE.into(), ..Default::default() };
    let node = Some(crate::proto::castore::node::Node::File(file));
    assert_eq!(
        read(|message| message.node = Some(crate::proto::castore::Node { node })),
        Err(PathInfoMessageError::Node(NodeMessageError::Digest(DigestError::Length(0))))
    );
}

#[test]
fn the_root_node_must_be_named_as_a_store_path() {
    let refused = |name: &str, error| {
        assert_eq!(read_named(name), Err(PathInfoMessageError::NodeName(error)));
    };
    refused("", StorePathError::TooShort(String::new()));
    refused("hello", StorePathError::TooShort("hello".to_owned()));
    let name = BASE.replace("-h", "_h");
    refused(&name, StorePathError::NoDash(name.clone()));
    refused(&format!("{}-.", &BASE[..32]), StorePathError::Name(StorePathNameError::Dots(".")));
    let base_name = BASE.replacen('c', "t", 1);
    let source = Base32Error::Digit { byte: b't', at: 0 };
    refused(&base_name, StorePathError::Digest { base_name: base_name.clone(), source });
}

#[test]
fn a_reference_has_20_bytes_with_and_without_names() {
    for len in [0, 19, 21] {
        let error =
            PathInfoMessageError::Reference { index: 1, source: StorePathDigestError { len } };
        let shorten = |message: &mut proto::PathInfo| message.references[1] = vec![0; len].into();
        assert_eq!(read(shorten), Err(error.clone()));
        let without_names = read(|message| {
            shorten(message);
            message.narinfo = None;
        });
        assert_eq!(without_names, Err(error));
    }
}

#[test]
fn references_must_agree_with_their_names() {
    let count = |references, names| Err(PathInfoMessageError::ReferenceCount { references, names });
    assert_eq!(read(|message| message.references.truncate(1)), count(1, 2));
    assert_eq!(read_nar(|nar_info| nar_info.reference_names.clear()), count(2, 0));
    assert_eq!(
        read_nar(|nar_info| nar_info.reference_names.swap(0, 1)),
        Err(PathInfoMessageError::ReferenceDigest {
            index: 0,
            digest: path(BASE).digest(),
            name: path(OTHER)
        })
    );
    let absolute = path(OTHER).absolute();
    assert!(matches!(
        read_nar(|nar_info| nar_info.reference_names[1] = absolute),
        Err(PathInfoMessageError::ReferenceName {
            index: 1,
            source: StorePathError::Digest { .. }
        })
    ));
}

#[test]
fn the_hash_of_the_archive_has_32_bytes() {
    for len in [0, 31, 33] {
        assert_eq!(
            read_nar(|nar_info| nar_info.nar_sha256 = vec![0; len].into()),
            Err(PathInfoMessageError::NarHash(len))
        );
    }
}

#[test]
fn a_signature_has_64_bytes_and_a_key_with_a_name() {
    for len in [0, 63, 65] {
        let name = "key-1".to_owned();
        let source = SignatureError::Length { name, expected: 64, len };
        assert_eq!(
            read_nar(|nar_info| nar_info.signatures[0].data = vec![0; len].into()),
            Err(PathInfoMessageError::Signature { index: 0, source })
        );
    }
    assert_eq!(
        read_nar(|nar_info| nar_info.signatures[0].name.clear()),
        Err(PathInfoMessageError::Signature { index: 0, source: SignatureError::NameEmpty })
    );
}

#[test]
fn a_deriver_is_a_store_path_without_its_suffix() {
    let deriver = |name: &str, len: usize| {
        let message = proto::StorePath { name: name.to_owned(), digest: vec![0; len].into() };
        read_nar(|nar_info| nar_info.deriver = Some(message))
    };
    for len in [0, 19, 21] {
        let error = StorePathDigestError { len };
        assert_eq!(deriver("a", len), Err(PathInfoMessageError::DeriverDigest(error)));
    }
    for (name, error) in [
        ("", StorePathNameError::Empty),
        (".", StorePathNameError::Dots(".")),
        ("a/b", StorePathNameError::Byte { name: "a/b".to_owned(), byte: b'/' }),
        // Legal as it stands, but not with the suffix.
        (&"x".repeat(208), StorePathNameError::TooLong(212)),
    ] {
        assert_eq!(deriver(name, 20), Err(PathInfoMessageError::DeriverName(error)));
    }
    let written = proto::PathInfo::from(&sample()).narinfo.and_then(|nar_info| nar_info.deriver);
    assert_eq!(written.map(|deriver| deriver.name), Some("hello".to_owned()));
}

#[test]
fn a_deriver_that_the_wire_cannot_carry_is_left_out() {
    let mut path_info = sample();
    let Details::NarInfo(nar_info) = &mut path_info.details else { panic!("there is one") };
    nar_info.deriver = Some(path(OTHER));
    assert_eq!(path_info.check(), Err(PathInfoError::Deriver(path(OTHER))));
    let message = proto::PathInfo::from(&path_info);
    assert_eq!(message.narinfo.and_then(|nar_info| nar_info.deriver), None);
}

#[rstest]
#[case(0, Ca::Nar(NixHash::Sha256([1; 32])))]
#[case(1, Ca::Nar(NixHash::Sha1([1; 20])))]
#[case(2, Ca::Nar(NixHash::Sha512([1; 64])))]
#[case(3, Ca::Nar(NixHash::Md5([1; 16])))]
#[case(4, Ca::Text([1; 32]))]
#[case(5, Ca::Flat(NixHash::Sha1([1; 20])))]
#[case(6, Ca::Flat(NixHash::Md5([1; 16])))]
#[case(7, Ca::Flat(NixHash::Sha256([1; 32])))]
#[case(8, Ca::Flat(NixHash::Sha512([1; 64])))]
fn every_type_of_content_address_has_its_number_and_length(#[case] number: i32, #[case] ca: Ca) {
    let message = proto::nar_info::Ca {
        r#type: number,
        digest: Bytes::copy_from_slice(ca.hash().as_bytes()),
    };
    assert_eq!(write_ca(&ca), message);
    assert_eq!(read_ca(message), Ok(ca));
    let algorithm = ca.hash().algorithm();
    for len in [0, algorithm.digest_len() - 1, algorithm.digest_len() + 1] {
        let wrong = proto::nar_info::Ca { r#type: number, digest: vec![1; len].into() };
        assert_eq!(
            read_nar(|nar_info| nar_info.ca = Some(wrong)),
            Err(PathInfoMessageError::CaDigest(HashError::Length { algorithm, len }))
        );
    }
}

#[test]
fn an_unknown_type_of_content_address_is_refused() {
    for number in [-1, 9, i32::MAX] {
        let ca = proto::nar_info::Ca { r#type: number, digest: vec![1; 32].into() };
        assert_eq!(
            read_nar(|nar_info| nar_info.ca = Some(ca)),
            Err(PathInfoMessageError::CaType(number))
        );
    }
}

#[test]
fn without_a_narinfo_only_the_digests_are_known() {
    let path_info = read(|message| message.narinfo = None).expect("legal");
    let digests = vec![path(BASE).digest(), path(OTHER).digest()];
    assert_eq!(path_info.details, Details::References(digests));
}

fn any_path(name: &'static str) -> impl Strategy<Value = StorePath> {
    (any::<[u8; 20]>(), name)
        .prop_map(|(digest, name)| StorePath::new(digest.into(), &name).expect("legal"))
}

fn any_ca() -> impl Strategy<Value = Ca> {
    use HashAlgorithm::*;
    (select(vec![Md5, Sha1, Sha256, Sha512]), any::<[u8; 32]>(), 0..3).prop_map(
        |(algorithm, bytes, kind)| {
            let hash = NixHash::new(algorithm, &[bytes, bytes].concat()[..algorithm.digest_len()])
                .expect("the right length");
            match kind {
                0 => Ca::Text(bytes),
                1 => Ca::Flat(hash),
                _ => Ca::Nar(hash),
            }
        },
    )
}

fn any_nar_info() -> impl Strategy<Value = NarInfo> {
    let signature = ("[!-9;-~]{1,9}", any::<[u8; 32]>())
        .prop_map(|(name, half)| Signature::new(&name, &[half, half].concat()).expect("legal"));
    (
        any::<(u64, [u8; 32])>(),
        vec(any_path("[a-z][0-9A-Za-z+._?=-]{0,20}"), 0..4),
        vec(signature, 0..3),
        option::of(any_path("[a-z]{1,9}(\\.drv){1,2}")),
        option::of(any_ca()),
    )
        .prop_map(|((size, sha256), references, signatures, deriver, ca)| NarInfo {
            nar: NarHash { size, sha256 },
            references,
            signatures,
            deriver,
            ca,
        })
}

fn any_path_info() -> impl Strategy<Value = PathInfo> {
    let digests = vec(any::<[u8; 20]>().prop_map(StorePathDigest::from), 0..4);
    let details = prop_oneof![
        digests.prop_map(Details::References),
        any_nar_info().prop_map(Details::NarInfo)
    ];
    (any_path("[a-z]{1,9}"), any_node(), details).prop_map(|(store_path, node, details)| PathInfo {
        store_path,
        node,
        details,
    })
}

proptest! {
    #[test]
    fn a_path_info_comes_back_as_it_was_sent(path_info in any_path_info()) {
        prop_assert_eq!(path_info.check(), Ok(()));
        let bytes = proto::PathInfo::from(&path_info).encode_to_vec();
        let message = proto::PathInfo::decode(&bytes[..]).expect("just written");
        prop_assert_eq!(PathInfo::try_from(message), Ok(path_info));
    }

    #[test]
    fn a_message_is_refused_or_comes_back(path_info in any_path_info(), at: usize, byte: u8) {
        let mut bytes = proto::PathInfo::from(&path_info).encode_to_vec();
        let at = at % bytes.len();
        bytes[at] = byte;
        let Ok(message) = proto::PathInfo::decode(&bytes[..]) else { return Ok(()) };
        if let Ok(read) = PathInfo::try_from(message.clone()) {
            prop_assert_eq!(read.check(), Ok(()));
            prop_assert_eq!(proto::PathInfo::from(&read), message);
        }
    }
}
