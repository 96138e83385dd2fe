//! The server and the client of the protocol, facing each other over real sockets.

use std::{path::Path, sync::Arc, time::Duration};

use bytes::Bytes;
use futures::{StreamExt as _, TryStreamExt as _};
use rstest::rstest;
use tokio::{sync::oneshot, task::JoinHandle};
use tonic::{
    Code,
    transport::{Channel, Endpoint},
};
use tonic_health::pb::{HealthCheckRequest, health_client::HealthClient};
use tonic_reflection::pb::v1::{
    ServerReflectionRequest, server_reflection_client::ServerReflectionClient,
    server_reflection_request::MessageRequest, server_reflection_response::MessageResponse,
};

use super::*;
use crate::{
    castore::{Digest, Directory, Node, SizeRule, SymlinkTarget},
    proto::castore as wire,
    service::{
        Error,
        blob::{
            BlobService,
            backend::GrpcBlobs,
            layer::{LazyBlobs, LazyOptions, VerifiedBlobs},
            read_all,
        },
        directory::{DirectoryService, backend::GrpcDirectories},
        grpc::{Dialect, GrpcAddress, GrpcChannel, GrpcOptions},
        pathinfo::{NarCalculation, PathInfoService, backend::GrpcPathInfos},
        shelf::{Shelf, closure, path_info},
    },
};

/// A server, until it is dropped.
pub(super) struct Running {
    pub(super) address: GrpcAddress,
    stop: Option<oneshot::Sender<()>>,
    ended: JoinHandle<io::Result<()>>,
}

impl Running {
    fn on(listener: Listener, address: GrpcAddress, stores: Stores) -> Self {
        let (stop, stopped) = oneshot::channel::<()>();
        let shutdown = async move { drop(stopped.await) };
        let ended = tokio::spawn(serve(listener, stores, shutdown));
        Running { address, stop: Some(stop), ended }
    }

    pub(super) fn tcp(stores: Stores) -> Self {
        let listener = Listener::tcp(([127, 0, 0, 1], 0).into()).expect("binds");
        let local = listener.local_address().expect("is TCP");
        Running::on(listener, GrpcAddress::Http(format!("http://{local}")), stores)
    }

    fn unix(path: &Path, stores: Stores) -> Self {
        let listener = Listener::unix(path).expect("binds");
        Running::on(listener, GrpcAddress::Unix(path.to_owned()), stores)
    }

    fn client(&self, dialect: Option<Dialect>) -> GrpcChannel {
        let options = GrpcOptions { dialect, ..GrpcOptions::default() };
        GrpcChannel::connect(&self.address, options).expect("an address")
    }

    pub(super) fn plain(&self) -> Channel {
        let GrpcAddress::Http(url) = &self.address else { panic!("not TCP") };
        Endpoint::from_shared(url.clone()).expect("an address").connect_lazy()
    }

    pub(super) async fn stop(mut self) {
        drop(self.stop.take());
        self.ended.await.expect("no panic").expect("ends well");
    }
}

pub(super) fn link() -> Node {
    Node::Symlink { target: SymlinkTarget::try_from(&b"target"[..]).expect("legal") }
}

fn random(len: usize) -> Bytes {
    let mut out = vec![0; len];
    blake3::Hasher::new().finalize_xof().fill(&mut out);
    out.into()
}

async fn put_closure(directories: &dyn DirectoryService, all: &[Arc<Directory>]) -> Digest {
    let mut putter = directories.put_closure().await.expect("works");
    for directory in all {
        putter.put(directory.clone()).await.expect("works");
    }
    putter.finish().await.expect("works")
}

