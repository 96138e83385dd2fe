//! What files are understood to say, and what is said of those that are wrong.

use std::{fs, path::Path, sync::Arc, time::Duration};

use super::*;
use crate::{
    compose::{Address, Kind, Part},
    service::blob::layer::Verify,
};

fn settings() -> Settings {
    Settings {
        cache: None,
        cache_default: Some("/usual".into()),
        cache_size_max: None,
        is_strict: false,
        whole_len_max: None,
        absent_ttl: None,
    }
}

fn config(text: &str) -> Config {
    Config::parse(Path::new("c.toml"), text.to_owned()).expect("legal")
}

fn plan(text: &str, name: &str) -> Arc<Plan> {
    config(text).store(name, &settings()).expect("it fits")
}

/// What is wrong with a file, with its place.
fn fault(text: &str) -> String {
    let config = Config::parse(Path::new("c.toml"), text.to_owned());
    let all = config.and_then(|config| config.all(&settings()));
    all.map(|plans| plans.len()).expect_err(text).to_string()
}

fn names(plan: &Plan, kind: Kind) -> (Vec<&str>, Option<&str>) {
    let route = plan.route(kind);
    (route.read.iter().map(Part::name).collect(), route.write.as_ref().map(Part::name))
}

const TWO: &str = "[source.a]\naddress = 'memory:'\n[source.b]\naddress = 'grpc+http://b:1'\n";

#[test]
fn sources_are_read_in_order_and_one_is_written() {
    let text = format!(
        "{TWO}[store.default]\nread = ['a', 'b']\nwrite = 'b'\ncache = 'none'\n\
         [store.default.blobs]\nread = 'b'\n[store.default.path-infos]\nwrite = 'none'\n"
    );
    let plan = plan(&text, "default");
    assert_eq!(names(&plan, Kind::Blobs), (vec!["b"], Some("b")));
    assert_eq!(names(&plan, Kind::Directories), (vec!["a", "b"], Some("b")));
    assert_eq!(names(&plan, Kind::PathInfos), (vec!["a", "b"], None));
    assert!(plan.cache.is_none());
}

#[test]
fn what_nobody_says_has_its_default_and_the_command_line_wins() {
    let text = format!("{TWO}[cache.c]\ndir = '/c'\nsize = '1G'\n[store.one]\nread = 'b'\n");
    let one = plan(&text, "one");
    assert_eq!(names(&one, Kind::Blobs), (vec!["b"], Some("b")));
    let cache = one.cache.as_ref().expect("the only one");
    assert_eq!((cache.dir.as_path(), cache.size_max), (Path::new("/c"), Some(1 << 30)));
    assert_eq!((one.whole_len_max, one.absent_ttl), (256 << 10, Duration::from_secs(5)));
    let lone = plan(&text, "a");
    assert_eq!(names(&lone, Kind::PathInfos), (vec!["a"], Some("a")));

    let given = Settings {
        cache: Some(Some("/given".into())),
        cache_size_max: Some(1 << 25),
        is_strict: true,
        whole_len_max: Some(7),
        absent_ttl: Some(Duration::ZERO),
        ..settings()
    };
    let one = config(&text).store("one", &given).expect("it fits");
    let cache = one.cache.as_ref().expect("the one that is given");
    assert_eq!((cache.dir.as_path(), cache.size_max), (Path::new("/given"), Some(1 << 25)));
    assert_eq!((one.whole_len_max, one.absent_ttl), (7, Duration::ZERO));
    let Part::Source(source) = &one.blobs.read[0] else { panic!("a source") };
    assert_eq!(source.verify, Some(Verify::Strict));
    let usual = plan(&format!("{TWO}[store.one]\nread = 'b'\n"), "one");
    assert_eq!(usual.cache.as_ref().map(|cache| cache.dir.as_path()), Some(Path::new("/usual")));
}

