//! Buckets that do not answer.

use std::{sync::Arc, time::Duration};

use object_store::{ObjectStore, memory::InMemory, path::Path};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpListener,
    time::Instant,
};

use super::{Bucket, BucketOptions, BucketUrl, Error};
use crate::service::crypto;

/// A server that takes connections and says nothing, until it is told to say that nothing is there.
async fn silent() -> (std::net::SocketAddr, tokio::sync::watch::Sender<bool>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let address = listener.local_addr().expect("bound");
    let (speak, speaks) = tokio::sync::watch::channel(false);
    tokio::spawn(async move {
        while let Ok((mut peer, _)) = listener.accept().await {
            let speaks = speaks.clone();
            tokio::spawn(async move {
                let mut request = [0; 4096];
                while peer.read(&mut request).await.is_ok_and(|len| len > 0) {
                    if *speaks.borrow() {
                        let said = b"HTTP/1.1 404 Not Found\r\ncontent-length: 0\r\n\r\n";
                        let _ = peer.write_all(said).await;
                    }
                }
            });
        }
    });
    (address, speak)
}

#[tokio::test]
async fn who_asks_a_bucket_that_is_dead_hears_so_at_once_until_it_answers_again() {
    crypto::choose();
    let (address, speak) = silent().await;
    let url: BucketUrl = format!("http://{address}/").parse().expect("an address");
    let options = BucketOptions { deadline: Duration::from_secs(1), ..BucketOptions::default() };
    let bucket = url.open(options).expect("nobody is asked yet");
    let path = Path::from("a");
    let first = bucket.has(&path).await.expect_err("nobody answers");
    assert!(matches!(first, Error::TimedOut { .. } | Error::Unavailable { .. }), "{first}");
    // By then a deadline was waited for.
    let _ = bucket.has(&path).await;
    let start = Instant::now();
    for _ in 0..20 {
        let refused = bucket.has(&path).await.expect_err("it is dead").to_string();
        assert!(refused.contains("not asked again"), "{refused}");
    }
    assert!(start.elapsed() < Duration::from_millis(500), "{:?}", start.elapsed());
    speak.send_replace(true);
    let start = Instant::now();
    while bucket.has(&path).await.is_err() {
        assert!(start.elapsed() < Duration::from_secs(30), "it answers by now");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    assert!(!bucket.has(&path).await.expect("it answers"), "and has nothing");
}

#[tokio::test]
async fn that_something_is_absent_is_an_answer() {
    let store: Arc<dyn ObjectStore> = Arc::new(InMemory::new());
    let bucket = Bucket::new("test", store, Path::default(), BucketOptions::default());
    for _ in 0..10 {
        assert!(!bucket.has(&Path::from("a")).await.expect("an answer"));
    }
}
