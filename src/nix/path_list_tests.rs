//! The texts are those that Nix 2.8 and the documentation of newer ones give.

use rstest::rstest;
use serde_json::{Value, json};

use super::*;
use crate::nix::{Ca, NarHash};

const HASH: &str = "sha256-FePFYIlMuycIXPZbWi7LGEiMmZSX9FMbaQenWBzm1Sc=";
const FOO: &str = "n5wkd9frr45pa74if5gpz9j7mifg27fh-foo";
const BAR: &str = "g1w7hy3qg1w7hy3qg1w7hy3qg1w7hy3q-bar";
const SIGNATURE: &str =
    "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA==";

fn parse(value: &Value) -> Result<Vec<ListedPath>, PathListError> {
    read(value.to_string().as_bytes())
}

fn absolute(base_name: &str) -> String {
    format!("/nix/store/{base_name}")
}

/// `BAR` with a reference to `FOO`, and everything else there can be.
fn bar() -> ListedPath {
    let NixHash::Sha256(sha256) = HASH.parse().expect("a hash") else { panic!("another hash") };
    let ca = "fixed:r:sha256:1lr187v6dck1rjh2j6svpikcfz53wyl3qrlcbb405zlh13x0khhh";
    let path = |base_name: &str| base_name.parse::<StorePath>().expect("a store path");
    ListedPath {
        store_path: path(BAR),
        info: NarInfo {
            nar: NarHash { size: 34878, sha256 },
            references: vec![path(BAR), path(FOO)],
            signatures: vec![format!("a-1:{SIGNATURE}").parse().expect("a signature")],
            deriver: Some(path(&format!("{BAR}.drv"))),
            ca: Some(ca.parse().expect("a content address")),
        },
    }
}

/// The same as JSON, with what is not kept of it.
fn bar_json(name: impl Fn(&str) -> String, ca: Value, signature: Value) -> Value {
    json!({
        "ca": ca, "deriver": name(&format!("{BAR}.drv")), "narHash": HASH, "narSize": 34878,
        "references": [name(BAR), name(FOO)], "registrationTime": 23423, "ultimate": true,
        "signatures": [signature], "closureSize": 9, "url": "nar/x", "valid": true,
    })
}

fn bar_version_1() -> Value {
    let ca = json!("fixed:r:sha256:1lr187v6dck1rjh2j6svpikcfz53wyl3qrlcbb405zlh13x0khhh");
    bar_json(absolute, ca, json!(format!("a-1:{SIGNATURE}")))
}

#[test]
fn every_shape_says_the_same() {
    let mut in_list = bar_version_1();
    in_list["path"] = json!(absolute(BAR));
    assert_eq!(parse(&json!([in_list])).expect("a list"), [bar()]);
    assert_eq!(parse(&json!({ absolute(BAR): bar_version_1() })).expect("a map"), [bar()]);

    let structured =
        json!({ "method": "nar", "hash": "sha256-EMIJ+giQ/gLIWoxmPKjno3zHZrxbGymgzGGyZvZBIdM=" });
    for (version, signature) in
        [(2, json!(format!("a-1:{SIGNATURE}"))), (3, json!({ "keyName": "a-1", "sig": SIGNATURE }))]
    {
        let mut info = bar_json(str::to_owned, structured.clone(), signature);
        info["storeDir"] = json!("/nix/store");
        info["version"] = json!(version);
        let all = json!({ "version": version, "storeDir": "/nix/store", "info": { BAR: info } });
        assert_eq!(parse(&all).expect("versioned"), [bar()]);
        assert_eq!(parse(&all["info"]).expect("a map of base names"), [bar()]);
    }

    let graph = json!([in_list]);
    let one = json!({ "closure": graph, "name": "x", "outputs": { "out": "/nix/store/x" } });
    assert_eq!(parse(&one).expect("structured attributes"), [bar()]);
    let roots = json!([absolute(BAR)]);
    let several = json!({
        "exportReferencesGraph": { "one": roots, "two": roots }, "one": graph, "two": graph,
        "closure": "something else",
    });
    assert_eq!(parse(&several).expect("structured attributes"), [bar()]);
}

