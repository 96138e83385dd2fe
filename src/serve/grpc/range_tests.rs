//! Proven ranges over real sockets, from servers that tell the truth and from others.

use std::{ops::Range, sync::Arc};

use async_trait::async_trait;
use bytes::Bytes;
use futures::{StreamExt as _, TryStreamExt as _, stream};
use tokio::net::TcpListener;
use tonic::{
    Code, Response, Status,
    transport::{Channel, Endpoint, Server, server::TcpIncoming},
};

use crate::{
    castore::{
        ChunkList, Digest,
        outboard::{OutboardBuilder, Tree},
    },
    proto::{
        castore::{
            self as wire, blob_service_client::BlobServiceClient,
            blob_service_server::BlobServiceServer,
        },
        ranges::{
            BlobRangePiece, ReadBlobRangeRequest,
            blob_range_service_client::BlobRangeServiceClient,
            blob_range_service_server::{BlobRangeService, BlobRangeServiceServer},
        },
    },
    service::{
        Error, Result,
        blob::{
            BlobService, BlobStream, BlobWriter, LocalBlob, Proven, ProvenPiece, Put,
            backend::{GrpcBlobs, LocalBlobs, MemoryBlobs},
            layer::VerifiedBlobs,
            prove_contents,
        },
        grpc::{GrpcAddress, GrpcChannel, GrpcOptions},
        local::LocalStore,
        shelf::{Shelf, ShelfBlobs},
    },
};

/// Serves blobs, and their ranges too unless it is of another make. Returns where.
async fn start(blobs: Arc<dyn BlobService>, ranges: bool) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("binds");
    let url = format!("http://{}", listener.local_addr().expect("bound"));
    let router = Server::builder()
        .add_service(BlobServiceServer::new(super::blobs::Blobs { blobs: blobs.clone() }))
        .add_optional_service(
            ranges.then(|| BlobRangeServiceServer::new(super::ranges::Ranges { blobs })),
        );
    tokio::spawn(router.serve_with_incoming(TcpIncoming::from(listener)));
    url
}

fn client(url: &str) -> VerifiedBlobs {
    let address = GrpcAddress::Http(url.to_owned());
    let channel = GrpcChannel::connect(&address, GrpcOptions::default()).expect("an address");
    VerifiedBlobs::new("far", Arc::new(GrpcBlobs::new(channel)))
}

fn plain(url: &str) -> Channel {
    Endpoint::from_shared(url.to_owned()).expect("an address").connect_lazy()
}

fn noise(len: usize) -> Bytes {
    let mut out = vec![0; len];
    blake3::Hasher::new().finalize_xof().fill(&mut out);
    out.into()
}

/// What was released of a range, and the error that ended it.
async fn read(
    blobs: &dyn BlobService,
    digest: &Digest,
    range: Range<u64>,
) -> (u64, Vec<u8>, Option<Error>) {
    let proven = match blobs.read_proven(digest, range).await {
        Ok(proven) => proven.expect("is there"),
        Err(error) => return (0, Vec::new(), Some(error)),
    };
    let Proven::Range { size, mut pieces } = proven else { panic!("nothing is proven") };
    let mut data = Vec::new();
    while let Some(piece) = pieces.next().await {
        match piece {
            Ok(piece) => data.extend_from_slice(&piece.data),
            Err(error) => {
                assert!(pieces.next().await.is_none(), "an error ends the stream");
                return (size, data, Some(error));
            }
        }
    }
    (size, data, None)
}

#[tokio::test]
async fn ranges_are_served_proven_and_in_few_bytes() {
    let memory = Arc::new(MemoryBlobs::new());
    let contents = noise(3_000_000);
    let digest = memory.put(contents.clone()).await.expect("works").digest;
    let url = start(memory, true).await;
    let blobs = client(&url);
    for range in
        [0..1, 1_000_000..2_000_000, 2_999_999..3_000_000, 0..u64::MAX, 9_000_000..9_000_001]
    {
        let bytes = Tree::new(3_000_000).bytes_of(&Tree::new(3_000_000).groups_of(&range));
        let (size, data, error) = read(&blobs, &digest, range).await;
        assert!(error.is_none(), "{error:?}");
        assert_eq!(size, 3_000_000);
        assert_eq!(data, contents[bytes.start as usize..bytes.end as usize]);
    }
    assert!(blobs.read_proven(&Digest::of(b"x"), 0..1).await.expect("works").is_none());

    let mut raw = BlobRangeServiceClient::new(plain(&url));
    let request = ReadBlobRangeRequest {
        digest: digest.as_bytes().to_vec().into(),
        start: 1_000_000,
        end: 2_000_000,
    };
    let messages = raw.read(request.clone()).await.expect("works").into_inner();
    let messages: Vec<_> = messages.try_collect().await.expect("works");
    assert_eq!((messages[0].size, messages[0].data.len()), (3_000_000, 0));
    assert!(messages[1..].iter().all(|piece| piece.data.len() <= 256 << 10 && piece.size == 0));
    let nodes: usize = messages.iter().map(|piece| piece.nodes.len()).sum();
    assert!(nodes < 80 * 64, "{nodes} bytes of nodes for 62 groups");
    for (request, code) in [
        (ReadBlobRangeRequest { end: 0, ..request.clone() }, Code::InvalidArgument),
        (
            ReadBlobRangeRequest { digest: Bytes::from_static(b"short"), ..request },
            Code::InvalidArgument,
        ),
    ] {
        assert_eq!(raw.read(request).await.expect_err("refused").code(), code);
    }
}

