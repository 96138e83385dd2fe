//! Everything that can be wrong with a store path is found, and told apart.

use std::sync::Arc;

use futures::StreamExt as _;
use lazystore::{
    audit::{Auditor, Problem, Progress},
    castore::{Digest, Directory, Node, SizeRule},
    nix::{
        Ca, Details, NarInfo, NixHash, PathInfo, SecretKey, StorePath, StorePathDigest, source_path,
    },
    render::RenderNar,
    service::{
        Stores, blob::backend::MemoryBlobs, directory::backend::MemoryDirectories,
        pathinfo::backend::MemoryPathInfos,
    },
};

use crate::{
    faults::{Fault, Faults},
    support::noise,
};

fn memory() -> Stores {
    let (blobs, directories) = (Arc::new(MemoryBlobs::new()), Arc::new(MemoryDirectories::new()));
    let nars = RenderNar { blobs: blobs.clone(), directories: directories.clone() };
    let path_infos = Arc::new(MemoryPathInfos::new());
    Stores { blobs, directories, path_infos, nars: Arc::new(nars) }
}

fn path(name: &str) -> StorePath {
    StorePath::new(StorePathDigest::from([7; 20]), name).expect("legal")
}

/// A path with a tree in it, not signed and not addressed by its contents.
async fn put(stores: &Stores) -> PathInfo {
    let mut builder = Directory::builder();
    for (name, len) in [("large", 1_200_000), ("small", 1000)] {
        let contents = noise(len as u64, len);
        let size = contents.len() as u64;
        let mut writer = stores.blobs.writer().await.expect("memory");
        writer.write(contents.into()).await.expect("memory");
        let (digest, _) = writer.finish().await.expect("memory");
        let node = Node::File { digest, size, executable: false };
        builder.add(name.try_into().expect("legal"), node);
    }
    let inner = builder.build().expect("legal");
    let node = inner.node(SizeRule::Documented);
    stores.directories.put(inner.into()).await.expect("memory");
    let mut builder = Directory::builder();
    let root = builder.add("inner".try_into().expect("legal"), node).build().expect("legal");
    let node = root.node(SizeRule::Documented);
    stores.directories.put(root.into()).await.expect("memory");
    let nar = stores.nars.calculate_nar(&node).await.expect("all is there");
    let (references, signatures) = (Vec::new(), Vec::new());
    let info = NarInfo { nar, references, signatures, deriver: None, ca: None };
    let path_info = PathInfo { store_path: path("x"), node, details: Details::NarInfo(info) };
    stores.path_infos.put(path_info.clone()).await.expect("memory");
    path_info
}

fn info(path_info: &mut PathInfo) -> &mut NarInfo {
    match &mut path_info.details {
        Details::NarInfo(info) => info,
        Details::References(_) => panic!("it has one"),
    }
}

fn key(number: u8) -> SecretKey {
    SecretKey::from_seed(&format!("key-{number}"), &[number; 32]).expect("legal")
}

/// What is found of a path info, with the keys 1 and 2 trusted if `keys`.
async fn problems(stores: &Stores, path_info: &PathInfo, keys: bool) -> Vec<(String, Problem)> {
    let keys = if keys { vec![key(1).public(), key(2).public()] } else { Vec::new() };
    let auditor = Auditor::new(stores, keys, Arc::new(Progress::default()));
    let audited = auditor.audit(path_info.clone()).await;
    assert_eq!(audited.store_path, path_info.store_path);
    audited.findings.into_iter().map(|finding| (finding.path, finding.problem)).collect()
}

#[tokio::test]
async fn what_is_told_of_a_path_is_compared_with_its_contents() {
    let stores = memory();
    let good = put(&stores).await;
    assert!(problems(&stores, &good, false).await.is_empty());

    let mut wrong = good.clone();
    info(&mut wrong).nar.size += 1;
    let found = problems(&stores, &wrong, false).await;
    assert!(matches!(&found[..], [(_, Problem::NarHash { .. })]), "{found:?}");

    let mut wrong = good.clone();
    info(&mut wrong).references = vec![
        path("x"),
        "2".repeat(32)
            .parse::<StorePathDigest>()
            .map(|digest| StorePath::new(digest, "y").expect("legal"))
            .expect("legal"),
    ];
    let found = problems(&stores, &wrong, false).await;
    assert!(
        matches!(&found[..], [(_, Problem::Reference(name))] if name.ends_with("-y")),
        "{found:?}"
    );

    let mut wrong = good.clone();
    wrong.node = Node::Directory { digest: Digest::of(b"no directory"), size: 0 };
    let found = problems(&stores, &wrong, false).await;
    assert!(matches!(&found[..], [(_, Problem::Directory { .. })]), "{found:?}");
}