#[test]
fn keys_are_the_options_of_an_address() {
    let text = "[source.s]\naddress = 'grpc+https://a:1,b:2?timeout=2'\ndialect = 'snix'\n\
                sizes = 'doubled'\ncompress = 'zstd'\nattempts = 3\nca = '/c a'\ncert = '/b&'\n\
                key = '/k'\ntoken-file = '/t'\ninsecure = true\n";
    let same = "grpc+https://a:1,b:2?timeout=2&dialect=snix&sizes=doubled&compress=zstd&attempts=3\
                &ca=/c%20a&cert=/b%26&key=/k&token-file=/t&insecure=1";
    let Part::Source(source) = plan(text, "s").blobs.read[0].clone() else { panic!("a source") };
    assert_eq!(source.address, same.parse::<Address>().expect("legal"));

    let text = "[source.s]\naddress = ['nix+https://a', 'nix+https://b/c']\ntimeout = 1.5\n\
                require-sigs = false\nforeign-urls = true\npriority = 7\nnetrc = '/n'\n\
                trusted-public-keys = []\n";
    let one = "require-sigs=0&foreign-urls=1&priority=7&netrc=/n&timeout=1.5";
    let same = format!("nix+https://a?{one} nix+https://b/c?{one}");
    let Part::Source(source) = plan(text, "s").blobs.read[0].clone() else { panic!("a source") };
    assert_eq!(source.address, same.parse::<Address>().expect("legal"));
}

#[test]
fn what_is_wrong_is_told_with_its_place() {
    let stores = |rest: &str| format!("{TWO}{rest}");
    let nix = "[source.n]\naddress = 'nix+https://n'\nrequire-sigs = false\n";
    for (text, place, what) in [
        ("[source.a\n".to_owned(), "c.toml:1:10", "table"),
        ("[sources.a]\n".to_owned(), "c.toml:1:2", "expected one of"),
        ("[source.a]\naddres = 'memory:'\n".to_owned(), "c.toml:2:1", "unknown field `addres`"),
        ("[source.a]\n".to_owned(), "c.toml:1:1", "missing field `address`"),
        ("[source.a]\naddress = 7\n".to_owned(), "c.toml:2:11", "expected a string"),
        ("[source.a]\naddress = 'ftp://x'\n".to_owned(), "c.toml:2:11", "expected memory:"),
        ("[source.a]\naddress='local:'\ntimeout=3\n".to_owned(), "c.toml:3:9", "no options"),
        (stores("dialect = 'nix'\n"), "c.toml:5:11", "expected tvix or snix"),
        (stores("attempts = 0\n"), "c.toml:5:12", "from 1 to 100"),
        (stores("options = { colour = 'red' }\n"), "c.toml:5:22", "unknown"),
        (
            "[source.a]\naddress='grpc+http://a:1?timeout=3'\ntimeout=3\n".to_owned(),
            "c.toml:3:9",
            "as well",
        ),
        ("[source.a]\naddress='memory:'\naddress='local:'\n".to_owned(), "c.toml:3:1", "duplicate"),
        ("[source.'a b']\naddress = 'memory:'\n".to_owned(), "c.toml:1:1", "is no name"),
        ("[cache.c]\nsize = 3\n".to_owned(), "c.toml:1:1", "missing field `dir`"),
        ("[cache.c]\ndir = 'here'\n".to_owned(), "c.toml:2:7", "absolute"),
        ("[cache.c]\ndir = '/c'\nsize = '3'\n".to_owned(), "c.toml:3:8", "16 MiB"),
        ("[cache.c]\ndir='/c'\n[cache.d]\ndir='/c'\n".to_owned(), "c.toml:4:5", "one cache"),
        (stores("[store.s]\n"), "c.toml:5:1", "nowhere to read blobs"),
        (stores("[store.s]\nread = []\n"), "c.toml:6:8", "at least one"),
        (stores("[store.s]\nread = ['a', 'x']\n"), "c.toml:6:14", "no [source.x]: there are a, b"),
        (stores("[store.s]\nread = ['a', 'a']\n"), "c.toml:6:9", "twice"),
        (stores("[store.s]\nread = 'memory:'\n"), "c.toml:6:8", "this is an address"),
        (stores("[store.s]\nread = 'a'\nwrite = 'x'\n"), "c.toml:7:9", "no [source.x]"),
        (stores("[store.s]\nread = 'a'\ncache = 'x'\n"), "c.toml:7:9", "add [cache.x]"),
        (stores("[store.s]\nread = 'a'\nsign-key-files=['k']\n"), "c.toml:7:17", "absolute"),
        (stores("[store.s]\nread = 'a'\nabsent-ttl=-1\n"), "c.toml:7:12", "from 0 to"),
        (stores("[store.s]\nread = 'a'\nfetch-whole-up-to='2M'\n"), "c.toml:7:19", "at most 1M"),
        (stores("[store.a]\nread = 'b'\n"), "c.toml:5:1", "names must differ"),
        (
            stores("[store.s]\nread = 't'\n[store.t]\nread = ['a', 's']\n"),
            "c.toml:8:14",
            "s → t → s",
        ),
        (stores("[store.s]\nread = ['s']\n"), "c.toml:6:9", "s → s"),
        (format!("{nix}[store.s]\nread = 'n'\ncache = 'none'\n"), "c.toml:5:8", "needs a cache"),
        (format!("{nix}[store.s]\nread = 'n'\nwrite = 'n'\n"), "c.toml:6:9", "only be read"),
        (
            format!("{TWO}{nix}[store.s]\nread = 'a'\nblobs.read = 'n'\n"),
            "c.toml:10:14",
            "only of the store paths that it is asked for",
        ),
        (
            format!("{TWO}{nix}[store.s]\nread = ['a', 'b']\npath-infos.read = ['b', 'n']\n"),
            "c.toml:10:25",
            "name where blobs and directories are written",
        ),
        (
            stores("[cache.c]\ndir='/c'\n[cache.d]\ndir='/d'\n[store.s]\nread = 'a'\n"),
            "c.toml:9:1",
            "one of c, d",
        ),
    ] {
        let fault = fault(&text);
        assert!(
            fault.starts_with(place) && fault.contains(what),
            "{place}: {what}: {fault}\n{text}"
        );
    }
    let absent = config(TWO).store("x", &settings()).expect_err("absent").to_string();
    assert!(absent.contains("c.toml has no [store.x]: it has a, b"), "{absent}");
}

