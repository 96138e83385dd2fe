//! Several servers over one store, the first of which lies.

use std::{ops::Range, sync::Arc};

use async_trait::async_trait;
use bytes::Bytes;
use futures::{StreamExt as _, TryStreamExt as _};

use super::tests::Running;
use crate::{
    castore::{ChunkList, Digest},
    service::{
        Error, Result, Stores,
        blob::{
            BlobService, BlobStream, BlobWriter, LocalBlob, Proven, ProvenPiece, Put,
            backend::{GrpcBlobs, LocalBlobs, MemoryBlobs},
            layer::{LazyBlobs, LazyOptions, VerifiedBlobs},
        },
        grpc::{GrpcAddress, GrpcChannel, GrpcOptions},
        local::LocalStore,
        shelf::Shelf,
    },
};

/// Turns the last bit of all that it sends.
#[derive(Debug)]
struct Liar(MemoryBlobs);

fn lie(piece: Bytes) -> Bytes {
    let mut wrong = piece.to_vec();
    if let Some(last) = wrong.last_mut() {
        *last ^= 1;
    }
    wrong.into()
}

#[async_trait]
impl BlobService for Liar {
    async fn has(&self, digest: &Digest) -> Result<bool> {
        self.0.has(digest).await
    }

    async fn read(&self, digest: &Digest, range: Range<u64>) -> Result<Option<BlobStream>> {
        let read = self.0.read(digest, range).await?;
        Ok(read.map(|pieces| pieces.map_ok(lie).boxed()))
    }

    async fn read_proven(&self, digest: &Digest, range: Range<u64>) -> Result<Option<Proven>> {
        Ok(match self.0.read_proven(digest, range).await? {
            Some(Proven::Range { size, pieces }) => {
                let wrong = |piece: ProvenPiece| ProvenPiece { data: lie(piece.data), ..piece };
                Some(Proven::Range { size, pieces: pieces.map_ok(wrong).boxed() })
            }
            other => other,
        })
    }

    async fn chunks(&self, digest: &Digest) -> Result<Option<ChunkList>> {
        self.0.chunks(digest).await
    }

    fn open_local(&self, _: &Digest) -> Result<Option<LocalBlob>> {
        Ok(None)
    }

    async fn put(&self, contents: Bytes) -> Result<Put> {
        self.0.put(contents).await
    }

    async fn writer(&self) -> Result<Box<dyn BlobWriter>> {
        self.0.writer().await
    }

    async fn sync(&self) -> Result<()> {
        Ok(())
    }
}

fn noise(seed: u64, len: usize) -> Bytes {
    let mut out = vec![0; len];
    blake3::Hasher::new().update(&seed.to_le_bytes()).finalize_xof().fill(&mut out);
    out.into()
}

/// What a client reads of two blobs, a short one and one that comes in parts, from servers of which some lie.
async fn read_from(lying: [bool; 2]) -> Vec<Result<Vec<u8>>> {
    let memory = MemoryBlobs::new();
    let blobs = [noise(1, 20_000), noise(2, 3_000_000)];
    for contents in &blobs {
        memory.put(contents.clone()).await.expect("memory");
    }
    let servers = lying.map(|lies| {
        let blobs: Arc<dyn BlobService> = match lies {
            true => Arc::new(Liar(memory.clone())),
            false => Arc::new(memory.clone()),
        };
        Running::tcp(Stores { blobs, ..Shelf::new().stores() })
    });
    let urls = servers.each_ref().map(|server| match &server.address {
        GrpcAddress::Http(url) => url.clone(),
        other => panic!("{other} is not TCP"),
    });
    let address = GrpcAddress::Several(urls.to_vec());
    let channel = GrpcChannel::connect(&address, GrpcOptions::default()).expect("an address");
    let far = Arc::new(VerifiedBlobs::new("far", Arc::new(GrpcBlobs::new(channel))));
    let dir = tempfile::tempdir().expect("a temporary directory");
    let store = LocalStore::open_cache(dir.path(), Some(1 << 30)).expect("it opens");
    let near = Arc::new(LocalBlobs::new(store.clone()));
    let lazy = LazyBlobs::new(Some(near), Some(store), far, LazyOptions::default());
    let mut read = Vec::new();
    for contents in &blobs {
        let (digest, size) = (Digest::of(contents), contents.len() as u64);
        let pieces = lazy.read_sized(&digest, size, 0..size).await;
        let pieces = match pieces {
            Ok(pieces) => pieces.expect("it is there").try_collect::<Vec<Bytes>>().await,
            Err(error) => Err(error),
        };
        let pieces = pieces.map(|pieces| pieces.concat());
        assert!(pieces.as_ref().is_ok_and(|got| got == contents) || pieces.is_err(), "wrong bytes");
        read.push(pieces);
    }
    read
}

#[tokio::test(flavor = "multi_thread")]
async fn where_one_lies_another_is_asked() {
    for lying in [[false, false], [true, false], [false, true]] {
        for read in read_from(lying).await {
            read.expect("one of them tells the truth");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn where_all_lie_it_is_an_error_and_comes_to_an_end() {
    for read in read_from([true, true]).await {
        assert!(matches!(read, Err(Error::Corrupt { .. })), "{read:?}");
    }
}
