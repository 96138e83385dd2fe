use super::*;
use crate::{
    castore::{Digest, SizeRule},
    nix::StorePathDigest,
    service::shelf::{Shelf, closure},
};

#[tokio::test]
async fn what_is_asked_next_is_asked_of_the_new_store_and_what_began_goes_on() {
    let (old, new) = (Shelf::new(), Shelf::new());
    let swap = Swap::new(old.stores());
    let stores = swap.stores();
    let len = 3_000_000;
    let digest = old.stores().blobs.put(vec![7; 1000].into()).await.expect("works").digest;
    let mut writer = old.stores().blobs.writer().await.expect("works");
    writer.write(vec![8; len].into()).await.expect("works");
    let (long, _) = writer.finish().await.expect("works");
    let [leaf, ..] = closure("x", SizeRule::Documented);
    old.stores().directories.put(leaf.clone()).await.expect("works");

    assert!(stores.blobs.has(&digest).await.expect("works"));
    let mut begun = stores.blobs.read(&long, 0..u64::MAX).await.expect("works").expect("there");
    swap.put(new.stores());
    let mut got = 0;
    while let Some(piece) = futures::StreamExt::next(&mut begun).await {
        got += piece.expect("it goes on").len();
    }
    assert_eq!(got, len);
    assert!(!stores.blobs.has(&digest).await.expect("works"));
    assert!(stores.directories.get(&leaf.digest()).await.expect("works").is_none());
    let nobodys = StorePathDigest::from([0; 20]);
    assert!(stores.path_infos.get(&nobodys).await.expect("works").is_none());
    let put = stores.blobs.put(vec![9; 10].into()).await.expect("works").digest;
    assert!(new.blobs.lock().contains_key(&put) && !old.blobs.lock().contains_key(&put));
    assert_eq!(put, Digest::of(&[9; 10]));
}
