//! The expected paths are those that Nix 2.8 gave the same contents.

use rstest::rstest;

use super::*;

fn path(text: &str) -> StorePath {
    text.parse().expect("a store path")
}

fn compute(expected: &str, ca: &str, references: ContentReferences<'_>) {
    let expected = path(expected);
    let ca: Ca = ca.parse().expect("a content address");
    assert_eq!(content_addressed_path(expected.name(), &ca, references), Ok(expected));
}

#[test]
fn a_recursive_sha256_is_what_nix_store_add_prints() {
    let ca = "fixed:r:sha256:0jczh3s8axnp7dm6rl0yqb5lvs4jmvjj7jn3qmb02sa7kxb4yr22";
    let expected = "c4dlvyi5zg15dffrnmsi6ix40cllfac7-hello";
    compute(expected, ca, ContentReferences::default());
    let Ok(Ca::Nar(NixHash::Sha256(sha256))) = ca.parse() else { panic!("another kind") };
    assert_eq!(source_path("hello", &sha256), Ok(path(expected)));
}

#[rstest]
#[case("rham87ff45wz573288z971qy2wsx0wqm", "md5:b1946ac92492d2347c6235b4d2611184")]
#[case("x6h2qkbzk1kavkf8y8hpkag92gknfibh", "r:md5:4ycxcbh0ac0abr4zxw23l6isnk")]
#[case("hm9h76svchcy1ql6jqzvv2qzmb36dg97", "sha1:f572d396fae9206628714fb2ce00f72e94f2258f")]
#[case("rkqnxb0i03xmx69ji6zc1d2cf04zyl8x", "r:sha1:0deb52c2735eb38d360f976b7b3823c4ad05cce7")]
#[case(
    "a4w3h6xd362k7z6pi562lgyjzv90fk2j",
    "sha256:00xyyr3fi8l6hb839bv3f7yb86yjv7xi1cgh1xnhipym4asvb4aq"
)]
#[case(
    "ykqkpv6sqvdb4x40wgikypk4a6wcpc03",
    "r:sha256:04zwf782yjwnh3q6hz5izfd6jyip8kgw6g6yj43fiqhbyhdd0dqw"
)]
#[case(
    "663rc7bd7pjsn5rwm1c9gwl6w2bf575i",
    "sha512:0lrc0dwnvipqviibf7qfm1y492qvjwb1zhkcyi05cndmva1mr5gjcgrnz1x36djmk0sfg8djd2n0qv68vib2jg590mwznar9jcjphp7"
)]
#[case(
    "mw29bjclzk86nwrhbjry17zvp3y1ajyz",
    "r:sha512:2q80akf4fi29vbxj82s21m9y6xrdjnwi9q1c3kfab0032zdnl18nzninbjw6n0rz4p76g8s1c5yv9hznv09l085azzqvk4hn9irv389"
)]
fn every_fixed_output_has_its_path(#[case] digest: &str, #[case] ca: &str) {
    let expected = format!("{digest}-plain.txt");
    compute(&expected, &format!("fixed:{ca}"), ContentReferences::default());
}

#[test]
fn a_text_has_its_references_in_its_path() {
    compute(
        "q3laishhmk84vl44j1973qpzkyhmr90c-text",
        "text:sha256:00xyyr3fi8l6hb839bv3f7yb86yjv7xi1cgh1xnhipym4asvb4aq",
        ContentReferences::default(),
    );
    // Neither their order nor how often they are named matters.
    let text = path("q3laishhmk84vl44j1973qpzkyhmr90c-text");
    let other = path("08g3c9zd7qsw0216x1bdlk7qrykjny7s-other");
    for others in [&[text.clone(), other.clone()][..], &[other.clone(), text, other]] {
        compute(
            "9qlyqzc22apzk0p5lk0qnbkfhdljkbqd-refs",
            "text:sha256:1zm14y3rgkza4bi8asac3smq0xbqal2v8alhxibj7kdirrz1k4sx",
            ContentReferences { others, itself: false },
        );
    }
}

#[test]
fn an_archive_has_its_references_in_its_path() {
    let text = path("72f1hzld5g7dj6wknixkal0bd6zzy2mc-text");
    let other = path("phb26lqxx7gr7l05629hswdp5kwh9wh8-other");
    compute(
        "9jf5iszb57nl2lml18s742g7plcwxja4-refs",
        "fixed:r:sha256:0bfb2si5yrp3rlbixgviwhgs2bxl12s3n4s7imjyx8dm66nzpk5r",
        ContentReferences { others: &[other, text.clone()], itself: false },
    );
    compute(
        "a4msq22lkx27hf9kqqxnps0p4ckm8mq9-selfish",
        "fixed:r:sha256:06l65pvzyc796szhr7pc719rmccj8i66q55rdxvl73w6s5rak94k",
        ContentReferences { others: &[text], itself: true },
    );
}

#[test]
fn references_without_a_place_are_refused() {
    let other = path("08g3c9zd7qsw0216x1bdlk7qrykjny7s-other");
    let itself = ContentReferences { others: &[], itself: true };
    for ca in [
        Ca::Flat(NixHash::Sha256([0; 32])),
        Ca::Flat(NixHash::Md5([0; 16])),
        Ca::Nar(NixHash::Sha1([0; 20])),
        Ca::Nar(NixHash::Sha512([0; 64])),
    ] {
        for references in
            [itself, ContentReferences { others: std::slice::from_ref(&other), itself: false }]
        {
            assert_eq!(
                content_addressed_path("a", &ca, references),
                Err(ComputeError::References(ca))
            );
        }
    }
    assert_eq!(
        content_addressed_path("a", &Ca::Text([0; 32]), itself),
        Err(ComputeError::TextRefersToItself)
    );
}

#[test]
fn an_illegal_name_has_no_path() {
    assert_eq!(source_path("", &[0; 32]), Err(StorePathNameError::Empty));
    assert_eq!(
        content_addressed_path("..", &Ca::Text([0; 32]), ContentReferences::default()),
        Err(ComputeError::Name(StorePathNameError::Dots("..")))
    );
}

#[test]
fn the_last_12_bytes_are_folded_onto_the_first() {
    let mut sha256 = [0; 32];
    sha256[0] = 0b01;
    sha256[11] = 0b100;
    sha256[19] = 7;
    sha256[20] = 0b10;
    sha256[31] = 0b1000;
    let mut expected = [0; 20];
    expected[0] = 0b11;
    expected[11] = 0b1100;
    expected[19] = 7;
    assert_eq!(compress20(&sha256), expected);
}
