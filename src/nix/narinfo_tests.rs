use proptest::{collection::vec, option, prelude::*};
use rstest::rstest;

use super::*;
use crate::{
    castore::Digest,
    nix::{
        Base32Error, Ca, CaError, CompressionError, HashAlgorithm, HashError, NarUrlError,
        SecretKey, SignatureError, StorePathError,
    },
};

/// Of a path that Nix 2.8 made and signed, with the key of which the public half is below.
const TEXT: &str = "\
StorePath: /nix/store/9jf5iszb57nl2lml18s742g7plcwxja4-refs
URL: nar/1w1fff338fvdw53sqgamddn1b2xgds473pv6y13gizdbqjv4i5p3.nar.xz
Compression: xz
FileHash: sha256:1w1fff338fvdw53sqgamddn1b2xgds473pv6y13gizdbqjv4i5p3
FileSize: 188
NarHash: sha256:0bfb2si5yrp3rlbixgviwhgs2bxl12s3n4s7imjyx8dm66nzpk5r
NarSize: 216
References: 72f1hzld5g7dj6wknixkal0bd6zzy2mc-text phb26lqxx7gr7l05629hswdp5kwh9wh8-other
Deriver: 08g3c9zd7qsw0216x1bdlk7qrykjny7s-refs.drv
System: x86_64-linux
Sig: test-1:BFGFGOrjonmORkjlHPKAMDmr2nofhu8E/yFAY+V04A4bJYXNmlbviwKvXC7iWt7/H5Z7rTgT77Q262cTtX8HCw==
Sig: test-2:BFGFGOrjonmORkjlHPKAMDmr2nofhu8E/yFAY+V04A4bJYXNmlbviwKvXC7iWt7/H5Z7rTgT77Q262cTtX8HCw==
CA: fixed:r:sha256:0bfb2si5yrp3rlbixgviwhgs2bxl12s3n4s7imjyx8dm66nzpk5r
";
const PUBLIC_KEY: &str = "test-1:MqEdMYYYXKeVAuvCkufrt9P02lv1shS/oktlJ4kSK5c=";

fn parse(text: &str) -> Result<NarInfoFile, NarInfoFileError> {
    NarInfoFile::parse(text.as_bytes())
}

fn read(text: &str) -> NarInfoFile {
    parse(text).expect("a narinfo")
}

/// The text with another value in the line of `field`, or without that line.
fn with(field: &str, value: Option<&str>) -> String {
    let mut out = String::new();
    for line in TEXT.lines() {
        match (line.split_once(": "), value) {
            (Some((name, _)), Some(value)) if name == field => {
                writeln!(out, "{field}: {value}").expect("memory");
            }
            (Some((name, _)), None) if name == field => {}
            _ => writeln!(out, "{line}").expect("memory"),
        }
    }
    assert_ne!(out, TEXT, "{field} was found");
    out
}

fn field_error(line: usize, field: Field, source: impl Into<FieldError>) -> NarInfoFileError {
    NarInfoFileError::Field { line, field, source: source.into() }
}

#[test]
fn every_field_is_read_and_printed() {
    let file = read(TEXT);
    assert_eq!(file.to_string(), TEXT);
    assert_eq!(file.archive.compression, Compression::Xz);
    assert_eq!((file.archive.size, file.info.nar.size), (Some(188), 216));
    assert_eq!(file.info.references.len(), 2);
    assert_eq!(file.info.signatures.len(), 2);
    assert_eq!(file.info.deriver.as_ref().map(StorePath::name), Some("refs.drv"));
    assert_eq!(file.system.as_ref().map(System::as_str), Some("x86_64-linux"));
}

#[test]
fn a_signature_by_nix_is_verified() {
    let keys = [PUBLIC_KEY.parse().expect("a key")];
    let file = read(TEXT);
    assert_eq!(file.valid_signatures(&keys), [&file.info.signatures[0]]);
    for (field, value) in [
        ("StorePath", "/nix/store/9jf5iszb57nl2lml18s742g7plcwxja4-ref"),
        ("NarHash", "sha256:0bfb2si5yrp3rlbixgviwhgs2bxl12s3n4s7imjyx8dm66nzpk5s"),
        ("NarSize", "217"),
        ("References", ""),
        ("References", "72f1hzld5g7dj6wknixkal0bd6zzy2mc-text"),
    ] {
        let changed = read(&with(field, Some(value)));
        assert!(changed.valid_signatures(&keys).is_empty(), "{field}: {value}");
    }
}

