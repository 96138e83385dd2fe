use futures::TryStreamExt as _;

use super::*;
use crate::{
    castore::{Name, Node},
    service::bucket::Counted,
};

fn directory(entries: Vec<(String, Node)>) -> Arc<Directory> {
    let mut builder = Directory::builder();
    for (name, node) in entries {
        builder.add(Name::try_from(name.as_str()).expect("legal"), node);
    }
    Arc::new(builder.build().expect("legal"))
}

/// A root over so many directories, leaves first.
fn tree(width: usize) -> Vec<Arc<Directory>> {
    let leaf = |number: usize| {
        let node =
            Node::Symlink { target: number.to_string().as_bytes().try_into().expect("legal") };
        directory(vec![("link".to_owned(), node)])
    };
    let mut all: Vec<_> = (0..width).map(leaf).collect();
    let nodes = all.iter().map(|child| child.node(SizeRule::Documented));
    let root = directory(nodes.enumerate().map(|(n, node)| (format!("d{n}"), node)).collect());
    all.push(root);
    all
}

fn over(bucket: Bucket) -> BucketDirectories {
    BucketDirectories::new(bucket, SizeRule::Documented)
}

async fn put(directories: &BucketDirectories, all: &[Arc<Directory>]) -> Digest {
    let mut putter = directories.put_closure().await.expect("it works");
    for directory in all {
        putter.put(directory.clone()).await.expect("it works");
    }
    putter.finish().await.expect("it works")
}

async fn closure(directories: &BucketDirectories, root: &Digest) -> Result<Vec<Arc<Directory>>> {
    match directories.get_closure(root).await? {
        Some(closure) => closure.try_collect().await,
        None => Ok(Vec::new()),
    }
}

#[tokio::test]
async fn a_closure_is_one_object_and_one_request() {
    let (store, bucket) = Counted::bucket();
    let root = put(&over(bucket), &tree(100)).await;
    assert_eq!(store.asked().requests(), 1);
    let directories = over(store.again());
    assert_eq!(closure(&directories, &root).await.expect("it works").len(), 101);
    assert_eq!(store.asked().requests(), 1);
    // All that came with it is known now.
    for directory in tree(100) {
        let found = directories.get(&directory.digest()).await.expect("it works");
        assert_eq!(found, Some(directory));
    }
    assert_eq!(store.asked().requests(), 0);
}

#[tokio::test]
async fn what_is_no_root_has_a_closure_once_its_root_was_read() {
    let (store, bucket) = Counted::bucket();
    let all = tree(3);
    let above = directory(vec![("tree".to_owned(), all[3].node(SizeRule::Documented))]);
    let root = put(&over(bucket), &[&all[..], &[above]].concat()).await;
    let directories = over(store.again());
    let inner = all[3].digest();
    assert!(closure(&directories, &inner).await.expect("it works").is_empty());
    assert_eq!(directories.get(&inner).await.expect("it works"), None);
    directories.get(&root).await.expect("it works").expect("it is there");
    let got = closure(&directories, &inner).await.expect("it works");
    assert_eq!((got.len(), got[0].digest()), (4, inner));
    // What is put on its own has a closure of its own, also for others.
    directories.put(all[3].clone()).await.expect("its children are known");
    assert_eq!(closure(&over(store.again()), &inner).await.expect("it works").len(), 4);
}

#[tokio::test]
async fn one_whose_children_are_unknown_is_refused() {
    let (store, bucket) = Counted::bucket();
    let all = tree(2);
    let error = over(bucket).put(all[2].clone()).await.expect_err("it names others");
    assert!(matches!(error, Error::Invalid(_)), "{error}");
    assert_eq!(store.asked().puts, 0);
}

#[tokio::test]
async fn damage_is_corrupt_and_never_absent() {
    let (store, bucket) = Counted::bucket();
    let all = tree(10);
    let root = all[10].digest();
    let encode = |all: &[Arc<Directory>]| Vec::from(object::encode(all.iter()).expect("it works"));
    let root_first: Vec<_> = all.iter().rev().cloned().collect();
    let bomb = zstd::encode_all(std::io::Read::take(std::io::repeat(0), 1 << 28), 3);
    for (what, stored) in [
        ("no frame", b"no frame".to_vec()),
        ("bomb", bomb.expect("a frame")),
        ("asked for directory", encode(&all)),
        ("ends without", encode(&root_first[..8])),
        ("nothing before it names it", encode(&[&root_first[..2], &tree(99)[50..51]].concat())),
        ("cut", encode(&root_first)[..100].to_vec()),
    ] {
        store.place(&bucket, Kind::Directory, root.as_bytes(), stored).await;
        let error = closure(&over(store.again()), &root).await.expect_err(what);
        let text = error.to_string();
        let says = ["no frame", "bomb", "cut"].contains(&what) || text.contains(what);
        assert!(matches!(error, Error::Corrupt { .. }) && says, "{what}: {text}");
    }
    store.place(&bucket, Kind::Directory, root.as_bytes(), encode(&root_first)).await;
    assert_eq!(closure(&over(store.again()), &root).await.expect("it is whole").len(), 11);
}
