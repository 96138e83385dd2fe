//! What binary caches tell that is not believed.

use lazystore::{
    castore::{Digest, Node},
    compose::open,
    nix::{Ca, Compression, ContentReferences, NixHash, SecretKey, content_addressed_path},
};
use tokio::runtime::Runtime;

use crate::{
    made_cache::{Made, address, file_archive, key, serve_info, sha256},
    refusing::{Fixture, addresses, tree},
    web::HttpServer,
};

#[test]
fn what_is_told_is_refused_if_nobody_who_is_trusted_said_so() {
    let mut fixture = Fixture::new();
    let mut number = 100;
    let mut made = || {
        number += 1;
        Made::new(&format!("told-{number}"), &tree(number), Compression::Xz)
    };
    let mut unsigned = made();
    unsigned.told.info.signatures.clear();
    fixture.refuses_made("unsigned", &unsigned, &["is not signed"]);
    let mut foreign = made();
    foreign.sign(&SecretKey::from_seed("other-1", &[2; 32]).expect("a key"));
    fixture.refuses_made("another key", &foreign, &["signed by other-1, none of which"]);
    let mut forged = made();
    forged.sign(&SecretKey::from_seed("made-1", &[2; 32]).expect("a key"));
    fixture.refuses_made("a key of that name", &forged, &["wrong signature by made-1"]);

    let wrong = &["wrong signature by made-1"];
    let mut changed = made();
    changed.told.info.references = vec![changed.told.store_path.clone()];
    fixture.refuses_made("changed references", &changed, wrong);
    let mut changed = made();
    changed.told.info.nar.size += 8;
    fixture.refuses_made("changed NarSize", &changed, wrong);
    let mut changed = made();
    changed.told.info.nar.sha256[0] ^= 1;
    fixture.refuses_made("changed NarHash", &changed, wrong);
    let mut changed = made();
    changed.told.info.signatures.push(changed.told.info.signatures[0].clone());
    changed.told.info.nar.size += 8;
    fixture.refuses_made("two signatures that are wrong", &changed, wrong);
    // Signed with another reference, which was taken out.
    let mut changed = made();
    changed.told.info.references = vec![unsigned.told.store_path.clone()];
    changed.sign(&key());
    changed.told.info.references.clear();
    fixture.refuses_made("removed references", &changed, wrong);
    // What belongs to another path, under this path's name.
    let (one, other) = (made(), made());
    fixture.server.put(&one.narinfo_name(), other.told.to_string());
    fixture.refuses("another path", &one.told.store_path.digest(), &["is about"]);
    let mut renamed = made();
    let text = renamed.told.to_string().replace("told-", "tald-");
    renamed.told.info.signatures.clear();
    fixture.server.put(&renamed.narinfo_name(), text);
    fixture.refuses("another name", &renamed.told.store_path.digest(), wrong);
    // A content address that is none of its own.
    let mut claimed = made();
    let ca = format!("fixed:r:sha256:{}", lazystore::nix::base32::encode(&[3; 32]));
    claimed.told.info.ca = Some(ca.parse().expect("a content address"));
    claimed.told.info.signatures.clear();
    fixture.refuses_made("another content address", &claimed, &["is not signed"]);
    fixture.nothing_is_visible(11);
}

#[test]
fn a_content_address_vouches_for_its_contents_and_for_no_others() {
    let mut fixture = Fixture::new();
    let content_addressed = |name: &str, archive: &[u8], told: [u8; 32]| {
        let mut made = Made::new(name, archive, Compression::Zstd);
        made.told.store_path = lazystore::nix::source_path(name, &told).expect("a name");
        made.told.info.ca = Some(lazystore::nix::Ca::Nar(lazystore::nix::NixHash::Sha256(told)));
        made.told.info.signatures.clear();
        made
    };
    let archive = tree(7);
    let other = content_addressed("other", &archive, [5; 32]);
    let reason = ["do not have the hash in its content address"];
    fixture.refuses_made("other contents", &other, &reason);
    let right = content_addressed("right", &archive, sha256(&archive));
    fixture.accepts("its own contents", &right);
}

