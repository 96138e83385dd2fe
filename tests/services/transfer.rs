//! Store paths from one store into another.

use std::{
    collections::HashSet,
    sync::{Arc, Mutex},
};

use async_trait::async_trait;
use futures::TryStreamExt as _;
use lazystore::{
    castore::{Directory, Name, Node, NodeRef, SizeRule},
    nix::{Details, NarInfo, PathInfo, SecretKey, StorePath, StorePathDigest},
    render::RenderNar,
    service::{
        Result, Stores,
        blob::backend::MemoryBlobs,
        directory::backend::MemoryDirectories,
        pathinfo::{PathInfoService, PathInfoStream, backend::MemoryPathInfos},
    },
    transfer::{Progress, There, TransferError, Transferred, from_store},
};

use crate::{
    faults::{Fault, Faults},
    support::noise,
};

/// Takes path infos only once all that they refer to is there: what a transfer promises.
#[derive(Debug, Default)]
struct InOrder {
    inner: MemoryPathInfos,
    seen: Mutex<HashSet<StorePathDigest>>,
}

#[async_trait]
impl PathInfoService for InOrder {
    async fn get(&self, digest: &StorePathDigest) -> Result<Option<PathInfo>> {
        self.inner.get(digest).await
    }

    async fn put(&self, path_info: PathInfo) -> Result<PathInfo> {
        let own = path_info.store_path.digest();
        {
            let seen = self.seen.lock().expect("no panic");
            let missing = path_info.references().find(|r| *r != own && !seen.contains(r));
            assert_eq!(missing, None, "{} came before it", path_info.store_path);
        }
        let put = self.inner.put(path_info).await?;
        assert!(self.seen.lock().expect("no panic").insert(own), "{own} came twice");
        Ok(put)
    }

    fn list(&self) -> PathInfoStream {
        self.inner.list()
    }
}

fn memory() -> Stores {
    let (blobs, directories) = (Arc::new(MemoryBlobs::new()), Arc::new(MemoryDirectories::new()));
    let nars = RenderNar { blobs: blobs.clone(), directories: directories.clone() };
    Stores { blobs, directories, path_infos: Arc::new(InOrder::default()), nars: Arc::new(nars) }
}

fn path(number: u8) -> StorePath {
    StorePath::new(StorePathDigest::from([number; 20]), &format!("path-{number}")).expect("legal")
}

/// A tree with files of several sizes, some of which others have as well, in directories by `rule`.
async fn tree(stores: &Stores, number: u8, rule: SizeRule) -> Node {
    let mut node = Node::Symlink { target: (&b"target"[..]).try_into().expect("legal") };
    for level in 0..3_u8 {
        let mut builder = Directory::builder();
        builder.add("below".try_into().expect("legal"), node);
        for file in 0..4_u8 {
            let len = [0, 10, 3000, 60_000][usize::from(file)];
            let contents = noise(u64::from(number / 2) * 100 + u64::from(level), len);
            let size = contents.len() as u64;
            let digest = stores.blobs.put(contents.into()).await.expect("memory").digest;
            let name = Name::try_from(format!("file-{file}").as_str()).expect("legal");
            builder.add(name, Node::File { digest, size, executable: file == 1 });
        }
        let directory = builder.build().expect("legal");
        node = directory.node(rule);
        stores.directories.put(directory.into()).await.expect("memory");
    }
    node
}

/// Puts a path that refers to itself and to those with `references`. One whose number can be divided by 5 is a large
/// file.
async fn put(stores: &Stores, number: u8, references: &[u8], rule: SizeRule) {
    let node = if number.is_multiple_of(5) {
        let contents = noise(u64::from(number), 2_500_000);
        let size = contents.len() as u64;
        let mut writer = stores.blobs.writer().await.expect("memory");
        writer.write(contents.into()).await.expect("memory");
        let (digest, _) = writer.finish().await.expect("memory");
        Node::File { digest, size, executable: false }
    } else {
        tree(stores, number, rule).await
    };
    let nar = stores.nars.calculate_nar(&node).await.expect("all is there");
    let references = references.iter().copied().chain([number]).map(path).collect();
    let info = NarInfo { nar, references, signatures: Vec::new(), deriver: None, ca: None };
    let path_info = PathInfo { store_path: path(number), node, details: Details::NarInfo(info) };
    stores.path_infos.put(path_info).await.expect("in order");
}