#[test]
fn what_is_optional_may_be_null_or_absent() {
    let hash = "sha256:0rsv7kag23nvdpy4500mv2m0b4sm4c8fkgqrfsrmv1kgk77bi81c";
    let short = json!({ "narHash": hash, "narSize": 120, "references": [] });
    let null = json!({
        "narHash": hash, "narSize": 120, "references": [], "ca": null, "deriver": null,
        "signatures": null, "registrationTime": null,
    });
    for entry in [short, null] {
        let listed = parse(&json!({ absolute(FOO): entry })).expect("legal");
        let info = &listed[0].info;
        assert_eq!((info.nar.size, info.references.len(), info.signatures.len()), (120, 0, 0));
        assert_eq!((&info.deriver, &info.ca), (&None, &None));
    }
    for empty in ["", " \n", "[]", "{}", "{\"closure\":[]}", "{\"info\":{},\"version\":2}"] {
        assert_eq!(read(empty.as_bytes()).expect(empty), []);
    }
}

#[test]
fn what_is_written_as_a_registration_is_read_again() {
    let mut path = bar();
    let text = to_registration(&path).repeat(2);
    // What a registration does not hold.
    path.info.signatures.clear();
    path.info.ca = None;
    path.info.references.sort_by_key(StorePath::absolute);
    assert_eq!(read(text.as_bytes()).expect("a registration"), [path]);
}

#[test]
fn a_registration_is_read_in_both_spellings_of_the_hash() {
    let hex = "15e3c560894cbb27085cf65b5a2ecb18488c999497f4531b6907a7581ce6d527";
    let NixHash::Sha256(sha256) = HASH.parse().expect("a hash") else { panic!("another hash") };
    for hash in [hex, &NixHash::Sha256(sha256).to_string(), HASH] {
        let (bar_path, foo_path) = (absolute(BAR), absolute(FOO));
        let text = format!(
            "{foo_path}\n{hash}\n120\n\n0\n{bar_path}\n{hash}\n34878\n{bar_path}.drv\n2\n{bar_path}\n{foo_path}\n"
        );
        let listed = read(text.as_bytes()).expect("a registration");
        let mut expected = bar();
        (expected.info.signatures, expected.info.ca) = (Vec::new(), None);
        assert_eq!(listed[1], expected);
        assert_eq!((listed.len(), listed[0].info.nar.size), (2, 120));
    }
}

#[test]
fn what_is_printed_is_read_back() {
    let bar = bar();
    let printed = json!({ bar.store_path.absolute(): to_json(&bar.info) });
    assert_eq!(parse(&printed).expect("legal"), [bar]);
}

/// `BAR` in a map, with one field changed.
fn changed(field: &str, value: Value) -> Value {
    let mut info = bar_version_1();
    info[field] = value;
    json!({ absolute(BAR): info })
}

#[rstest]
#[case("narHash", json!(null), "narHash is missing")]
#[case("narHash", json!(7), "narHash is not a string")]
#[case("narHash", json!("sha256-AA"), "narHash: not canonical base64")]
#[case("narHash", json!("md5:b1946ac92492d2347c6235b4d2611184"), "by md5, not by sha256")]
#[case("narSize", json!(0), "narSize is no number from 1")]
#[case("narSize", json!(-1), "narSize is no number from 1")]
#[case("narSize", json!(1.5), "narSize is no number from 1")]
#[case("narSize", json!("1"), "narSize is no number from 1")]
#[case("references", json!(null), "references is missing")]
#[case("references", json!({}), "references is not a list")]
#[case("references", json!([1]), "a reference is not a string")]
#[case("references", json!(["/etc/passwd"]), "references: \"/etc/passwd\" is not in /nix/store")]
#[case("references", json!(["../x"]), "references: \"../x\" is too short")]
#[case("deriver", json!("/nix/store/n5wkd9frr45pa74if5gpz9j7mifg27fh-foo"), "is no derivation")]
#[case("deriver", json!(1), "deriver is not a string")]
#[case("signatures", json!("a:b"), "signatures is not a list")]
#[case("signatures", json!(["a:b"]), "signatures: what follows \"a\" is not canonical base64")]
#[case("signatures", json!([{ "keyName": "a" }]), "a signature is not a string, or keyName with sig")]
#[case("signatures", json!([1]), "a signature is not a string")]
#[case("ca", json!("x"), "is no content address")]
#[case("ca", json!(1), "ca is not a string, or method with hash")]
#[case("ca", json!({ "method": "nar" }), "ca is not method with hash")]
#[case("ca", json!({ "method": "git", "hash": HASH }), "the method \"git\" is none of")]
#[case("storeDir", json!("/gnu/store"), "for a store in \"/gnu/store\"")]
#[case("valid", json!(false), "it is not valid in the store")]
fn each_wrong_field_has_its_error(#[case] field: &str, #[case] value: Value, #[case] error: &str) {
    let found = parse(&changed(field, value)).expect_err(error).to_string();
    assert!(found.contains(error) && found.contains(BAR), "{found}");
}