#[test]
fn contents_that_are_not_as_their_address_says_leave_nothing_in_a_store() {
    let mut fixture = Fixture::new();
    let claims = [
        Ca::Flat(NixHash::Md5([1; 16])),
        Ca::Flat(NixHash::Sha256([1; 32])),
        Ca::Nar(NixHash::Sha1([1; 20])),
        Ca::Nar(NixHash::Sha512([1; 64])),
        Ca::Text([1; 32]),
    ];
    for (number, ca) in claims.into_iter().enumerate() {
        for (kind, archive) in [("tree", tree(number)), ("file", file_archive(b"contents"))] {
            let name = format!("{kind}-{number}");
            let mut made = Made::new(&name, &archive, Compression::Zstd);
            let path = content_addressed_path(&name, &ca, ContentReferences::default());
            made.told.store_path = path.expect("a name");
            made.told.info.ca = Some(ca);
            made.told.info.signatures.clear();
            let reason = ["do not have the hash in its content address"];
            fixture.refuses_made(&format!("{ca} of a {kind}"), &made, &reason);
        }
    }
    fixture.nothing_is_in_the_store(10);
}

/// They have one archive, and arrive together; but what one claims of it is nothing to the other.
#[test]
fn a_wrong_address_does_no_harm_to_another_path_with_the_same_contents() {
    let fixture = Fixture::new();
    for number in 0..20 {
        let archive = tree(number);
        let right = Made::new(&format!("right-{number}"), &archive, Compression::Zstd);
        let name = format!("wrong-{number}");
        let mut wrong = Made::new(&name, &archive, Compression::Zstd);
        let ca = Ca::Flat(NixHash::Md5([1; 16]));
        let path = content_addressed_path(&name, &ca, ContentReferences::default());
        wrong.told.store_path = path.expect("a name");
        wrong.told.info.ca = Some(ca);
        wrong.told.info.signatures.clear();
        fixture.accepts_only_the_second(&name, [&wrong, &right]);
    }
}

#[test]
fn texts_that_can_be_read_in_two_ways_are_refused() {
    let mut fixture = Fixture::new();
    let good = Made::new("text", &tree(1), Compression::Xz).told.to_string();
    let replace = |from: &str, to: &str| {
        assert!(good.contains(from), "{from} in {good}");
        good.replacen(from, to, 1).into_bytes()
    };
    let line = |name: &str| {
        let line = good.lines().find(|line| line.starts_with(name)).expect("a line");
        format!("{line}\n")
    };
    let elsewhere = "which is not on this server; foreign-urls=1";
    let mut cases: Vec<(&str, Vec<u8>, &str)> = vec![
        ("empty", Vec::new(), "has no"),
        ("html", b"<html><body>Please log in</body></html>\n".to_vec(), "is no <field>: <value>"),
        ("cut", good.as_bytes()[..good.len() - 1].to_vec(), "cut off"),
        ("crlf", good.replace('\n', "\r\n").into_bytes(), "CR LF"),
        ("not UTF-8", replace("Compression: xz", "System: \u{fffd}"), "no compression"),
        ("long", vec![b'x'; 5 << 20], "longer than 4194304 bytes"),
        ("URL elsewhere", replace("URL: nar/", "URL: http://127.0.0.1:9/nar/"), elsewhere),
        ("URL on another port", replace("URL: nar/", "URL: http://localhost/nar/"), elsewhere),
        ("URL upwards", replace("URL: nar/", "URL: ../nar/"), "empty step or one of only dots"),
        ("URL escaped", replace("URL: nar/", "URL: %2e%2e/nar/"), "only dots"),
        ("URL of a file", replace("URL: nar/", "URL: file:///nar/"), "neither http nor https"),
        ("URL with a slash", replace("URL: nar/", "URL: /nar/"), "begins with a slash"),
        ("URL with a user", replace("URL: nar/", "URL: http://u@h/nar/"), "no plain <host>"),
        (
            "compression",
            replace("Compression: xz", "Compression: rot13"),
            "none of the compressions",
        ),
        ("NarSize 0", replace(&line("NarSize"), "NarSize: 0\n"), "cannot have 0 bytes"),
        ("NarSize -1", replace(&line("NarSize"), "NarSize: -1\n"), "no number of bytes"),
        ("NarSize 2^64", replace(&line("NarSize"), "NarSize: 18446744073709551616\n"), "no number"),
        ("reference", replace("References: ", "References: ../../etc/passwd"), "References"),
        ("deriver", replace("References: \n", "References: \nDeriver: x\n"), "Deriver"),
        ("system", replace("References: \n", "References: \nSystem: a b\n"), "System"),
        ("ca", replace("References: \n", "References: \nCA: maybe\n"), "no content address"),
        ("signature", replace("Sig: made-1:", "Sig: made-1:!"), "Sig"),
        ("path", replace("StorePath: /nix/store/", "StorePath: /gnu/store/"), "StorePath"),
    ];
    cases[4].1 = {
        let mut bytes = good.clone().into_bytes();
        bytes.splice(0..0, *b"X: \xff\n");
        bytes
    };
    cases[4].2 = "is not UTF-8";
    for name in ["StorePath", "URL", "NarHash", "NarSize"] {
        cases.push(("missing", replace(&line(name), ""), "has no"));
    }
    for name in ["StorePath", "URL", "NarHash", "NarSize", "Compression", "References", "FileHash"]
    {
        cases.push(("twice", format!("{good}{}", line(name)).into_bytes(), "already on line"));
    }
    for name in ["NarHash", "FileHash"] {
        cases.push(("hash", replace(&line(name), &format!("{name}: sha256:xyz\n")), name));
        cases.push((
            "hash",
            replace(&line(name), &format!("{name}: md5:{}\n", "0".repeat(32))),
            "sha256",
        ));
    }
    let digest = Made::new("text", &tree(1), Compression::Xz).told.store_path.digest();
    for (what, text, reason) in cases {
        fixture.server.put(&format!("{digest}.narinfo"), text);
        fixture.refuses(what, &digest, &[reason]);
    }
    fixture.nothing_is_visible(38);
}