#[test]
fn passwords_in_addresses_are_refused_and_not_repeated() {
    let fault = fault("[source.s]\naddress = 'nix+https://me:secret@host/x'\n");
    assert!(fault.contains("…@host/x") && !fault.contains("secret"), "{fault}");
}

fn document() -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/configuration.md");
    fs::read_to_string(path).expect("the document")
}

#[test]
fn the_examples_of_the_document_are_good() {
    let document = document();
    let examples: Vec<_> = document.split("```toml\n").skip(1).collect();
    assert!(examples.len() >= 3);
    for example in examples {
        let text = example.split("```").next().expect("it ends");
        config(text).all(&settings()).unwrap_or_else(|error| panic!("{error}\n{text}"));
    }
}

#[test]
fn each_key_stands_in_the_document() {
    let document = document();
    let needed = "[source.a]\naddress='memory:'\n[cache.a]\ndir='/c'\n[store.s]\nread='a'\n";
    for (section, place) in [
        ("[source.NAME]", needed.replace("[cache", "no-such-key=1\n[cache")),
        ("[cache.NAME]", needed.replace("[store", "no-such-key=1\n[store")),
        ("[store.NAME]", format!("{needed}no-such-key=1\n")),
        ("[store.NAME]", format!("{needed}blobs.no-such-key=1\n")),
    ] {
        // The parser tells which keys there are.
        let told = fault(&place);
        let keys: Vec<_> = told.split('`').skip(3).step_by(2).collect();
        assert!(keys.len() >= 2, "{told}");
        let section = document.split(&format!("## `{section}`")).nth(1).expect("a section");
        let section = section.split("\n## ").next().expect("it is not empty");
        for key in keys {
            assert!(section.contains(&format!("`{key}`")), "{key} is not described in {section}");
        }
    }
}