#[test]
fn what_may_be_missing_is_missed_by_nobody() {
    let mut short = String::new();
    for line in TEXT.lines() {
        if ["StorePath", "URL", "NarHash", "NarSize"].iter().any(|field| line.starts_with(field)) {
            writeln!(short, "{line}").expect("memory");
        }
    }
    let file = read(&short);
    assert_eq!(file.archive.compression, Compression::Bzip2);
    assert_eq!((file.archive.sha256, file.archive.size), (None, None));
    let info = &file.info;
    assert!(info.references.is_empty() && info.signatures.is_empty());
    assert_eq!((&info.deriver, info.ca, &file.system), (&None, None, &None));
    let empty = format!("{short}Compression: \nFileSize: 0\nReferences: \nCA: \nSystem: \n");
    assert_eq!(read(&format!("{empty}Deriver: unknown-deriver\n")), file);
}

#[rstest]
#[case("StorePath", Field::StorePath)]
#[case("URL", Field::Url)]
#[case("NarHash", Field::NarHash)]
#[case("NarSize", Field::NarSize)]
fn what_must_be_there_is_missed(#[case] name: &str, #[case] field: Field) {
    assert_eq!(parse(&with(name, None)), Err(NarInfoFileError::Missing(field)));
}

#[test]
fn only_signatures_stand_twice() {
    for (at, line) in TEXT.lines().enumerate() {
        let (name, _) = line.split_once(": ").expect("a field");
        let again = format!("{TEXT}{line}\n");
        let field = Field::ALL.into_iter().find(|field| field.name() == name).expect("known");
        if field == Field::Sig {
            assert_eq!(read(&again).info.signatures.len(), 3);
        } else {
            let error = FieldError::Duplicate(at + 1);
            assert_eq!(parse(&again), Err(field_error(14, field, error)));
        }
    }
}

#[test]
fn unknown_fields_are_read_over() {
    for line in ["Extra: x", "Extra: ", "storepath: x", "Nar-Size: a: b", "Ünknown: ä"] {
        assert_eq!(parse(&format!("{line}\n{TEXT}{line}\n")), Ok(read(TEXT)), "{line}");
    }
}

#[rstest]
#[case(b"\n", NarInfoFileError::NoField(1))]
#[case(b"Extra\n", NarInfoFileError::NoField(1))]
#[case(b"Extra:\n", NarInfoFileError::NoField(1))]
#[case(b"Extra:x\n", NarInfoFileError::NoField(1))]
#[case(b": x\n", NarInfoFileError::NoField(1))]
#[case(b" NarSize: 1\n", NarInfoFileError::NoField(1))]
#[case(b"NarSize : 1\n", NarInfoFileError::NoField(1))]
#[case(b"A: b\nNarSize: 1", NarInfoFileError::CutOff(2))]
#[case(b"A: b\nNarSize: 1\r\n", NarInfoFileError::CarriageReturn(2))]
#[case(b"A: b\rNarSize: 1\n", NarInfoFileError::Control { line: 1, character: '\r' })]
#[case(b"A: b\nB: \0\n", NarInfoFileError::Control { line: 2, character: '\0' })]
#[case(b"A: \xc2\x85\n", NarInfoFileError::Control { line: 1, character: '\u{85}' })]
#[case(b"A: b\nB: c\xff\n", NarInfoFileError::NotUtf8 { line: 2, at: 4 })]
#[case(b"\xef\xbb\xbfNarSize: 1\n", NarInfoFileError::Missing(Field::StorePath))]
#[case(b"", NarInfoFileError::Missing(Field::StorePath))]
fn lines_that_are_none_are_refused(#[case] text: &[u8], #[case] error: NarInfoFileError) {
    assert_eq!(NarInfoFile::parse(text), Err(error));
}