#[tokio::test]
async fn a_server_without_proofs_says_so_and_one_without_the_service_is_asked_once() {
    let shelf = Shelf::new();
    let digest = shelf.stores().blobs.put(noise(100_000)).await.expect("works").digest;
    for ranges in [true, false] {
        let blobs = client(&start(Arc::new(ShelfBlobs(shelf.clone())), ranges).await);
        for _ in 0..2 {
            let lacking = blobs.read_proven(&digest, 0..1).await.expect("works");
            assert!(matches!(lacking, Some(Proven::Lacking)), "{lacking:?}");
        }
        let absent = blobs.read_proven(&Digest::of(b"x"), 0..1).await.expect("works");
        assert_eq!(absent.is_none(), ranges, "known at once only where the service is");
    }
}

#[tokio::test]
async fn the_outboard_comes_with_stat_if_it_is_asked_for() {
    let dir = tempfile::tempdir().expect("a folder");
    let store = LocalStore::open(dir.path()).expect("opens");
    let local = LocalBlobs::new(store);
    let contents = noise(2_000_000);
    let mut writer = local.writer().await.expect("works");
    writer.write(contents.clone()).await.expect("works");
    let (digest, _) = writer.finish().await.expect("works");
    let mut stat = BlobServiceClient::new(plain(&start(Arc::new(local), true).await));
    let request = wire::StatBlobRequest {
        digest: digest.as_bytes().to_vec().into(),
        ..wire::StatBlobRequest::default()
    };
    let without = stat.stat(request.clone()).await.map(Response::into_inner).expect("works");
    assert!(without.bao.is_empty());
    let request = wire::StatBlobRequest { send_bao: true, ..request };
    let with = stat.stat(request).await.map(Response::into_inner).expect("works");
    let mut builder = OutboardBuilder::new();
    builder.update(&contents);
    assert_eq!(with.bao, builder.finish().1.into_bytes());
}

/// What a lying server does to an honest answer.
#[derive(Debug, Clone, Copy)]
enum Lie {
    FlipData,
    FlipNode,
    Shorter,
    Longer,
    Cut,
    Reorder,
    DropNodes,
    MoreNodes,
    OtherRange,
    Endless,
}

const LIES: [Lie; 10] = [
    Lie::FlipData,
    Lie::FlipNode,
    Lie::Shorter,
    Lie::Longer,
    Lie::Cut,
    Lie::Reorder,
    Lie::DropNodes,
    Lie::MoreNodes,
    Lie::OtherRange,
    Lie::Endless,
];

fn flip(bytes: &Bytes) -> Bytes {
    let mut bytes = bytes.to_vec();
    if let Some(last) = bytes.last_mut() {
        *last ^= 1;
    }
    bytes.into()
}

/// Has one blob and lies about it from the given piece on.
#[derive(Debug)]
struct Liar {
    contents: Bytes,
    lie: Lie,
    from: usize,
}

impl Liar {
    async fn answer(&self, digest: &Digest, range: Range<u64>) -> (u64, Vec<ProvenPiece>) {
        let range = match self.lie {
            Lie::OtherRange => range.start.saturating_sub(100_000)..range.end - 100_000,
            _ => range,
        };
        let proven = prove_contents("liar", digest, self.contents.clone(), &range);
        let Proven::Range { size, pieces } = proven else { panic!("it has a proof") };
        let mut pieces: Vec<_> = pieces.try_collect().await.expect("honest so far");
        let from = self.from.min(pieces.len() - 1);
        let size = match self.lie {
            Lie::Shorter => size - 1,
            Lie::Longer => size + 20_000,
            _ => size,
        };
        match self.lie {
            Lie::FlipData => pieces[from].data = flip(&pieces[from].data),
            Lie::FlipNode => {
                let with = pieces.iter().position(|piece| !piece.nodes.is_empty());
                let piece = &mut pieces[with.expect("the blob is long")];
                piece.nodes = flip(&piece.nodes);
            }
            Lie::Cut => pieces.truncate(from),
            Lie::Reorder => pieces.reverse(),
            Lie::DropNodes => pieces[0].nodes = Bytes::new(),
            Lie::MoreNodes => {
                pieces[from].nodes = [&pieces[from].nodes[..], &[7; 64]].concat().into()
            }
            Lie::Shorter | Lie::Longer | Lie::OtherRange | Lie::Endless => {}
        }
        (size, pieces)
    }
}

