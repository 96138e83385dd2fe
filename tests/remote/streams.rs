//! Many streams on few connections.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use futures::{StreamExt as _, TryStreamExt as _};
use lazystore::{
    castore::Digest,
    render::RenderNar,
    serve::grpc::{Listener, serve},
    service::{
        Stores,
        blob::{
            BlobService as _, Proven,
            backend::{GrpcBlobs, MemoryBlobs},
        },
        directory::backend::MemoryDirectories,
        grpc::{GrpcAddress, GrpcChannel, GrpcOptions},
        pathinfo::backend::MemoryPathInfos,
    },
};

use crate::{
    proxy::{Proxy, Weather},
    support::noise,
};

const LONG_LEN: usize = 32 << 20;
const SHORT_LEN: usize = 10_000;

/// The blobs of a server in this process, behind a proxy: a long one and a short one.
struct Server {
    blobs: GrpcBlobs,
    proxy: Proxy,
    long: Digest,
    short: Digest,
}

impl Server {
    async fn new() -> Self {
        let blobs = Arc::new(MemoryBlobs::new());
        let mut writer = blobs.writer().await.expect("it stores");
        for piece in noise(1, LONG_LEN).chunks(1 << 20) {
            writer.write(piece.to_vec().into()).await.expect("it stores");
        }
        let (long, _) = writer.finish().await.expect("it stores");
        let short = blobs.put(noise(2, SHORT_LEN).into()).await.expect("it stores").digest;
        let directories = Arc::new(MemoryDirectories::new());
        let nars = Arc::new(RenderNar { blobs: blobs.clone(), directories: directories.clone() });
        let path_infos = Arc::new(MemoryPathInfos::new());
        let stores = Stores { blobs, directories, path_infos, nars };
        let listener = Listener::tcp(([127, 0, 0, 1], 0).into()).expect("it listens");
        let proxy = Proxy::new(listener.local_address().expect("it is TCP"));
        tokio::spawn(serve(listener, stores, std::future::pending()));
        let address = GrpcAddress::Http(format!("http://{}", proxy.address));
        let channel = GrpcChannel::connect(&address, GrpcOptions::default()).expect("an address");
        Server { blobs: GrpcBlobs::new(channel), proxy, long, short }
    }

    async fn read_short(&self) -> Vec<u8> {
        let stream = self.blobs.read(&self.short, 0..u64::MAX).await.expect("it answers");
        let pieces = stream.expect("it is there").try_collect::<Vec<_>>().await;
        pieces.expect("it arrives").concat()
    }
}

/// Killed readers, and readers who have seen enough, give up streams in crowds. Servers take too much of that for an
/// attack.
#[tokio::test(flavor = "multi_thread")]
async fn streams_that_are_given_up_do_not_cost_the_connection() {
    let server = Arc::new(Server::new().await);
    for _ in 0..10 {
        let given_up = (0..300).map(|number| {
            let server = server.clone();
            tokio::spawn(async move {
                let read = server.blobs.read(&server.long, 0..u64::MAX);
                // Some see the beginning, some do not wait for that.
                if number % 3 == 0 {
                    let _ = tokio::time::timeout(Duration::from_millis(1), read).await;
                } else if let Some(mut stream) = read.await.expect("it answers") {
                    stream.next().await.expect("it begins").expect("it begins");
                }
            })
        });
        for task in given_up.collect::<Vec<_>>() {
            task.await.expect("no panic");
        }
        assert_eq!(server.read_short().await, noise(2, SHORT_LEN));
    }
    assert_eq!(server.proxy.connections(), 1, "the one for contents");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_long_blob_does_not_keep_short_ones_waiting() {
    let server = Arc::new(Server::new().await);
    assert_eq!(server.read_short().await.len(), SHORT_LEN);
    // What a server may send ahead takes over a second.
    server.proxy.weather(Weather::Trickle(5_000_000));
    let reader = tokio::spawn({
        let server = server.clone();
        async move {
            let range = 0..LONG_LEN as u64;
            let Some(Proven::Range { mut pieces, .. }) =
                server.blobs.read_proven(&server.long, range).await.expect("it answers")
            else {
                panic!("the server has ranges");
            };
            while let Some(piece) = pieces.next().await {
                piece.expect("it arrives");
            }
        }
    });
    tokio::time::sleep(Duration::from_millis(500)).await;
    for _ in 0..5 {
        let began = Instant::now();
        assert_eq!(server.read_short().await.len(), SHORT_LEN);
        assert!(began.elapsed() < Duration::from_millis(700), "{:?}", began.elapsed());
        assert!(!reader.is_finished());
    }
    server.proxy.weather(Weather::Fair);
    reader.await.expect("all of it arrives");
}