#[test]
fn values_that_are_wrong_are_refused() {
    let path = "9jf5iszb57nl2lml18s742g7plcwxja4-refs";
    let sha1 = format!("sha1:{}", "0".repeat(32));
    let long = "a".repeat(1025);
    let too_long = FieldError::TooLong { len: 1025, max: 1024 };
    let no_hash = |text: &str| FieldError::Hash(HashError::NoAlgorithm(text.to_owned()));
    let table: [(usize, Field, &str, FieldError); 26] = [
        (1, Field::StorePath, path, StorePathError::NotInStore(path.into()).into()),
        (1, Field::StorePath, &long, too_long.clone()),
        (
            1,
            Field::StorePath,
            "/nix/store/9jf5iszb57nl2lml18s742g7plcwxja4-refs/",
            StorePathError::Inner(format!("/nix/store/{path}/")).into(),
        ),
        (2, Field::Url, "", NarUrlError::Empty.into()),
        (2, Field::Url, "../a", NarUrlError::Step("../a".into()).into()),
        (2, Field::Url, "/a", NarUrlError::Slash("/a".into()).into()),
        (2, Field::Url, "file:///a", NarUrlError::Scheme("file:///a".into()).into()),
        (3, Field::Compression, "XZ", CompressionError("XZ".into()).into()),
        (4, Field::FileHash, "", no_hash("")),
        (4, Field::FileHash, &sha1, FieldError::Algorithm(HashAlgorithm::Sha1)),
        (5, Field::FileSize, "1e3", FieldError::Number("1e3".into())),
        (6, Field::NarHash, "0bfb2si5yrp3", no_hash("0bfb2si5yrp3")),
        (6, Field::NarHash, &sha1, FieldError::Algorithm(HashAlgorithm::Sha1)),
        (7, Field::NarSize, "0", FieldError::NarSizeZero),
        (7, Field::NarSize, "", FieldError::Number("".into())),
        (7, Field::NarSize, "+1", FieldError::Number("+1".into())),
        (7, Field::NarSize, "-1", FieldError::Number("-1".into())),
        (7, Field::NarSize, "1 ", FieldError::Number("1 ".into())),
        (7, Field::NarSize, "01", FieldError::Number("01".into())),
        (
            7,
            Field::NarSize,
            "18446744073709551616",
            FieldError::Number("18446744073709551616".into()),
        ),
        (8, Field::References, "a", StorePathError::TooShort("a".into()).into()),
        (8, Field::References, &long, FieldError::TooLong { len: 1025, max: 244 }),
        (
            9,
            Field::Deriver,
            path,
            PathInfoError::Deriver(path.parse().expect("a store path")).into(),
        ),
        (10, Field::System, "x y", FieldError::SystemCharacter(' ')),
        (10, Field::System, &long[..256], FieldError::SystemLength(256)),
        (13, Field::Ca, "source:x", CaError::Kind("source:x".into()).into()),
    ];
    for (line, field, value, error) in table {
        let text = with(field.name(), Some(value));
        assert_eq!(parse(&text), Err(field_error(line, field, error)), "{field}: {value}");
    }
    let references = format!("{path} {}-x", "e".repeat(32));
    let digest = StorePathError::Digest {
        base_name: format!("{}-x", "e".repeat(32)),
        source: Base32Error::Digit { byte: b'e', at: 31 },
    };
    assert_eq!(
        parse(&with("References", Some(&references))),
        Err(field_error(8, Field::References, digest))
    );
    assert_eq!(
        parse(&format!("{TEXT}Sig: a\n")),
        Err(field_error(14, Field::Sig, SignatureError::NoColon))
    );
}

#[test]
fn lengths_and_numbers_are_bounded() {
    let sig = TEXT.lines().find(|line| line.starts_with("Sig")).expect("one");
    let signatures = |count: usize| format!("{TEXT}{}", format!("{sig}\n").repeat(count));
    assert!(parse(&signatures(NARINFO_SIGNATURES_MAX - 2)).is_ok());
    assert_eq!(
        parse(&signatures(NARINFO_SIGNATURES_MAX - 1)),
        Err(field_error(12 + NARINFO_SIGNATURES_MAX, Field::Sig, FieldError::Signatures))
    );
    let filler = |len: usize| format!("{TEXT}A: {}\n", "a".repeat(len - TEXT.len() - 4));
    assert!(parse(&filler(NARINFO_LEN_MAX)).is_ok());
    assert_eq!(
        parse(&filler(NARINFO_LEN_MAX + 1)),
        Err(NarInfoFileError::TooLong(NARINFO_LEN_MAX + 1))
    );
}

#[test]
fn an_error_names_line_and_field() {
    assert_eq!(
        parse(&with("NarSize", Some("x"))).expect_err("no number").to_string(),
        "line 7 of the narinfo, NarSize: \"x\" is no number of bytes"
    );
}

#[test]
fn every_spelling_of_a_hash_is_the_same() {
    let sha256 = read(TEXT).info.nar.sha256;
    let hash = NixHash::Sha256(sha256);
    for text in [
        hash.to_sri(),
        format!("sha256:{}", hash.to_hex()),
        hash.to_sri().replace("sha256-", "sha256:"),
    ] {
        assert_eq!(read(&with("NarHash", Some(&text))), read(TEXT), "{text}");
    }
}

