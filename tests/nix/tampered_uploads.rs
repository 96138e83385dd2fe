//! Uploads that are wrong: each is refused with its own reason, and nothing of it is seen.

use std::io::Write as _;

use lazystore::nix::{
    ArchiveFile, Ca, Compression, NarHash, NarInfo, NarInfoFile, NixHash, StorePath,
    StorePathDigest,
    nar::{NarHasher, NarWriter},
    source_path,
};
use sha2::{Digest as _, Sha256};

use crate::{
    http::{Answer, Server},
    support::lazystore,
};

struct Scene {
    _folder: tempfile::TempDir,
    server: Server,
}

impl Scene {
    fn new(args: &[&str]) -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let args = [&["--allow-upload"][..], args].concat();
        let server = Server::start(&mut lazystore(&folder.path().join("store")), &args);
        Scene { _folder: folder, server }
    }

    fn put(&self, path: &str, body: &[u8]) -> Answer {
        self.server.request("PUT", path, &[], body)
    }

    fn put_info(&self, info: &NarInfoFile) -> Answer {
        self.put(&format!("{}.narinfo", info.store_path.digest()), info.to_string().as_bytes())
    }

    fn assert_absent(&self, info: &NarInfoFile) {
        let answer = self.server.get(&format!("{}.narinfo", info.store_path.digest()), &[]);
        assert_eq!(answer.status, 404);
    }
}

fn archive(contents: &[u8]) -> Vec<u8> {
    let mut nar = NarWriter::new(Vec::new()).expect("memory");
    nar.begin_file(false, contents.len() as u64).expect("in order");
    nar.contents(contents).expect("as announced");
    nar.end_file().expect("complete");
    nar.finish().expect("complete")
}

fn hash(nar: &[u8]) -> NarHash {
    let mut hasher = NarHasher::default();
    hasher.write_all(nar).expect("it takes everything");
    hasher.finish()
}

fn path(number: u8) -> StorePath {
    StorePath::new(StorePathDigest::from([number; 20]), "x").expect("legal")
}

/// Of an archive that is brought as `url`, with all that can be told.
fn narinfo(number: u8, nar: &[u8], url: &str) -> NarInfoFile {
    NarInfoFile {
        store_path: path(number),
        info: NarInfo {
            nar: hash(nar),
            references: Vec::new(),
            signatures: Vec::new(),
            deriver: None,
            ca: None,
        },
        archive: ArchiveFile {
            url: url.parse().expect("legal"),
            compression: Compression::None,
            sha256: Some(Sha256::digest(nar).into()),
            size: Some(nar.len() as u64),
        },
        system: None,
    }
}

fn refused(answer: &Answer, status: u16, reason: &str) {
    assert_eq!(answer.status, status, "{reason}: {}", answer.text());
    assert!(answer.text().contains(reason), "{reason}: {}", answer.text());
}