#[tokio::test]
async fn a_path_is_vouched_for_by_a_trusted_key_or_by_its_contents() {
    let stores = memory();
    let good = put(&stores).await;
    let found = problems(&stores, &good, true).await;
    assert!(matches!(&found[..], [(_, Problem::Unsigned)]), "{found:?}");

    let fingerprint = good.fingerprint().expect("it has a NAR hash");
    let signed_by = |key: SecretKey, what: &str| {
        let mut signed = good.clone();
        info(&mut signed).signatures.push(key.sign(what.as_bytes()));
        signed
    };
    assert!(problems(&stores, &signed_by(key(2), &fingerprint), true).await.is_empty());
    let found = problems(&stores, &signed_by(key(3), &fingerprint), true).await;
    assert!(matches!(&found[..], [(_, Problem::Unsigned)]), "{found:?}");
    let found = problems(&stores, &signed_by(key(1), "something else"), true).await;
    assert!(
        matches!(&found[..], [(_, Problem::Signature(name)), (_, Problem::Unsigned)] if name == "key-1"),
        "{found:?}"
    );

    let sha256 = good.nar_info().expect("it has one").nar.sha256;
    let mut addressed = good.clone();
    addressed.store_path = source_path("x", &sha256).expect("legal");
    info(&mut addressed).ca = Some(Ca::Nar(NixHash::Sha256(sha256)));
    assert!(problems(&stores, &addressed, true).await.is_empty());
    // The address of other contents: the name does follow from it, the contents do not.
    let mut other = good.clone();
    other.store_path = source_path("x", &[9; 32]).expect("legal");
    info(&mut other).ca = Some(Ca::Nar(NixHash::Sha256([9; 32])));
    let found = problems(&stores, &other, true).await;
    assert!(matches!(&found[..], [(_, Problem::Address(_)), (_, Problem::Unsigned)]), "{found:?}");
    other.store_path = path("x");
    let found = problems(&stores, &other, false).await;
    assert!(matches!(&found[..], [(_, Problem::AddressName(_))]), "{found:?}");
}

/// Whatever the store does to a call, it is found, and the rest is looked at all the same.
#[tokio::test]
async fn every_fault_of_the_store_is_found() {
    let stores = memory();
    let good = put(&stores).await;
    for fault in [Fault::Failed, Fault::Wrong, Fault::Truncated] {
        // Two directories and two files, each read again when something was wrong.
        for call in 1..=4 {
            let faults = Arc::new(Faults::default());
            let faulty = faults.around(&stores);
            faults.strike(call..=call + 100, fault);
            let found = problems(&faulty, &good, false).await;
            assert!(!found.is_empty(), "{fault:?} from call {call} on");
            faults.heal();
            assert!(problems(&faulty, &good, false).await.is_empty());
        }
    }
}

#[tokio::test]
async fn each_damaged_file_is_told_with_its_place() {
    let stores = memory();
    let good = put(&stores).await;
    // Without the files.
    let empty = Stores { blobs: Arc::new(MemoryBlobs::new()), ..stores.clone() };
    let mut found = problems(&empty, &good, false).await;
    found.sort_by(|a, b| a.0.cmp(&b.0));
    let base = good.store_path.absolute();
    let places: Vec<_> = found.iter().map(|(path, _)| path.strip_prefix(&base)).collect();
    assert_eq!(places, [Some("/inner/large"), Some("/inner/small")]);
    assert!(found.iter().all(|(_, problem)| matches!(problem, Problem::Blob { .. })), "{found:?}");

    // All at once, also what is fine.
    let auditor = Auditor::new(&empty, Vec::new(), Arc::new(Progress::default()));
    let audited: Vec<_> = auditor.audit_all(stores.path_infos.list()).collect().await;
    assert_eq!(audited.len(), 1);
    assert_eq!(audited[0].as_ref().expect("the list is whole").findings.len(), 2);
}
