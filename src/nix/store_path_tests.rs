use proptest::prelude::*;

use super::*;

const DIGEST: &str = "c4dlvyi5zg15dffrnmsi6ix40cllfac7";

fn named(name: &str) -> String {
    format!("{DIGEST}-{name}")
}

#[test]
fn a_base_name_is_read_and_printed() {
    let path: StorePath = named("hello-1.0").parse().expect("legal");
    assert_eq!(path.name(), "hello-1.0");
    assert_eq!(path.digest().to_string(), DIGEST);
    assert_eq!(path.to_string(), named("hello-1.0"));
    assert_eq!(path.absolute(), format!("/nix/store/{DIGEST}-hello-1.0"));
    assert_eq!(StorePath::from_absolute(path.absolute().as_bytes()), Ok(path));
}

#[test]
fn every_legal_name_is_accepted() {
    let long = "x".repeat(STORE_PATH_NAME_LEN_MAX);
    for name in ["a", "0", "-", "+-._?=azAZ09", "...", ".a", "..a", "a.-", &long] {
        assert_eq!(check_store_path_name(name.as_bytes()), Ok(name));
    }
}

#[test]
fn each_illegal_name_has_its_error() {
    let check = |name: &str| check_store_path_name(name.as_bytes()).map(str::to_owned);
    assert_eq!(check(""), Err(StorePathNameError::Empty));
    assert_eq!(check(&"x".repeat(212)), Err(StorePathNameError::TooLong(212)));
    assert_eq!(check("."), Err(StorePathNameError::Dots(".")));
    assert_eq!(check(".."), Err(StorePathNameError::Dots("..")));
    assert_eq!(check(".-a"), Err(StorePathNameError::Dots(".-")));
    assert_eq!(check("..-a"), Err(StorePathNameError::Dots("..-")));
    for byte in *b"/ \0~,:\n@" {
        let name = [b'a', byte];
        assert_eq!(
            check_store_path_name(&name),
            Err(StorePathNameError::Byte { name: name.escape_ascii().to_string(), byte })
        );
    }
    assert!(matches!(check("ä"), Err(StorePathNameError::Byte { byte: 0xc3, .. })));
}

#[test]
fn each_illegal_path_has_its_error() {
    let parse = |text: &str| text.parse::<StorePath>();
    assert_eq!(parse(""), Err(StorePathError::TooShort(String::new())));
    assert_eq!(parse(DIGEST), Err(StorePathError::TooShort(DIGEST.to_owned())));
    assert_eq!(parse(&named("")), Err(StorePathError::Name(StorePathNameError::Empty)));
    let base_name = named("a").replacen('c', "e", 1);
    assert_eq!(
        parse(&base_name),
        Err(StorePathError::Digest {
            base_name: base_name.clone(),
            source: Base32Error::Digit { byte: b'e', at: 0 }
        })
    );
    let base_name = format!("{DIGEST}_a");
    assert_eq!(parse(&base_name), Err(StorePathError::NoDash(base_name.clone())));
}

#[test]
fn what_is_inside_of_a_store_path_is_split_off() {
    let path: StorePath = named("a").parse().expect("legal");
    let split = |rest: &str| {
        let text = format!("/nix/store/{DIGEST}-a{rest}");
        StorePath::split_absolute(text.as_bytes()).map(|(p, i)| (p, i.map(<[u8]>::to_vec)))
    };
    assert_eq!(split(""), Ok((path.clone(), None)));
    assert_eq!(split("/"), Ok((path.clone(), Some(vec![]))));
    assert_eq!(split("/bin/x"), Ok((path, Some(b"bin/x".to_vec()))));

    let inner = format!("/nix/store/{DIGEST}-a/bin");
    assert_eq!(
        StorePath::from_absolute(inner.as_bytes()),
        Err(StorePathError::Inner(inner.clone()))
    );
    for text in [named("a"), format!("/nix/stores/{DIGEST}-a"), "/nix/store".to_owned()] {
        assert_eq!(
            StorePath::from_absolute(text.as_bytes()),
            Err(StorePathError::NotInStore(text.clone()))
        );
    }
}

#[test]
fn a_digest_has_20_bytes() {
    assert_eq!(StorePathDigest::try_from(&[0; 19][..]), Err(StorePathDigestError { len: 19 }));
    assert_eq!(StorePathDigest::try_from(&[1; 20][..]), Ok(StorePathDigest([1; 20])));
}

proptest! {
    #[test]
    fn the_order_is_that_of_the_text(
        a: [u8; 20], b: [u8; 20], a_name in "[a-z]{1,3}", b_name in "[a-z]{1,3}"
    ) {
        let a = StorePath::new(a.into(), &a_name).expect("legal");
        let b = StorePath::new(b.into(), &b_name).expect("legal");
        prop_assert_eq!(a.cmp(&b), a.to_string().cmp(&b.to_string()));
        let twin = StorePath::new(a.digest(), b.name()).expect("legal");
        prop_assert_eq!(a.cmp(&twin), a.to_string().cmp(&twin.to_string()));
    }

    #[test]
    fn any_bytes_are_refused_or_read_back(bytes in "[0-9a-z]{31,33}-?.{0,4}") {
        if let Ok(path) = StorePath::from_base_name(bytes.as_bytes()) {
            prop_assert_eq!(path.to_string(), bytes);
        }
    }
}
