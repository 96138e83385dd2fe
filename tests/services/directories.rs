//! How every directory service behaves.

use std::sync::Arc;

use futures::TryStreamExt as _;
use lazystore::{
    castore::{Digest, Directory, Name, Node, RootFirst, SizeRule},
    service::{Error, Result, directory::DirectoryService},
};

use crate::on_every_stack;

fn directory(entries: Vec<(String, Node)>) -> Arc<Directory> {
    let mut builder = Directory::builder();
    for (name, node) in entries {
        builder.add(Name::try_from(name.as_str()).expect("legal"), node);
    }
    Arc::new(builder.build().expect("legal"))
}

fn file(name: &str) -> (String, Node) {
    let node = Node::File { digest: Digest::of(name.as_bytes()), size: 1, executable: false };
    (name.to_owned(), node)
}

/// A chain of `levels` directories, leaves first; the last is the root.
fn deep(levels: usize, rule: SizeRule) -> Vec<Arc<Directory>> {
    let mut chain = vec![directory(vec![file("leaf")])];
    for _ in 1..levels {
        let child = chain.last().expect("there is one").node(rule);
        chain.push(directory(vec![("child".to_owned(), child)]));
    }
    chain
}

/// A root with `width` different directories, leaves first.
fn wide(width: usize, rule: SizeRule) -> Vec<Arc<Directory>> {
    let mut all: Vec<_> =
        (0..width).map(|number| directory(vec![file(&format!("file-{number}"))])).collect();
    let entries = all.iter().enumerate().map(|(n, child)| (format!("d-{n}"), child.node(rule)));
    let root = directory(entries.collect());
    all.push(root);
    all
}

async fn put_all(directories: &dyn DirectoryService, all: &[Arc<Directory>]) -> Result<Digest> {
    let mut putter = directories.put_closure().await?;
    for directory in all {
        putter.put(directory.clone()).await?;
    }
    putter.finish().await
}

async fn closure(directories: &dyn DirectoryService, root: &Digest) -> Vec<Arc<Directory>> {
    let stream = directories.get_closure(root).await.expect("it works").expect("it is there");
    stream.try_collect().await.expect("it is whole")
}

#[test]
fn what_is_absent_is_none_and_no_error() {
    on_every_stack(|built| async move {
        let directories = &*built.stores.directories;
        let absent = Digest::of(b"absent");
        assert_eq!(directories.get(&absent).await.expect("it works"), None);
        assert_eq!(directories.get_local(&absent).expect("it works"), None);
        assert!(directories.get_closure(&absent).await.expect("it works").is_none());
    });
}

#[test]
fn one_directory_is_put_and_read_back() {
    on_every_stack(|built| async move {
        let directories = &*built.stores.directories;
        for one in [Arc::new(Directory::empty()), directory(vec![file("a"), file("b")])] {
            directories.put(one.clone()).await.expect("it works");
            directories.put(one.clone()).await.expect("twice is harmless");
            let found = directories.get(&one.digest()).await.expect("it works");
            assert_eq!(found.as_deref().map(Directory::encoded), Some(one.encoded()));
            if let Some(found) = directories.get_local(&one.digest()).expect("it works") {
                assert_eq!(found.encoded(), one.encoded());
            }
            assert_eq!(closure(directories, &one.digest()).await, [one]);
        }
        directories.sync().await.expect("it works");
    });
}

#[test]
fn deep_and_wide_closures_come_back_whole_and_root_first() {
    on_every_stack(|built| async move {
        let directories = &*built.stores.directories;
        let rule = directories.size_rule().await.expect("it works");
        for all in [deep(1000, rule), wide(3000, rule)] {
            let root = put_all(directories, &all).await.expect("it works");
            assert_eq!(root, all.last().expect("there is one").digest());
            for _ in 0..2 {
                let got = closure(directories, &root).await;
                assert_eq!(got.len(), all.len());
                let mut order = RootFirst::new(root);
                for directory in &got {
                    order.add(directory).expect("in order");
                }
                order.finish().expect("whole");
            }
            for directory in &all {
                let found = directories.get(&directory.digest()).await.expect("it works");
                assert_eq!(found.as_ref(), Some(directory));
            }
        }
    });
}

#[test]
fn a_closure_that_is_not_one_is_refused_and_its_root_stays_absent() {
    on_every_stack(|built| async move {
        let directories = &*built.stores.directories;
        let rule = directories.size_rule().await.expect("it works");
        let chain = deep(3, rule);
        let stray = directory(vec![file("stray")]);
        let child = Node::Directory { digest: chain[0].digest(), size: 77 };
        let wrong_size = directory(vec![("child".to_owned(), child)]);
        let cases = [
            ("nothing", vec![]),
            ("a child is missing", vec![chain[1].clone()]),
            ("root first", vec![chain[2].clone(), chain[1].clone(), chain[0].clone()]),
            ("a stray", vec![stray, chain[0].clone(), chain[1].clone()]),
            ("a wrong size", vec![chain[0].clone(), wrong_size]),
        ];
        for (what, all) in cases {
            let error = put_all(directories, &all).await.expect_err(what);
            assert!(matches!(error, Error::Invalid(_)), "{what}: {error}");
            if let Some(root) = all.last().filter(|_| what != "root first") {
                let found = directories.get(&root.digest()).await.expect("it works");
                assert_eq!(found, None, "{what}");
            }
        }
    });
}

#[test]
fn a_putter_that_is_dropped_shows_no_root() {
    on_every_stack(|built| async move {
        let directories = &*built.stores.directories;
        let rule = directories.size_rule().await.expect("it works");
        let chain = deep(3, rule);
        let mut putter = directories.put_closure().await.expect("it works");
        for directory in &chain {
            putter.put(directory.clone()).await.expect("it works");
        }
        drop(putter);
        tokio::time::sleep(std::time::Duration::from_millis(50)).await;
        assert_eq!(directories.get(&chain[2].digest()).await.expect("it works"), None);
    });
}
