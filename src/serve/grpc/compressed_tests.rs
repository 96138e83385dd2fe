//! Messages that are compressed, and those that become longer than anybody wants.

use std::sync::Arc;

use bytes::Bytes;
use futures::stream;
use tonic::{
    Code, Request, client::Grpc, codec::CompressionEncoding, codegen::http::uri::PathAndQuery,
};
use tonic_prost::ProstCodec;

use super::{BLOB_MESSAGE_LEN_MAX, tests::Running};
use crate::{
    castore::Digest,
    proto::castore as wire,
    service::{
        blob::{BlobService, backend::GrpcBlobs, read_all},
        grpc::{GrpcChannel, GrpcOptions},
        shelf::Shelf,
    },
};

fn compressed(server: &Running) -> GrpcChannel {
    let options = GrpcOptions { compress: true, ..GrpcOptions::default() };
    GrpcChannel::connect(&server.address, options).expect("an address")
}

#[tokio::test]
async fn what_is_compressed_on_its_way_arrives_as_it_was() {
    let shelf = Shelf::new();
    let server = Running::tcp(shelf.stores());
    let blobs = GrpcBlobs::new(compressed(&server));
    for contents in [Bytes::from_static(b"short"), vec![7; 900_000].into(), Bytes::new()] {
        let digest = blobs.put(contents.clone()).await.expect("works").digest;
        assert_eq!(digest, Digest::of(&contents));
        let read = read_all(&blobs, &digest, 1 << 20).await.expect("works");
        assert_eq!(read, Some(contents));
    }
    server.stop().await;
}

/// A message of a few kilobytes that would become as long as `len`.
async fn put(server: &Running, len: usize) -> Result<(), tonic::Status> {
    let mut grpc = Grpc::new(server.plain()).send_compressed(CompressionEncoding::Zstd);
    grpc.ready().await.expect("it connects");
    let message = wire::BlobChunk { data: vec![0; len].into() };
    let request = Request::new(stream::iter([message]));
    let path = PathAndQuery::from_static("/tvix.castore.v1.BlobService/Put");
    let codec = ProstCodec::<wire::BlobChunk, wire::PutBlobResponse>::default();
    grpc.client_streaming(request, path, codec).await.map(drop)
}

#[tokio::test]
async fn a_server_takes_no_message_that_becomes_too_long() {
    let shelf = Shelf::new();
    let server = Running::tcp(shelf.stores());
    put(&server, BLOB_MESSAGE_LEN_MAX - 64).await.expect("it is not too long");
    let refusal = put(&server, 64 << 20).await.expect_err("it is too long");
    assert_eq!(refusal.code(), Code::ResourceExhausted, "{refusal}");
    assert_eq!(shelf.blobs.lock().len(), 1);
    server.stop().await;
}

/// Sends blobs in one message each, whatever their length.
struct InOneMessage(Bytes);

#[tonic::async_trait]
impl wire::blob_service_server::BlobService for InOneMessage {
    type ReadStream = stream::Iter<std::vec::IntoIter<Result<wire::BlobChunk, tonic::Status>>>;

    async fn stat(
        &self,
        _: Request<wire::StatBlobRequest>,
    ) -> Result<tonic::Response<wire::StatBlobResponse>, tonic::Status> {
        Ok(tonic::Response::new(wire::StatBlobResponse::default()))
    }

    async fn read(
        &self,
        _: Request<wire::ReadBlobRequest>,
    ) -> Result<tonic::Response<Self::ReadStream>, tonic::Status> {
        let message = Ok(wire::BlobChunk { data: self.0.clone() });
        Ok(tonic::Response::new(stream::iter(vec![message])))
    }

    async fn put(
        &self,
        _: Request<tonic::Streaming<wire::BlobChunk>>,
    ) -> Result<tonic::Response<wire::PutBlobResponse>, tonic::Status> {
        Err(tonic::Status::unimplemented("it only sends"))
    }
}

#[tokio::test]
async fn a_client_takes_no_message_that_becomes_too_long() {
    let service = InOneMessage(vec![0; 512 << 20].into());
    let service = wire::blob_service_server::BlobServiceServer::new(service)
        .accept_compressed(CompressionEncoding::Zstd)
        .send_compressed(CompressionEncoding::Zstd);
    let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("binds");
    let address = listener.local_addr().expect("it has one");
    listener.set_nonblocking(true).expect("it can");
    let listener = tokio::net::TcpListener::from_std(listener).expect("it listens");
    let incoming = tonic::transport::server::TcpIncoming::from(listener);
    let serving = tonic::transport::Server::builder().add_service(service);
    let serving = tokio::spawn(serving.serve_with_incoming(incoming));
    let address = crate::service::grpc::GrpcAddress::Http(format!("http://{address}"));
    let options = GrpcOptions { compress: true, attempts_max: 1, ..GrpcOptions::default() };
    let channel = GrpcChannel::connect(&address, options).expect("an address");
    let blobs: Arc<dyn BlobService> = Arc::new(GrpcBlobs::new(channel));
    let read = read_all(&*blobs, &Digest::of(b"x"), 1 << 20).await;
    let error = read.map(|_| ()).expect_err("it is too long").to_string();
    assert!(error.contains("size limit"), "{error}");
    serving.abort();
}
