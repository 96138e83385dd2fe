//! The daemon: the three services of a store for clients of either dialect, with reflection and health.
//!
//! Each service is implemented once, for the older package names; `dialect` leads requests for the newer ones
//! there. What a client can cost is bounded: the streams of a connection, the length of a message, the time for which
//! an upload may stand still. What was uploaded halfway is never visible.

mod access;
mod authority;
mod blobs;
mod dialect;
mod directories;
mod lending;
mod measured;
mod path_infos;
mod ranges;
mod tls;
mod traced;
mod upload;

use std::{future::Future, io, sync::Arc, time::Duration};

use arc_swap::ArcSwap;
use futures::StreamExt as _;
use tokio::sync::watch;
use tokio_stream::wrappers::UnixListenerStream;
use tonic::{
    codec::CompressionEncoding,
    service::Routes,
    transport::{Server, server::TcpIncoming},
};
use tonic_health::ServingStatus;

pub use super::Listener;
use super::{
    listener::Bound,
    running::{Counted, DRAIN_DEFAULT, Running},
};

use crate::{
    proto::{
        LAZYSTORE_DESCRIPTORS, SNIX_DESCRIPTORS, TVIX_DESCRIPTORS,
        castore::{
            blob_service_server::BlobServiceServer,
            directory_service_server::DirectoryServiceServer,
        },
        ranges::blob_range_service_server::BlobRangeServiceServer,
        store::path_info_service_server::PathInfoServiceServer,
    },
    service::{Stores, grpc::MESSAGE_LEN_MAX},
};
pub use access::Access;
use access::AccessLayer;
use authority::AuthorityFilter;
use dialect::{DialectLayer, SERVICES};
use measured::MeasuredLayer;
pub use tls::{ServerTls, TlsError, TlsFiles};
use traced::TraceLayer;

/// How many calls of one connection are worked on at the same time.
const CONNECTION_STREAMS_MAX: u32 = 256;
/// The longest piece of a blob that is taken in one message, in bytes.
const BLOB_MESSAGE_LEN_MAX: usize = 16 << 20;
/// How messages are compressed for clients that ask for it. The bounds above are those of a message as it is read: one
/// that would become longer is given up at that length.
const ZSTD: CompressionEncoding = CompressionEncoding::Zstd;
/// How much a client may send on one stream before it is taken, in bytes.
const STREAM_WINDOW_BYTES: u32 = 4 << 20;
/// How much a client may send on all streams of a connection before it is taken, in bytes.
const CONNECTION_WINDOW_BYTES: u32 = 16 << 20;
/// The longest frame that a client may send, in bytes.
const FRAME_LEN_MAX: u32 = 256 << 10;
/// How many streams a client may give up before we get to see them. Readers that are killed, and files of which only
/// the beginning was read, give up many at once; a connection is closed that gives up more.
const GIVEN_UP_STREAMS_MAX: usize = 4096;
/// How often an idle client is asked whether it lives, and how long it may take to react.
const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(30);

/// How a server keeps others out. By default it keeps out nobody. What is behind each of these may be replaced while the
/// server runs.
#[derive(Debug, Clone, Default)]
pub struct ServerOptions {
    /// On TCP it speaks TLS, with this certificate. Connections that there are already keep theirs.
    pub tls: Option<ServerTls>,
    /// Clients need a token, on every kind of socket. It is looked at for each request.
    pub access: Option<Arc<ArcSwap<Access>>>,
}

/// Answers for `stores` on `listener` until `shutdown` is done, and lets running calls end for a bounded time. Everybody
/// may ask.
pub async fn serve(
    listener: Listener,
    stores: Stores,
    shutdown: impl Future<Output = ()> + Send + 'static,
) -> io::Result<()> {
    let running = Running::new(DRAIN_DEFAULT);
    let stop = async {
        shutdown.await;
        running.stop();
        std::future::pending().await
    };
    tokio::select! {
        ended = serve_with(listener, stores, ServerOptions::default(), running.clone()) => ended,
        never = stop => never,
    }
}