#[test]
fn a_narinfo_must_fit_its_archive() {
    let scene = Scene::new(&[]);
    let nar = archive(b"contents");
    let right = narinfo(1, &nar, "nar/a.nar");
    refused(&scene.put_info(&right), 409, "is not here, or was forgotten");
    assert_eq!(scene.put("nar/a.nar", &nar).status, 201);

    let wrong = |change: &dyn Fn(&mut NarInfoFile)| {
        let mut info = right.clone();
        change(&mut info);
        let answer = scene.put_info(&info);
        scene.assert_absent(&right);
        answer
    };
    let answer = wrong(&|info| info.info.nar.sha256[0] ^= 1);
    refused(&answer, 422, "the narinfo says the archive has");
    refused(&wrong(&|info| info.info.nar.size += 1), 422, "the narinfo says the archive has");
    refused(&wrong(&|info| info.archive.sha256 = Some([0; 32])), 422, "FileHash");
    refused(&wrong(&|info| info.archive.size = Some(1)), 422, "FileSize");
    refused(&wrong(&|info| info.archive.compression = Compression::Xz), 422, "compression xz");
    let other_url = |info: &mut NarInfoFile| info.archive.url = "nar/b.nar".parse().expect("legal");
    refused(&wrong(&other_url), 409, "nar/b.nar");
    let elsewhere = |info: &mut NarInfoFile| {
        info.archive.url = "https://elsewhere/nar/a.nar".parse().expect("legal");
    };
    refused(&wrong(&elsewhere), 409, "elsewhere");
    let lies = |info: &mut NarInfoFile| info.info.ca = Some(Ca::Nar(NixHash::Sha256([0; 32])));
    refused(&wrong(&lies), 422, "is not addressed by fixed:r:sha256:");
    let other_name = format!("{}.narinfo", path(9).digest());
    refused(&scene.put(&other_name, right.to_string().as_bytes()), 422, "is that of");
    refused(&scene.put(&other_name, b"StorePath: x\n"), 400, "line 1");
    refused(&scene.put(&other_name, &vec![b'x'; 5 << 20]), 413, "at most");
    scene.assert_absent(&right);

    assert_eq!(scene.put_info(&right).status, 201);
    let text = scene.server.get(&format!("{}.narinfo", path(1).digest()), &[]).text();
    let served = NarInfoFile::parse(text.as_bytes()).expect("legal");
    assert_eq!(served.info, right.info);
    assert!(scene.server.get(served.archive.url.as_str(), &[]).body == nar);
    assert!(scene.server.get("nar/a.nar", &[]).body == nar);
}

#[test]
fn what_is_true_of_contents_is_accepted_as_their_address() {
    let scene = Scene::new(&[]);
    let nar = archive(b"contents");
    assert_eq!(scene.put("nar/a.nar", &nar).status, 201);
    let mut info = narinfo(1, &nar, "nar/a.nar");
    info.store_path = source_path("x", &hash(&nar).sha256).expect("legal");
    info.info.ca = Some(Ca::Nar(NixHash::Sha256(hash(&nar).sha256)));
    assert_eq!(scene.put_info(&info).status, 201);
}

#[test]
fn references_must_be_here_or_come() {
    let scene = Scene::new(&[]);
    let nar = archive(b"contents");
    assert_eq!(scene.put("nar/a.nar", &nar).status, 201);
    let mut dependent = narinfo(2, &nar, "nar/a.nar");
    // Also to itself.
    dependent.info.references = vec![path(1), path(2)];
    let client = scene.server.client.clone();
    let (name, text) = (format!("{}.narinfo", path(2).digest()), dependent.to_string());
    let waiting =
        std::thread::spawn(move || client.request("PUT", &name, &[], text.as_bytes()).status);
    std::thread::sleep(std::time::Duration::from_millis(300));
    scene.assert_absent(&dependent);
    assert_eq!(scene.put_info(&narinfo(1, &nar, "nar/a.nar")).status, 201);
    assert_eq!(waiting.join().expect("no panic"), 201);
    let mut alone = narinfo(3, &nar, "nar/a.nar");
    alone.info.references = (10..20).map(path).collect();
    refused(&scene.put_info(&alone), 409, "and did not come in time");
    refused(&scene.put_info(&alone), 409, "5 more");
    scene.assert_absent(&alone);
}

#[test]
fn what_is_here_is_not_replaced() {
    let scene = Scene::new(&[]);
    let (nar, other) = (archive(b"contents"), archive(b"other"));
    assert_eq!(scene.put("nar/a.nar", &nar).status, 201);
    assert_eq!(scene.put("nar/b.nar", &other).status, 201);
    let mut info = narinfo(1, &nar, "nar/a.nar");
    let key = |name| lazystore::nix::SecretKey::from_seed(name, &[7; 32]).expect("legal");
    for name in ["a", "b"] {
        let fingerprint = info.info.fingerprint(&info.store_path);
        info.info.signatures = vec![key(name).sign(fingerprint.as_bytes())];
        assert_eq!(scene.put_info(&info).status, 201);
    }
    refused(&scene.put_info(&narinfo(1, &other, "nar/b.nar")), 409, "with other contents");
    let text = scene.server.get(&format!("{}.narinfo", path(1).digest()), &[]).text();
    let served = NarInfoFile::parse(text.as_bytes()).expect("legal");
    assert_eq!(served.valid_signatures(&[key("a").public(), key("b").public()]).len(), 2);
    // Its own narinfo, with a signature more, names an archive that nobody brought but that is here.
    let mut signed = served.clone();
    let fingerprint = signed.info.fingerprint(&signed.store_path);
    signed.info.signatures.push(key("c").sign(fingerprint.as_bytes()));
    assert_eq!(scene.put_info(&signed).status, 201);
}