async fn everything_works(channel: GrpcChannel, shelf: &Shelf) {
    let blobs = GrpcBlobs::new(channel.clone());
    assert!(blobs.has(&Digest::EMPTY).await.expect("works"));
    for len in [0, 1, 1 << 20, (1 << 20) + 1, 5 << 20] {
        let contents = random(len);
        let digest = Digest::of(&contents);
        if len > 0 {
            assert!(!blobs.has(&digest).await.expect("works"));
            assert!(blobs.read(&digest, 0..1).await.expect("works").is_none());
            assert_eq!(blobs.chunks(&digest).await.expect("works"), None);
        }
        let mut writer = blobs.writer().await.expect("works");
        writer.write(contents.clone()).await.expect("works");
        assert_eq!(writer.finish().await.expect("works"), (digest, len as u64));
        assert!(blobs.chunks(&digest).await.expect("works").expect("is there").is_empty());
        let read = read_all(&blobs, &digest, len).await.expect("works");
        assert_eq!(read, Some(contents.clone()));
        let part = blobs.read(&digest, 100..300_100).await.expect("works").expect("is there");
        let part: Vec<Bytes> = part.try_collect().await.expect("works");
        assert_eq!(part.concat(), contents[len.min(100)..len.min(300_100)]);
    }
    assert_eq!(blobs.put(random(2)).await.expect("works").digest, Digest::of(&random(2)));

    let directories = GrpcDirectories::new(channel.clone());
    let all = closure("x", directories.size_rule().await.expect("works"));
    let root = all[2].digest();
    assert_eq!(directories.get(&root).await.expect("works"), None);
    assert!(directories.get_closure(&root).await.expect("works").is_none());
    assert_eq!(put_closure(&directories, &all).await, root);
    assert_eq!(directories.get(&root).await.expect("works"), Some(all[2].clone()));
    let got = directories.get_closure(&root).await.expect("works").expect("is there");
    assert_eq!(got.try_collect::<Vec<_>>().await.expect("works").len(), 3);
    directories.put(all[1].clone()).await.expect("its child is sent again");
    let stray = closure("stray", SizeRule::Documented);
    let refused = directories.put(stray[1].clone()).await;
    assert!(matches!(refused, Err(Error::Invalid(_))), "{refused:?}");

    let path_infos = GrpcPathInfos::new(channel);
    let node = all[2].node(SizeRule::Documented);
    let info = path_info(1, "one", node);
    assert_eq!(path_infos.get(&[1; 20].into()).await.expect("works"), None);
    let syncs = shelf.syncs.load(std::sync::atomic::Ordering::SeqCst);
    assert_eq!(path_infos.put(info.clone()).await.expect("works"), info);
    assert_eq!(shelf.syncs.load(std::sync::atomic::Ordering::SeqCst), syncs + 2);
    assert_eq!(path_infos.get(&[1; 20].into()).await.expect("works"), Some(info.clone()));
    assert_eq!(path_infos.list().try_collect::<Vec<_>>().await.expect("works"), [info]);
    assert_eq!(path_infos.calculate_nar(&link()).await.expect("works").size, 6);

    for node in [
        Node::Directory { digest: stray[0].digest(), size: 1 },
        Node::File { digest: Digest::of(b"stray"), size: 5, executable: false },
    ] {
        let refused = path_infos.put(path_info(2, "two", node.clone())).await;
        assert!(matches!(refused, Err(Error::Invalid(_))), "{refused:?}");
        assert!(path_infos.calculate_nar(&node).await.is_err());
    }
}

#[rstest]
#[tokio::test]
async fn everything_works_in_both_dialects_over_tcp_and_unix_sockets(
    #[values(None, Some(Dialect::Tvix), Some(Dialect::Snix))] dialect: Option<Dialect>,
    #[values(false, true)] unix: bool,
) {
    let shelf = Shelf::new();
    let dir = tempfile::tempdir().expect("a directory");
    let socket = dir.path().join("odd name%.sock");
    let server = match unix {
        true => Running::unix(&socket, shelf.stores()),
        false => Running::tcp(shelf.stores()),
    };
    let channel = server.client(dialect);
    everything_works(channel.clone(), &shelf).await;
    assert_eq!(channel.dialect().await.expect("known"), dialect.unwrap_or(Dialect::Tvix));
    drop(channel);
    server.stop().await;
    assert!(!socket.exists());
}

#[tokio::test]
async fn reflection_and_health_know_both_dialects() {
    let server = Running::tcp(Shelf::new().stores());
    let question = ServerReflectionRequest {
        host: String::new(),
        message_request: Some(MessageRequest::ListServices(String::new())),
    };
    let mut reflection = ServerReflectionClient::new(server.plain());
    let answers = reflection.server_reflection_info(tokio_stream::iter([question])).await;
    let mut answers = answers.expect("works").into_inner();
    let answer = answers.message().await.expect("works").expect("an answer");
    let Some(MessageResponse::ListServicesResponse(list)) = answer.message_response else {
        panic!("{answer:?}")
    };
    let listed: Vec<_> = list.service.into_iter().map(|service| service.name).collect();
    let mut health = HealthClient::new(server.plain());
    for service in SERVICES {
        assert!(listed.iter().any(|name| name == service), "{service} in {listed:?}");
        let service = service.to_owned();
        let answer = health.check(HealthCheckRequest { service }).await.expect("works");
        assert_eq!(answer.into_inner().status, ServingStatus::Serving as i32);
    }
}