/// Paths of which each refers to some before it.
async fn source(count: u8, rule: SizeRule) -> Stores {
    let stores = memory();
    for number in 1..=count {
        let references: Vec<_> = [2, 3].iter().map(|by| number / by).filter(|n| *n > 0).collect();
        put(&stores, number, &references, rule).await;
    }
    stores
}

/// Checks that what is visible is whole. Returns how much that is.
async fn check(source: &Stores, target: &Stores) -> usize {
    let visible: Vec<_> = target.path_infos.list().try_collect().await.expect("memory");
    for path_info in &visible {
        let digest = path_info.store_path.digest();
        let original = source.path_infos.get(&digest).await.expect("memory").expect("ours");
        assert_eq!(path_info.details, original.details);
        let nar = target.nars.calculate_nar(&path_info.node).await.expect("all is there");
        assert_eq!(Some(nar), original.nar_info().map(|info| info.nar));
    }
    visible.len()
}

async fn copy(
    source: &Stores,
    roots: &[u8],
    target: &Stores,
) -> Result<Transferred, TransferError> {
    let roots: Vec<_> = roots.iter().copied().map(path).collect();
    from_store(source, &roots, target, There::LeaveOut, &Arc::new(Progress::default())).await
}

#[tokio::test(flavor = "multi_thread")]
async fn closures_are_copied_references_first_and_what_is_there_is_left_out() {
    let (source, target) = (source(60, SizeRule::Documented).await, memory());
    // 7 refers to 3 and 2; these to 1.
    assert_eq!(
        copy(&source, &[7], &target).await.expect("whole"),
        Transferred { there: 0, done: 4 }
    );
    assert_eq!(check(&source, &target).await, 4);
    let roots: Vec<_> = (1..=60).rev().collect();
    let copied = copy(&source, &roots, &target).await.expect("whole");
    assert_eq!(copied, Transferred { there: 4, done: 56 });
    assert_eq!(check(&source, &target).await, 60);
    let copied = copy(&source, &roots, &target).await.expect("whole");
    assert_eq!(copied, Transferred { there: 60, done: 0 });
}

#[tokio::test(flavor = "multi_thread")]
async fn directories_get_the_sizes_that_the_target_wants() {
    let (source, target) = (source(1, SizeRule::Doubled).await, memory());
    copy(&source, &[1], &target).await.expect("whole");
    assert_eq!(check(&source, &target).await, 1);
    let info = target.path_infos.get(&path(1).digest()).await.expect("memory").expect("copied");
    let Node::Directory { digest, size } = info.node else { panic!("{info:?}") };
    let directory = target.directories.get(&digest).await.expect("memory").expect("copied");
    assert_eq!(size, directory.size(SizeRule::Documented));
    let below = directory.find(b"below").expect("it has one").node;
    let NodeRef::Directory { digest, size } = below else { panic!("{below:?}") };
    let below = target.directories.get(&digest).await.expect("memory").expect("copied");
    assert_eq!(size, below.size(SizeRule::Documented));
    assert_ne!(size, below.size(SizeRule::Doubled));
}

