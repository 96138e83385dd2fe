use super::*;
use crate::castore::Digest;

/// Made and signed by Nix 2.8, with the key of which the public half is below.
const SIGNATURE: &str = "test-1:BFGFGOrjonmORkjlHPKAMDmr2nofhu8E/yFAY+V04A4bJYXNmlbviwKvXC7iWt7/H5Z7rTgT77Q262cTtX8HCw==";
const PUBLIC_KEY: &str = "test-1:MqEdMYYYXKeVAuvCkufrt9P02lv1shS/oktlJ4kSK5c=";

fn path(text: &str) -> StorePath {
    text.parse().expect("a store path")
}

fn signed() -> PathInfo {
    let ca: Ca = "fixed:r:sha256:0bfb2si5yrp3rlbixgviwhgs2bxl12s3n4s7imjyx8dm66nzpk5r"
        .parse()
        .expect("a content address");
    let sha256 = ca.hash().as_bytes().try_into().expect("32 bytes");
    PathInfo {
        store_path: path("9jf5iszb57nl2lml18s742g7plcwxja4-refs"),
        node: Node::File { digest: Digest::EMPTY, size: 0, executable: false },
        details: Details::NarInfo(NarInfo {
            nar: NarHash { size: 216, sha256 },
            references: vec![
                path("phb26lqxx7gr7l05629hswdp5kwh9wh8-other"),
                path("72f1hzld5g7dj6wknixkal0bd6zzy2mc-text"),
                path("phb26lqxx7gr7l05629hswdp5kwh9wh8-other"),
            ],
            signatures: vec![SIGNATURE.parse().expect("a signature")],
            deriver: None,
            ca: Some(ca),
        }),
    }
}

fn nar_info(path_info: &mut PathInfo) -> &mut NarInfo {
    match &mut path_info.details {
        Details::NarInfo(nar_info) => nar_info,
        Details::References(_) => panic!("there is one"),
    }
}

#[test]
fn the_fingerprint_has_its_references_sorted_each_once() {
    assert_eq!(
        signed().fingerprint().as_deref(),
        Some(
            "1;/nix/store/9jf5iszb57nl2lml18s742g7plcwxja4-refs;\
             sha256:0bfb2si5yrp3rlbixgviwhgs2bxl12s3n4s7imjyx8dm66nzpk5r;216;\
             /nix/store/72f1hzld5g7dj6wknixkal0bd6zzy2mc-text,\
             /nix/store/phb26lqxx7gr7l05629hswdp5kwh9wh8-other"
        )
    );
    let mut lonely = signed();
    nar_info(&mut lonely).references.clear();
    assert!(lonely.fingerprint().is_some_and(|text| text.ends_with(";216;")));
}

#[test]
fn a_signature_by_nix_is_verified() {
    let key: PublicKey = PUBLIC_KEY.parse().expect("a key");
    let path_info = signed();
    let valid = path_info.valid_signatures(std::slice::from_ref(&key));
    assert_eq!(valid.iter().map(ToString::to_string).collect::<Vec<_>>(), [SIGNATURE]);
    assert!(path_info.valid_signatures(&[]).is_empty());
}

#[test]
fn whatever_is_changed_loses_its_signature() {
    let changes: [fn(&mut PathInfo); 6] = [
        |info| info.store_path = path("9jf5iszb57nl2lml18s742g7plcwxja4-ref"),
        |info| nar_info(info).nar.size += 1,
        |info| nar_info(info).nar.sha256[31] ^= 1,
        |info| nar_info(info).references.truncate(1),
        |info| nar_info(info).references.push(info_path()),
        |info| info.details = Details::References(Vec::new()),
    ];
    let keys = [PUBLIC_KEY.parse().expect("a key")];
    for change in changes {
        let mut path_info = signed();
        change(&mut path_info);
        assert!(path_info.valid_signatures(&keys).is_empty(), "{path_info:?}");
    }
}

fn info_path() -> StorePath {
    path("08g3c9zd7qsw0216x1bdlk7qrykjny7s-other")
}

#[test]
fn only_a_derivation_derives() {
    let mut path_info = signed();
    assert_eq!(path_info.check(), Ok(()));
    let derivation = path("08g3c9zd7qsw0216x1bdlk7qrykjny7s-other.drv");
    nar_info(&mut path_info).deriver = Some(derivation);
    assert_eq!(path_info.check(), Ok(()));
    nar_info(&mut path_info).deriver = Some(info_path());
    assert_eq!(path_info.check(), Err(PathInfoError::Deriver(info_path())));
    // No name is left without the suffix, and the protocol asks for one.
    let suffix = path("08g3c9zd7qsw0216x1bdlk7qrykjny7s-.drv");
    nar_info(&mut path_info).deriver = Some(suffix.clone());
    assert_eq!(path_info.check(), Err(PathInfoError::Deriver(suffix)));
}

#[test]
fn references_are_known_with_and_without_their_names() {
    let mut path_info = signed();
    let digests: Vec<_> = path_info.references().collect();
    assert_eq!(digests.len(), 3);
    assert_eq!(digests[1].to_string(), "72f1hzld5g7dj6wknixkal0bd6zzy2mc");
    path_info.details = Details::References(digests.clone());
    assert_eq!(path_info.references().collect::<Vec<_>>(), digests);
    assert_eq!((path_info.nar_info(), path_info.fingerprint()), (None, None));
}

#[test]
fn a_content_address_is_good_for_one_path_with_its_references() {
    let addressed = |info: &PathInfo| {
        info.nar_info().is_some_and(|nar_info| nar_info.is_addressed_by_content(&info.store_path))
    };
    assert!(addressed(&signed()));
    let changes: [fn(&mut PathInfo); 6] = [
        |info| info.store_path = path("9jf5iszb57nl2lml18s742g7plcwxja4-ref"),
        |info| info.store_path = path("08g3c9zd7qsw0216x1bdlk7qrykjny7s-refs"),
        |info| nar_info(info).references.truncate(1),
        |info| nar_info(info).references.push(path("9jf5iszb57nl2lml18s742g7plcwxja4-refs")),
        |info| nar_info(info).ca = Some(Ca::Text([0; 32])),
        |info| nar_info(info).ca = None,
    ];
    for change in changes {
        let mut info = signed();
        change(&mut info);
        assert!(!addressed(&info), "{info:?}");
    }
    let mut selfish = signed();
    selfish.store_path = path("a4msq22lkx27hf9kqqxnps0p4ckm8mq9-selfish");
    let ca = "fixed:r:sha256:06l65pvzyc796szhr7pc719rmccj8i66q55rdxvl73w6s5rak94k";
    nar_info(&mut selfish).ca = Some(ca.parse().expect("a content address"));
    let references =
        vec![selfish.store_path.clone(), path("72f1hzld5g7dj6wknixkal0bd6zzy2mc-text")];
    nar_info(&mut selfish).references = references;
    assert!(addressed(&selfish));
}