#[tokio::test]
async fn a_blob_of_5_mib_takes_at_most_24_messages() {
    let shelf = Shelf::new();
    let contents = random(5 << 20);
    let digest = shelf.stores().blobs.put(contents).await.expect("works").digest;
    let server = Running::tcp(shelf.stores());
    let mut client = wire::blob_service_client::BlobServiceClient::new(server.plain());
    let digest = Bytes::copy_from_slice(digest.as_bytes());
    let messages = client.read(wire::ReadBlobRequest { digest }).await.expect("works").into_inner();
    assert!(messages.count().await <= 24);
}

#[tokio::test]
async fn malformed_requests_are_told_so_and_our_paths_stay_with_us() {
    let shelf = Shelf::new();
    let server = Running::tcp(shelf.stores());
    let mut blobs = wire::blob_service_client::BlobServiceClient::new(server.plain());
    let mut directories =
        wire::directory_service_client::DirectoryServiceClient::new(server.plain());
    let short = wire::StatBlobRequest { digest: Bytes::from_static(b"x"), ..Default::default() };
    assert_eq!(blobs.stat(short).await.expect_err("too short").code(), Code::InvalidArgument);
    let nothing = directories.get(wire::GetDirectoryRequest::default()).await;
    assert_eq!(nothing.expect_err("no digest").code(), Code::InvalidArgument);
    let [_, middle, _] = closure("x", SizeRule::Documented);
    let unordered = tokio_stream::iter([wire::Directory::from(&*middle)]);
    let unordered = directories.put(unordered).await;
    assert_eq!(unordered.expect_err("no child").code(), Code::InvalidArgument);

    shelf.break_(true);
    let digest = Bytes::copy_from_slice(Digest::of(b"x").as_bytes());
    let broken = blobs.stat(wire::StatBlobRequest { digest, ..Default::default() }).await;
    let broken = broken.expect_err("broken");
    assert_eq!(broken.code(), Code::Unavailable);
    assert!(!broken.message().contains("secret"), "{broken}");
}

#[tokio::test]
async fn an_upload_that_is_dropped_leaves_nothing_behind() {
    let shelf = Shelf::new();
    let server = Running::tcp(shelf.stores());
    let blobs = GrpcBlobs::new(server.client(None));
    for len in [10, 3 << 20] {
        let mut writer = blobs.writer().await.expect("works");
        writer.write(random(len)).await.expect("works");
        // Let it arrive.
        assert!(blobs.has(&Digest::EMPTY).await.expect("works"));
        tokio::time::sleep(Duration::from_millis(50)).await;
        drop(writer);
    }
    server.stop().await;
    assert!(shelf.blobs.lock().is_empty());
}

#[tokio::test]
async fn a_peer_that_lies_is_found_out() {
    let shelf = Shelf::new();
    let server = Running::tcp(shelf.stores());
    let channel = server.client(None);
    let [leaf, middle, root] = closure("x", SizeRule::Documented);
    let asked = Digest::of(b"asked");
    shelf.blobs.lock().insert(asked, Bytes::from_static(b"answered"));
    shelf.directories.lock().extend([
        (root.digest(), root.clone()),
        (middle.digest(), middle.clone()),
        (asked, middle),
    ]);
    shelf.path_infos.lock().insert([1; 20].into(), path_info(2, "two", link()));

    let blobs = Arc::new(VerifiedBlobs::new("peer", Arc::new(GrpcBlobs::new(channel.clone()))));
    let near = Shelf::new();
    let cached =
        LazyBlobs::new(Some(near.stores().blobs), None, blobs.clone(), LazyOptions::default());
    for blobs in [&*blobs as &dyn BlobService, &cached] {
        let wrong = read_all(blobs, &asked, 100).await;
        assert!(matches!(wrong, Err(Error::Corrupt { .. })), "{wrong:?}");
    }
    assert!(near.blobs.lock().is_empty());
    let directories = GrpcDirectories::new(channel.clone());
    let wrong = directories.get(&asked).await;
    assert!(matches!(wrong, Err(Error::Corrupt { .. })), "{wrong:?}");
    let cut = directories.get_closure(&root.digest()).await.expect("begins").expect("is there");
    let cut = cut.try_collect::<Vec<_>>().await;
    assert!(matches!(cut, Err(Error::Corrupt { .. })), "{cut:?} without {leaf:?}");
    let wrong = GrpcPathInfos::new(channel).get(&[1; 20].into()).await;
    assert!(matches!(wrong, Err(Error::Corrupt { .. })), "{wrong:?}");
}