#[test]
fn what_is_no_archive_is_refused() {
    let scene = Scene::new(&["--upload-size-max", "1M"]);
    let nar = archive(b"contents");
    let gzip = |bytes: &[u8]| {
        let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        encoder.write_all(bytes).expect("memory");
        encoder.finish().expect("memory")
    };
    let zstd = |bytes: &[u8]| zstd::encode_all(bytes, 1).expect("memory");
    for (name, body, status, reason) in [
        ("a.nar", Vec::new(), 400, "cut off"),
        ("a.nar", nar[..nar.len() - 8].to_vec(), 400, "cut off"),
        ("a.nar", [&nar[..], b"x"].concat(), 400, "something follows"),
        ("a.nar", b"\x0d\0\0\0\0\0\0\0nix-archive-2\0\0\0".to_vec(), 400, "expected"),
        ("a.nar", gzip(&nar[..50]), 400, "cut off"),
        ("a.nar", [gzip(&nar), nar.clone()].concat(), 400, "cannot read on"),
        ("a.nar.zst", nar.clone(), 400, "cannot read on"),
        ("a.nar.xz", zstd(&nar), 400, "cannot read on"),
        ("a.nar.zst", [zstd(&nar), b"xx".to_vec()].concat(), 400, "cannot read on"),
        // Some kilobytes that would become 100 MB.
        ("a.nar.zst", zstd(&archive(&vec![0; 100 << 20])), 413, "more than 1048576 bytes"),
        ("a.nar.lzip", nar.clone(), 415, "is no .nar"),
    ] {
        let answer = scene.put(&format!("nar/{name}"), &body);
        refused(&answer, status, reason);
        assert_eq!(scene.server.get(&format!("nar/{name}"), &[]).status, 404);
    }
    assert_eq!(scene.put("nar/../x.narinfo", &nar).status, 404);
    assert_eq!(scene.put("nix-cache-info", b"StoreDir: /nix/store\n").status, 405);
    let gzipped = gzip(&nar);
    assert_eq!(scene.put("nar/a.nar", &gzipped).status, 201);
    let mut info = narinfo(1, &nar, "nar/a.nar");
    info.archive.compression = Compression::Gzip;
    info.archive.sha256 = None;
    info.archive.size = None;
    assert_eq!(scene.put_info(&info).status, 201);
}

#[test]
fn an_archive_without_narinfo_is_seen_by_those_who_know_the_token() {
    let folder = tempfile::tempdir().expect("a folder");
    let tokens = folder.path().join("tokens");
    crate::support::write(&tokens, "0123456789abcdef\n", 0o600);
    let scene = Scene::new(&["--upload-token-file", tokens.to_str().expect("UTF-8")]);
    let nar = archive(b"contents");
    let answer = scene.put("nar/a.nar", &nar);
    refused(&answer, 401, "token");
    assert!(answer.header("www-authenticate").is_some());
    let token = "authorization: Bearer 0123456789abcdef";
    assert_eq!(scene.server.request("PUT", "nar/a.nar", &[token], &nar).status, 201);
    assert_eq!(scene.server.request("HEAD", "nar/a.nar", &[], b"").status, 404);
    assert_eq!(scene.server.request("HEAD", "nar/a.nar", &[token], b"").status, 200);
}

#[test]
fn anybody_may_bring_something_only_where_nobody_else_connects() {
    let folder = tempfile::tempdir().expect("a folder");
    let output = lazystore(folder.path())
        .args(["serve", "--listen", "0.0.0.0:0", "--allow-upload"])
        .output()
        .expect("it runs");
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert!(said.contains("needs --upload-token-file"), "{said}");
}
