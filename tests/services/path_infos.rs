//! How every path info service behaves.

use std::collections::BTreeSet;

use bytes::Bytes;
use futures::{StreamExt as _, TryStreamExt as _};
use lazystore::{
    castore::Node,
    nix::{Ca, Details, NarInfo, NixHash, PathInfo, SecretKey, StorePath, StorePathDigest},
    service::{Error, Stores},
};

use crate::on_every_stack;

fn store_path(number: u64, name: &str) -> StorePath {
    let mut digest = [0; 20];
    digest[..8].copy_from_slice(&number.to_le_bytes());
    digest[19] = number as u8;
    StorePath::new(StorePathDigest::from(digest), name).expect("a legal name")
}

/// A path info with everything in it, whose contents are in `stores`.
async fn path_info(stores: &Stores, number: u64) -> PathInfo {
    let contents = Bytes::from(number.to_string());
    let size = contents.len() as u64;
    let digest = stores.blobs.put(contents).await.expect("it works").digest;
    let node = Node::File { digest, size, executable: false };
    let nar = stores.nars.calculate_nar(&node).await.expect("it works");
    let store_path = store_path(number, "name");
    let mut info = NarInfo {
        nar,
        references: vec![store_path.clone(), self::store_path(number + 1, "other")],
        signatures: Vec::new(),
        deriver: Some(self::store_path(number + 2, "name.drv")),
        ca: Some(Ca::Nar(NixHash::Sha256(nar.sha256))),
    };
    info.references.sort();
    let key = SecretKey::from_seed("key-1", &[7; 32]).expect("a legal name");
    info.signatures.push(key.sign(info.fingerprint(&store_path).as_bytes()));
    PathInfo { store_path, node, details: Details::NarInfo(info) }
}

#[test]
fn what_was_put_is_read_back() {
    on_every_stack(|built| async move {
        let (stores, path_infos) = (&built.stores, &*built.stores.path_infos);
        for number in [1, 2] {
            let info = path_info(stores, number).await;
            let digest = info.store_path.digest();
            assert_eq!(path_infos.get(&digest).await.expect("it works"), None);
            assert_eq!(path_infos.put(info.clone()).await.expect("it works"), info);
            assert_eq!(path_infos.get(&digest).await.expect("it works"), Some(info));
        }
    });
}

#[test]
fn a_later_put_replaces() {
    on_every_stack(|built| async move {
        let (stores, path_infos) = (&built.stores, &*built.stores.path_infos);
        let mut info = path_info(stores, 1).await;
        path_infos.put(info.clone()).await.expect("it works");
        let digest = info.store_path.digest();
        path_infos.get(&digest).await.expect("it works");
        if let Details::NarInfo(nar_info) = &mut info.details {
            nar_info.signatures.clear();
        }
        path_infos.put(info.clone()).await.expect("it works");
        assert_eq!(path_infos.get(&digest).await.expect("it works"), Some(info));
    });
}

#[test]
fn references_may_be_known_by_digest_only() {
    on_every_stack(|built| async move {
        let path_infos = &*built.stores.path_infos;
        let mut info = path_info(&built.stores, 5).await;
        info.details = Details::References(info.references().collect());
        path_infos.put(info.clone()).await.expect("it works");
        let found = path_infos.get(&info.store_path.digest()).await.expect("it works");
        assert_eq!(found, Some(info));
    });
}

#[test]
fn a_deriver_that_is_no_derivation_is_refused() {
    on_every_stack(|built| async move {
        let path_infos = &*built.stores.path_infos;
        let mut info = path_info(&built.stores, 6).await;
        if let Details::NarInfo(nar_info) = &mut info.details {
            nar_info.deriver = Some(store_path(9, "no-derivation"));
        }
        let error = path_infos.put(info.clone()).await.expect_err("it is wrong");
        assert!(matches!(error, Error::Invalid(_)), "{:?}: {error}", built.stack);
        assert_eq!(path_infos.get(&info.store_path.digest()).await.expect("it works"), None);
    });
}

#[test]
fn all_are_listed_exactly_once_also_while_more_are_put() {
    on_every_stack(|built| async move {
        let (stores, path_infos) = (&built.stores, &*built.stores.path_infos);
        assert!(path_infos.list().next().await.is_none());
        let mut expected = BTreeSet::new();
        for number in 0..300 {
            let info = path_info(stores, number).await;
            expected.insert(info.store_path.clone());
            path_infos.put(info).await.expect("it works");
        }
        let mut list = path_infos.list();
        let mut got = Vec::new();
        let mut later = 1000;
        while let Some(info) = list.try_next().await.expect("it lists") {
            got.push(info.store_path);
            if got.len() % 30 == 0 {
                let info = path_info(stores, later).await;
                path_infos.put(info).await.expect("it works");
                later += 1;
            }
        }
        let unique: BTreeSet<_> = got.iter().cloned().collect();
        assert_eq!(unique.len(), got.len(), "listed twice");
        assert!(unique.is_superset(&expected), "some are lost");
    });
}