#[tokio::test]
async fn a_peer_that_never_answers_times_out_and_is_not_remembered() {
    let silent = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("binds");
    let url = format!("http://{}", silent.local_addr().expect("bound"));
    let hold = tokio::spawn(async move {
        let mut held = Vec::new();
        while let Ok(connection) = silent.accept().await {
            held.push(connection);
        }
    });
    let deadline = Duration::from_millis(100);
    let channel = |dialect| {
        let options = GrpcOptions { dialect, deadline, ..GrpcOptions::default() };
        GrpcChannel::connect(&GrpcAddress::Http(url.clone()), options).expect("an address")
    };
    for dialect in [None, Some(Dialect::Snix)] {
        let channel = channel(dialect);
        let began = std::time::Instant::now();
        let digest = Digest::of(b"x");
        let has = GrpcBlobs::new(channel.clone()).has(&digest).await;
        assert!(matches!(has, Err(Error::TimedOut { .. })), "{has:?}");
        assert!(began.elapsed() >= deadline);
        let began = std::time::Instant::now();
        let put = GrpcBlobs::new(channel.clone()).put(random(10)).await;
        assert!(matches!(put, Err(Error::Unavailable { .. })), "not asked again: {put:?}");
        let read = GrpcBlobs::new(channel.clone()).read(&digest, 0..1).await.err();
        assert!(matches!(read, Some(Error::Unavailable { .. })), "{read:?}");
        assert!(began.elapsed() < deadline, "and nobody waits for that");
    }
    hold.abort();
}