#[tokio::test(flavor = "multi_thread")]
async fn contents_that_are_not_those_of_the_nar_hash_are_refused() {
    let (source, target) = (source(5, SizeRule::Documented).await, memory());
    let mut wrong = source.path_infos.get(&path(2).digest()).await.expect("memory").expect("ours");
    let other = source.path_infos.get(&path(4).digest()).await.expect("memory").expect("ours");
    wrong.node = other.node;
    let replaced = MemoryPathInfos::new();
    let all: Vec<_> = source.path_infos.list().try_collect().await.expect("memory");
    for path_info in all {
        replaced.put(path_info).await.expect("memory");
    }
    replaced.put(wrong).await.expect("memory");
    let source = Stores { path_infos: Arc::new(replaced), ..source };

    // 4 refers to 2.
    let error = copy(&source, &[4], &target).await.expect_err("wrong contents");
    let TransferError::Differs(difference) = error else { panic!("{error}") };
    assert_eq!(difference.path, path(2));
    for number in [2, 4] {
        let there = target.path_infos.get(&path(number).digest()).await.expect("memory");
        assert_eq!(there, None);
    }
    copy(&source, &[3], &target).await.expect("it has nothing to do with it");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_copied_again_has_the_signatures_of_both() {
    let (source, target) = (source(1, SizeRule::Documented).await, memory());
    let target = Stores { path_infos: Arc::new(MemoryPathInfos::new()), ..target };
    let sign = async |stores: &Stores, key: u8| {
        let info = stores.path_infos.get(&path(1).digest()).await.expect("memory");
        let mut path_info = info.expect("it is there");
        let fingerprint = path_info.fingerprint().expect("it has a NAR hash");
        let key = SecretKey::from_seed(&format!("key-{key}"), &[key; 32]).expect("legal");
        let Details::NarInfo(info) = &mut path_info.details else { panic!("it has one") };
        info.signatures.push(key.sign(fingerprint.as_bytes()));
        path_info
    };
    copy(&source, &[1], &target).await.expect("whole");
    target.path_infos.put(sign(&target, 1).await).await.expect("memory");
    let signed = Arc::new(MemoryPathInfos::new());
    signed.put(sign(&source, 2).await).await.expect("memory");
    let source = Stores { path_infos: signed, ..source };
    let progress = Arc::new(Progress::default());
    for (when_there, count) in [(There::LeaveOut, 1), (There::Again, 2), (There::Again, 2)] {
        from_store(&source, &[path(1)], &target, when_there, &progress).await.expect("whole");
        let there = target.path_infos.get(&path(1).digest()).await.expect("memory");
        let there = there.expect("it is there");
        assert_eq!(there.nar_info().map(|info| info.signatures.len()), Some(count));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_absent_in_the_source_is_named() {
    let (source, target) = (source(3, SizeRule::Documented).await, memory());
    let error = copy(&source, &[9], &target).await.expect_err("absent");
    assert!(
        matches!(&error, TransferError::Absent(name) if *name == path(9).absolute()),
        "{error}"
    );
    // The same digest under another name is another path.
    let other = StorePath::new(path(1).digest(), "other").expect("legal");
    let error = from_store(&source, &[other], &target, There::LeaveOut, &Arc::default())
        .await
        .expect_err("absent");
    assert!(matches!(error, TransferError::Absent(_)), "{error}");
    assert_eq!(check(&source, &target).await, 0);
}

/// Whatever the source does at any moment: what is visible is whole, and the next attempt does the rest.
#[tokio::test(flavor = "multi_thread")]
async fn every_fault_of_the_source_leaves_the_target_whole() {
    let source = source(9, SizeRule::Documented).await;
    for fault in [Fault::Failed, Fault::Wrong, Fault::Truncated, Fault::Reordered] {
        let mut failures = 0;
        for call in 1.. {
            let (faults, target) = (Arc::new(Faults::default()), memory());
            let faulty = faults.around(&source);
            faults.strike(call..=call, fault);
            failures += usize::from(copy(&faulty, &[8, 9], &target).await.is_err());
            let struck = faults.calls() >= call;
            check(&source, &target).await;
            faults.heal();
            copy(&faulty, &[8, 9], &target).await.expect("it has healed");
            assert_eq!(check(&source, &target).await, 6, "{fault:?} of call {call}");
            if !struck {
                break;
            }
        }
        // Contents may come right in another order, but nothing else that is wrong may pass.
        assert!(
            failures >= if fault == Fault::Reordered { 3 } else { 20 },
            "{fault:?}: {failures}"
        );
    }
}