#[async_trait]
impl BlobService for Liar {
    async fn has(&self, _digest: &Digest) -> Result<bool> {
        Ok(true)
    }

    async fn read(&self, _digest: &Digest, _range: Range<u64>) -> Result<Option<BlobStream>> {
        Ok(None)
    }

    async fn read_proven(&self, digest: &Digest, range: Range<u64>) -> Result<Option<Proven>> {
        let (size, pieces) = self.answer(digest, range).await;
        let more = match self.lie {
            Lie::Endless => Some(ProvenPiece { nodes: Bytes::new(), data: noise(262_144) }),
            _ => None,
        };
        let endless = stream::iter(std::iter::repeat_with(move || more.clone()).map_while(|m| m));
        let pieces = stream::iter(pieces).chain(endless).map(Ok).boxed();
        Ok(Some(Proven::Range { size, pieces }))
    }

    async fn chunks(&self, _digest: &Digest) -> Result<Option<ChunkList>> {
        Ok(Some(ChunkList::default()))
    }

    fn open_local(&self, _digest: &Digest) -> Result<Option<LocalBlob>> {
        Ok(None)
    }

    async fn put(&self, _contents: Bytes) -> Result<Put> {
        Err(Error::invalid("read-only"))
    }

    async fn writer(&self) -> Result<Box<dyn BlobWriter>> {
        Err(Error::invalid("read-only"))
    }

    async fn sync(&self) -> Result<()> {
        Ok(())
    }
}

#[tokio::test]
async fn nothing_wrong_of_a_range_is_released_whatever_the_server_does() {
    let contents = noise(3_000_000);
    let digest = Digest::of(&contents);
    let tree = Tree::new(3_000_000);
    for lie in LIES {
        for from in [0, 2, 100] {
            let liar = Liar { contents: contents.clone(), lie, from };
            let blobs = client(&start(Arc::new(liar), true).await);
            for range in [300_000..1_500_000, 2_000_000..3_000_000] {
                let bytes = tree.bytes_of(&tree.groups_of(&range));
                let (_, data, error) = read(&blobs, &digest, range.clone()).await;
                let right = &contents[bytes.start as usize..bytes.end as usize];
                // A wrong length shows only in a range that has the end; what comes too late is not listened to.
                let harmless = matches!(lie, Lie::Endless)
                    || matches!(lie, Lie::Shorter | Lie::Longer) && range.end < 2_000_000;
                match error {
                    None => assert!(harmless && data == right, "{lie:?} from {from}, {range:?}"),
                    Some(error) => {
                        let corrupt = matches!(error, Error::Corrupt { .. });
                        assert!(corrupt, "{lie:?} from {from}, {range:?}: {error}");
                        assert!(data.len() <= right.len() && data == right[..data.len()]);
                    }
                }
            }
        }
    }
}

/// A server whose range service is broken rather than lying.
#[tokio::test]
async fn an_answer_without_a_beginning_is_an_error_and_not_an_empty_range() {
    #[derive(Debug)]
    struct Empty;

    #[async_trait]
    impl BlobRangeService for Empty {
        type ReadStream = tokio_stream::Empty<Result<BlobRangePiece, Status>>;

        async fn read(
            &self,
            _request: tonic::Request<ReadBlobRangeRequest>,
        ) -> Result<Response<Self::ReadStream>, Status> {
            Ok(Response::new(tokio_stream::empty()))
        }
    }

    let listener = TcpListener::bind("127.0.0.1:0").await.expect("binds");
    let url = format!("http://{}", listener.local_addr().expect("bound"));
    let blobs = Arc::new(MemoryBlobs::new());
    let router = Server::builder()
        .add_service(BlobServiceServer::new(super::blobs::Blobs { blobs }))
        .add_service(BlobRangeServiceServer::new(Empty));
    tokio::spawn(router.serve_with_incoming(TcpIncoming::from(listener)));
    let answer = client(&url).read_proven(&Digest::of(b"x"), 0..1).await;
    assert!(matches!(answer, Err(Error::Corrupt { .. })), "{answer:?}");
}
