//! The seeds of the fuzz targets, without libFuzzer: each is accepted or refused as its name says, and what must hold
//! of any bytes holds of it, and of it with a byte more, a byte less and some bits flipped.

use std::{fs, path::Path};

use rstest::rstest;

#[path = "../../fuzz/properties.rs"]
mod properties;

use properties::Accepted;

#[rstest]
#[case("nar", properties::nar)]
#[case("narinfo", properties::narinfo)]
#[case("store-path", properties::store_path)]
#[case("path-list", properties::path_list)]
#[case("directory", properties::directory)]
#[case("path-info", properties::path_info)]
fn each_seed_is_what_its_name_says(#[case] target: &str, #[case] property: fn(&[u8]) -> Accepted) {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/seeds").join(target);
    let mut accepted = [0, 0];
    for entry in fs::read_dir(dir).expect("the seeds are here") {
        let entry = entry.expect("the seeds can be read");
        let name = entry.file_name().into_string().expect("UTF-8");
        let bytes = fs::read(entry.path()).expect("a seed can be read");
        let expected = match name.split_once('-') {
            Some(("good", _)) => true,
            Some(("bad", _)) => false,
            _ => panic!("{name}: a seed is called good-… or bad-…"),
        };
        assert_eq!(property(&bytes), expected, "{target}/{name}");
        accepted[usize::from(expected)] += 1;
        vary(&bytes, property);
    }
    assert!(accepted.iter().all(|count| *count >= 2), "{target}: {accepted:?} bad and good seeds");
}

/// Whatever becomes of these, the property holds: it panics otherwise.
fn vary(bytes: &[u8], property: fn(&[u8]) -> Accepted) {
    property(&[bytes, b"\0"].concat());
    let Some((_, shorter)) = bytes.split_last() else { return };
    property(shorter);
    let step = bytes.len() / 200 + 1;
    for at in (0..bytes.len()).step_by(step) {
        let mut flipped = bytes.to_vec();
        flipped[at] ^= 1 << (at % 8);
        property(&flipped);
    }
}