#[test]
fn each_wrong_shape_has_its_error() {
    let entry = bar_version_1();
    for (value, error) in [
        (json!({ absolute(BAR): null }), "it is not valid in the store"),
        (json!({ absolute(BAR): 1 }), "the entry is not an object"),
        (json!({ absolute(BAR): entry, "x": entry }), "\"x\" is no store path"),
        (json!({ "name": "x" }), "an object of an unknown shape"),
        (json!({ "version": 4, "info": {} }), "version 4"),
        (json!({ "version": "2", "info": {} }), "version \"2\""),
        (json!({ "version": 2, "info": {}, "storeDir": "/x" }), "for a store in \"/x\""),
        (json!([1]), "[0]: the entry is not an object"),
        (json!([entry]), "[0]: path is missing"),
        (json!([{ "path": 1 }]), "[0]: path is not a string"),
        (json!([{ "path": "x" }]), "[0]: path: \"x\" is too short"),
        (json!({ "exportReferencesGraph": { "g": [] } }), "g: the graph is not a list"),
        (json!({ "closure": [null] }), "closure[0]: the entry is not an object"),
        (json!(1), "neither JSON nor a registration"),
    ] {
        let found = parse(&value).expect_err(error).to_string();
        assert!(found.contains(error), "{found} instead of {error}");
    }
    let mut twice = [entry.clone(), entry];
    twice[0]["path"] = json!(absolute(BAR));
    twice[1]["path"] = json!(BAR);
    assert_eq!(parse(&json!(twice)).expect("the same twice"), [bar()]);
    twice[1]["narSize"] = json!(1);
    assert!(matches!(parse(&json!(twice)), Err(PathListError::Contradiction(_))));
    assert!(matches!(read(b"[1"), Err(PathListError::Json(_))));
    let deep = "[".repeat(100_000);
    assert!(matches!(read(deep.as_bytes()), Err(PathListError::Json(_))));
    assert!(matches!(read(&vec![b' '; PATH_LIST_LEN_MAX + 1]), Err(PathListError::TooLong)));
}

#[test]
fn each_wrong_line_of_a_registration_has_its_error() {
    let (hash, path) = ("0".repeat(64), absolute(FOO));
    for (text, error) in [
        (format!("{path}\n"), "line 1 of the registration: the hash is missing"),
        (format!("{path}\n\n0\n"), "line 2 of the registration: there is no hash"),
        (format!("{path}\nx\n1\n\n0"), "line 2 of the registration: the hash: no spelling"),
        (format!("{path}\n{hash}\n0\n\n0"), "line 3 of the registration: the size is no number"),
        (format!("{path}\n{hash}\n+1\n\n0"), "line 3 of the registration: the size is no number"),
        (format!("{path}\n{hash}\n1\nx\n0"), "line 4 of the registration: the deriver: \"x\""),
        (format!("{path}\n{hash}\n1\n\n-1"), "line 5 of the registration: the number of"),
        (
            format!("{path}\n{hash}\n1\n\n18446744073709551615\n{path}"),
            "line 6 of the registration: a reference is missing",
        ),
        (format!("{path}\n{hash}\n1\n\n1\nx"), "line 6 of the registration: a reference: \"x\""),
        (format!("{path}\n{hash}\n1\n\n0\nx"), "line 6 of the registration: path: \"x\""),
    ] {
        let found = read(text.as_bytes()).expect_err(error).to_string();
        assert!(found.contains(error), "{found} instead of {error}");
    }
    let found = read(&[absolute(FOO).as_bytes(), b"\n\xff\n"].concat()).expect_err("no text");
    assert!(found.to_string().contains("the hash is not text"), "{found}");
    assert!(matches!(read(b"x"), Err(PathListError::Format)));
    assert!(matches!(bar().info.ca, Some(Ca::Nar(_))));
}