#[test]
fn no_beginning_of_a_text_passes_for_another() {
    let whole = read(TEXT);
    for len in 0..TEXT.len() {
        match parse(&TEXT[..len]) {
            Ok(part) => {
                assert!(TEXT[..len].ends_with('\n'), "{len}");
                assert_eq!((&part.store_path, part.info.nar), (&whole.store_path, whole.info.nar));
            }
            Err(error) => assert!(
                matches!(error, NarInfoFileError::CutOff(_) | NarInfoFileError::Missing(_)),
                "{len}: {error}"
            ),
        }
    }
}

fn any_path(suffix: &'static str) -> impl Strategy<Value = StorePath> {
    (any::<[u8; 20]>(), "[0-9a-zA-Z+_?=][0-9a-zA-Z+._?=-]{0,206}").prop_map(
        move |(digest, name)| {
            StorePath::new(digest.into(), &format!("{name}{suffix}")).expect("legal")
        },
    )
}

fn any_info() -> impl Strategy<Value = NarInfo> {
    let hash = prop_oneof![
        any::<[u8; 16]>().prop_map(NixHash::Md5),
        any::<[u8; 20]>().prop_map(NixHash::Sha1),
        any::<[u8; 32]>().prop_map(NixHash::Sha256),
        (any::<[u8; 32]>(), any::<[u8; 32]>()).prop_map(|halves| {
            NixHash::new(HashAlgorithm::Sha512, &[halves.0, halves.1].concat()).expect("64 bytes")
        }),
    ];
    let ca = (0..3u8, hash, any::<[u8; 32]>()).prop_map(|(kind, hash, sha256)| match kind {
        0 => Ca::Flat(hash),
        1 => Ca::Nar(hash),
        _ => Ca::Text(sha256),
    });
    let signature = ("[a-z0-9.-]{1,20}", any::<[u8; 32]>())
        .prop_map(|(name, seed)| SecretKey::from_seed(&name, &seed).expect("legal").sign(b"x"));
    (
        (1..=u64::MAX, any::<[u8; 32]>()),
        vec(any_path(""), 0..4),
        vec(signature, 0..3),
        option::of(any_path(".drv")),
        option::of(ca),
    )
        .prop_map(|((size, sha256), references, signatures, deriver, ca)| NarInfo {
            nar: NarHash { size, sha256 },
            references,
            signatures,
            deriver,
            ca,
        })
}

fn any_archive() -> impl Strategy<Value = ArchiveFile> {
    let url = "(https?://[a-z.]{1,9}(:8[0-9]{0,3})?/)?nar/[a-z0-9.%=&-]{1,30}x(\\?[a-z=]{0,9})?";
    (
        url,
        proptest::sample::select(&Compression::ALL[..]),
        option::of(any::<[u8; 32]>()),
        option::of(1..=u64::MAX),
    )
        .prop_map(|(url, compression, sha256, size)| ArchiveFile {
            url: url.parse().expect("legal"),
            compression,
            sha256,
            size,
        })
}

fn any_file() -> impl Strategy<Value = NarInfoFile> {
    let system = option::of("[!-~]{1,255}".prop_map(|name| System::new(&name).expect("legal")));
    (any_path(""), any_info(), any_archive(), system).prop_map(
        |(store_path, info, archive, system)| NarInfoFile { store_path, info, archive, system },
    )
}

proptest! {
    #[test]
    fn what_is_printed_is_read_back(file in any_file()) {
        prop_assert_eq!(parse(&file.to_string()), Ok(file));
    }

    #[test]
    fn a_path_info_comes_back_whole(
        store_path in any_path(""), info in any_info(), archive in any_archive()
    ) {
        let node = Node::File { digest: Digest::EMPTY, size: 0, executable: true };
        let details = Details::NarInfo(info);
        let path_info = PathInfo { store_path, node: node.clone(), details };
        let file = NarInfoFile::from_path_info(&path_info, archive).expect("the hash is known");
        prop_assert_eq!(read(&file.to_string()).into_path_info(node), path_info);
    }

    #[test]
    fn whatever_is_accepted_means_what_it_prints(at in 0..TEXT.len(), byte: u8) {
        let mut text = TEXT.as_bytes().to_vec();
        text[at] = byte;
        if let Ok(file) = NarInfoFile::parse(&text) {
            prop_assert_eq!(parse(&file.to_string()), Ok(file));
        }
    }

    #[test]
    fn no_bytes_are_too_much(text in vec(any::<u8>(), 0..300)) {
        if let Ok(file) = NarInfoFile::parse(&text) {
            prop_assert_eq!(parse(&file.to_string()), Ok(file));
        }
    }
}