/// As [`serve`], for those who may, until it is told to stop.
pub async fn serve_with(
    listener: Listener,
    stores: Stores,
    options: ServerOptions,
    running: Running,
) -> io::Result<()> {
    let blobs = stores.blobs.clone();
    let routes = routes(stores).await?;
    let lends = options.access.is_none();
    let router = Server::builder()
        .layer(DialectLayer)
        .layer(MeasuredLayer)
        .layer(AccessLayer(options.access))
        .layer(TraceLayer)
        .max_concurrent_streams(CONNECTION_STREAMS_MAX)
        .initial_stream_window_size(STREAM_WINDOW_BYTES)
        .initial_connection_window_size(CONNECTION_WINDOW_BYTES)
        .max_frame_size(FRAME_LEN_MAX)
        .http2_max_pending_accept_reset_streams(Some(GIVEN_UP_STREAMS_MAX))
        .http2_max_local_error_reset_streams(Some(GIVEN_UP_STREAMS_MAX))
        .http2_keepalive_interval(Some(KEEPALIVE_INTERVAL))
        .http2_keepalive_timeout(Some(KEEPALIVE_INTERVAL))
        .add_routes(routes);
    let (listener, file) = listener.into_tokio()?;
    let (told, stopped) = (running.stopped(), running.stopped());
    let shutdown = async move {
        told.await;
        // While it still listens.
        drop(file);
    };
    let too_late = async {
        stopped.await;
        tokio::time::sleep(running.drain()).await;
    };
    let (_open, closed) = watch::channel(());
    let served = async {
        match listener {
            Bound::Tcp(listener) => {
                let incoming = TcpIncoming::from(listener).with_nodelay(Some(true));
                let incoming = incoming.map(counted(running.clone()));
                match options.tls {
                    Some(tls) => {
                        let incoming = tls.accept(incoming);
                        router.serve_with_incoming_shutdown(incoming, shutdown).await
                    }
                    None => router.serve_with_incoming_shutdown(incoming, shutdown).await,
                }
            }
            Bound::Unix(listener) => {
                let incoming = UnixListenerStream::new(listener);
                // Whoever borrows shows no token.
                let incoming = match lends {
                    true => lending::lend(incoming, blobs, closed).boxed(),
                    false => incoming.boxed(),
                };
                let incoming = incoming.map(|socket| socket.map(AuthorityFilter::new));
                let incoming = incoming.map(counted(running.clone()));
                router.serve_with_incoming_shutdown(incoming, shutdown).await
            }
        }
    };
    tokio::select! {
        ended = served => ended.map_err(io::Error::other),
        () = too_late => {
            running.give_up();
            Ok(())
        }
    }
}

fn counted<S>(running: Running) -> impl Fn(io::Result<S>) -> io::Result<Counted<S>> {
    move |socket| socket.map(|socket| Counted::new(socket, running.enter()))
}

/// All services, under the names of the older dialect.
async fn routes(stores: Stores) -> io::Result<Routes> {
    let (health, health_service) = tonic_health::server::health_reporter();
    for service in SERVICES {
        health.set_service_status(service, ServingStatus::Serving).await;
    }
    let reflection = tonic_reflection::server::Builder::configure()
        .register_encoded_file_descriptor_set(TVIX_DESCRIPTORS)
        .register_encoded_file_descriptor_set(SNIX_DESCRIPTORS)
        .register_encoded_file_descriptor_set(LAZYSTORE_DESCRIPTORS)
        .register_encoded_file_descriptor_set(tonic_health::pb::FILE_DESCRIPTOR_SET)
        .build_v1()
        .map_err(io::Error::other)?;
    let blobs = BlobServiceServer::new(blobs::Blobs { blobs: stores.blobs.clone() })
        .max_decoding_message_size(BLOB_MESSAGE_LEN_MAX)
        .accept_compressed(ZSTD)
        .send_compressed(ZSTD);
    let ranges = BlobRangeServiceServer::new(ranges::Ranges { blobs: stores.blobs.clone() })
        .accept_compressed(ZSTD)
        .send_compressed(ZSTD);
    let directories = directories::Directories { directories: stores.directories.clone() };
    let directories =
        DirectoryServiceServer::new(directories).max_decoding_message_size(MESSAGE_LEN_MAX);
    let directories = directories.accept_compressed(ZSTD).send_compressed(ZSTD);
    let path_infos = PathInfoServiceServer::new(path_infos::PathInfos { stores })
        .accept_compressed(ZSTD)
        .send_compressed(ZSTD);
    Ok(Routes::new(health_service)
        .add_service(reflection)
        .add_service(blobs)
        .add_service(ranges)
        .add_service(directories)
        .add_service(path_infos))
}

#[cfg(test)]
mod attempt_tests;
#[cfg(test)]
mod compressed_tests;
#[cfg(test)]
mod liar_tests;
#[cfg(test)]
mod range_tests;
#[cfg(test)]
mod tests;