#[test]
fn a_cache_for_another_store_is_refused() {
    for (info, reason) in [
        (Some("StoreDir: /gnu/store\n"), "not in /nix/store"),
        (Some("<html>hm</html>\n"), "is no <field>: <value>"),
        (Some("StoreDir: /nix/store\nPriority: first\n"), "no number that fits"),
        (None, "is it a binary cache?"),
    ] {
        let server = HttpServer::new();
        if let Some(info) = info {
            server.put("nix-cache-info", info);
        }
        let mut fixture = Fixture::of(server);
        let made = Made::new("good", &tree(1), Compression::Xz);
        fixture.refuses_made("another cache", &made, &[reason]);
        fixture.nothing_is_visible(1);
    }
}

#[test]
fn what_was_kept_when_more_was_believed_is_not_believed_now() {
    let folder = tempfile::tempdir().expect("a folder");
    let runtime = Runtime::new().expect("a runtime");
    let (good, bad) = (HttpServer::new(), HttpServer::new());
    for server in [&good, &bad] {
        serve_info(server);
    }
    let right = Made::new("wanted", &file_archive(b"right"), Compression::Xz);
    right.serve(&good);
    let get = |store: &str| {
        let stores = {
            let _in_runtime = runtime.enter();
            open(&addresses(folder.path(), store)).expect("it opens")
        };
        let digest = right.told.store_path.digest();
        let found = runtime.block_on(stores.path_infos.get(&digest)).expect("it is told");
        found.expect("it is there").node
    };
    let anybody = format!("nix+{}?require-sigs=0", bad.url());
    let mut wrong = Made::new("wanted", &file_archive(b"wrong"), Compression::Xz);
    wrong.told.info.signatures.clear();
    wrong.serve(&bad);
    let node = |contents: &[u8]| Node::File {
        digest: Digest::of(contents),
        size: contents.len() as u64,
        executable: false,
    };
    assert_eq!(get(&anybody), node(b"wrong"));
    assert_eq!(get(&address(&good)), node(b"right"));
    // From now on that is what is kept, and nobody is asked.
    let asked = good.asked("wanted");
    assert_eq!(get(&address(&good)), node(b"right"));
    assert_eq!(good.asked("wanted"), asked);
}