#[tokio::test]
async fn a_peer_that_comes_back_is_used_again() {
    let dir = tempfile::tempdir().expect("a directory");
    let socket = dir.path().join("store.sock");
    let shelf = Shelf::new();
    let digest = shelf.stores().blobs.put(random(9)).await.expect("works").digest;
    let address = GrpcAddress::Unix(socket.clone());
    let channel = GrpcChannel::connect(&address, GrpcOptions::default()).expect("an address");
    let blobs = GrpcBlobs::new(channel);
    for _ in 0..2 {
        let gone = blobs.has(&digest).await;
        assert!(matches!(gone, Err(Error::Unavailable { .. })), "{gone:?}");
        let server = Running::unix(&socket, shelf.stores());
        let began = std::time::Instant::now();
        while blobs.has(&digest).await.is_err() {
            assert!(began.elapsed() < Duration::from_secs(10), "it does not heal");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        server.stop().await;
    }
}

#[tokio::test]
async fn a_socket_that_was_bound_by_somebody_else_is_served() {
    let dir = tempfile::tempdir().expect("a directory");
    let path = dir.path().join("passed.sock");
    let tcp = std::net::TcpListener::bind("127.0.0.1:0").expect("binds");
    let url = format!("http://{}", tcp.local_addr().expect("bound"));
    let unix = std::os::unix::net::UnixListener::bind(&path).expect("binds");
    for (fd, address) in
        [(tcp.into(), GrpcAddress::Http(url)), (unix.into(), GrpcAddress::Unix(path.clone()))]
    {
        let listener = Listener::from_fd(fd).expect("listens");
        let server = Running::on(listener, address, Shelf::new().stores());
        let blobs = GrpcBlobs::new(server.client(None));
        assert!(!blobs.has(&Digest::of(b"x")).await.expect("works"));
        drop(blobs);
        server.stop().await;
    }
    assert!(path.exists(), "not ours to remove");
    Listener::unix(&path).expect("nobody serves it any more");
}

/// Speaks as a client on the C core of gRPC does: byte by byte, because no library of ours would send such a name.
#[tokio::test]
async fn a_client_that_calls_the_socket_by_its_path_is_served() {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

    let literal = |first: u8, value: &[u8]| [&[first, value.len() as u8], value].concat();
    let frame = |kind: u8, flags: u8, stream: u8, payload: &[u8]| {
        [&[0, 0, payload.len() as u8, kind, flags, 0, 0, 0, stream], payload].concat()
    };
    let headers = [
        &[0x83, 0x86][..],
        &literal(0x44, b"/snix.castore.v1.BlobService/Stat"),
        &literal(0x41, b"run%2Fstore.sock"),
        &literal(0x5f, b"application/grpc"),
        b"\x40\x02te\x08trailers",
    ]
    .concat();
    let question = [&[0, 0, 0, 0, 34, 0x0a, 32], &Digest::EMPTY.as_bytes()[..]].concat();
    let mut bytes = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_vec();
    bytes.extend(frame(4, 0, 0, &[]));
    bytes.extend(frame(1, 4, 1, &headers));
    bytes.extend(frame(0, 1, 1, &question));

    let dir = tempfile::tempdir().expect("a directory");
    let path = dir.path().join("store.sock");
    let _server = Running::unix(&path, Shelf::new().stores());
    let mut socket = tokio::net::UnixStream::connect(&path).await.expect("listens");
    socket.write_all(&bytes).await.expect("is read");
    loop {
        let mut header = [0; 9];
        socket.read_exact(&mut header).await.expect("an answer");
        let mut payload = vec![0; usize::from(header[1]) << 8 | usize::from(header[2])];
        socket.read_exact(&mut payload).await.expect("an answer");
        match header[3] {
            1 => break assert_eq!(payload[0], 0x88, ":status is 200"),
            3 | 7 => panic!("refused: {payload:?}"),
            _ => {}
        }
    }
}

/// A peer of the kinds that are out there: it speaks the newer names alone, and answers an empty stream where a
/// directory is unknown.
#[derive(Debug)]
struct Wild;

#[tonic::async_trait]
impl crate::proto::snix_castore::blob_service_server::BlobService for Wild {
    type ReadStream = tokio_stream::Empty<Result<wire::BlobChunk, tonic::Status>>;

    async fn stat(
        &self,
        _request: tonic::Request<wire::StatBlobRequest>,
    ) -> Result<tonic::Response<wire::StatBlobResponse>, tonic::Status> {
        Err(tonic::Status::not_found("no"))
    }

    async fn read(
        &self,
        _request: tonic::Request<wire::ReadBlobRequest>,
    ) -> Result<tonic::Response<Self::ReadStream>, tonic::Status> {
        Err(tonic::Status::not_found("no"))
    }

    async fn put(
        &self,
        _request: tonic::Request<tonic::Streaming<wire::BlobChunk>>,
    ) -> Result<tonic::Response<wire::PutBlobResponse>, tonic::Status> {
        Err(tonic::Status::internal("no"))
    }
}

#[tonic::async_trait]
impl crate::proto::snix_castore::directory_service_server::DirectoryService for Wild {
    type GetStream = tokio_stream::Empty<Result<wire::Directory, tonic::Status>>;

    async fn get(
        &self,
        _request: tonic::Request<wire::GetDirectoryRequest>,
    ) -> Result<tonic::Response<Self::GetStream>, tonic::Status> {
        Ok(tonic::Response::new(tokio_stream::empty()))
    }

    async fn put(
        &self,
        _request: tonic::Request<tonic::Streaming<wire::Directory>>,
    ) -> Result<tonic::Response<wire::PutDirectoryResponse>, tonic::Status> {
        Err(tonic::Status::internal("no"))
    }
}

#[tokio::test]
async fn a_peer_of_the_newer_names_is_recognised_and_its_empty_stream_is_absence() {
    use crate::proto::snix_castore as snix;

    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("binds");
    let url = format!("http://{}", listener.local_addr().expect("bound"));
    let served = tokio::spawn(
        Server::builder()
            .add_service(snix::blob_service_server::BlobServiceServer::new(Wild))
            .add_service(snix::directory_service_server::DirectoryServiceServer::new(Wild))
            .serve_with_incoming(TcpIncoming::from(listener)),
    );
    let address = GrpcAddress::Http(url);
    let channel = GrpcChannel::connect(&address, GrpcOptions::default()).expect("an address");
    let directories = GrpcDirectories::new(channel.clone());
    assert!(directories.get_closure(&Digest::of(b"x")).await.expect("works").is_none());
    assert_eq!(directories.get(&Digest::of(b"x")).await.expect("works"), None);
    assert_eq!(channel.dialect().await.expect("known"), Dialect::Snix);
    assert_eq!(directories.size_rule().await.expect("known"), SizeRule::Doubled);
    let path_infos = GrpcPathInfos::new(channel.clone());
    let cannot = path_infos.get(&[1; 20].into()).await;
    assert!(matches!(cannot, Err(Error::Unsupported { .. })), "{cannot:?}");
    let blobs = GrpcBlobs::new(channel);
    let mut writer = blobs.writer().await.expect("begins");
    let mut refused = Ok(());
    for _ in 0..100 {
        refused = writer.write(random(1 << 20)).await;
        if refused.is_err() {
            break;
        }
    }
    assert!(matches!(refused, Err(Error::Unavailable { .. })), "{refused:?}");
    assert!(writer.write(random(1)).await.is_err(), "and still");
    served.abort();
}
