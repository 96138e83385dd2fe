//! What the three gRPC backends share: a channel to one peer, in the dialect that it speaks.
//!
//! A channel connects when it is first used, again whenever it must, and never waits longer than its deadlines. It
//! must be made and used inside a tokio runtime.

mod call;
pub(crate) mod method;
mod status;

use std::{fmt, path::PathBuf, sync::Arc, time::Duration};

use hyper_util::rt::TokioIo;
use tokio::{net::UnixStream, sync::OnceCell};
use tonic::{
    Code,
    transport::{Channel, ClientTlsConfig, Endpoint},
};

pub(crate) use call::{Opened, Upload};
pub use method::{Dialect, DialectError};
pub use status::to_status;

use crate::{
    castore::{DIRECTORY_LEN_MAX, Digest, SizeRule},
    proto::castore as wire,
    service::{Error, Result},
};
use method::{BLOB_STAT, Lane};

/// The longest message that is read, in bytes: a directory of the longest kind, and what goes around it.
pub const MESSAGE_LEN_MAX: usize = DIRECTORY_LEN_MAX + (64 << 10);

/// How much a peer may send on one stream before it is read, in bytes.
const STREAM_WINDOW_BYTES: u32 = 4 << 20;
/// How much a peer may send on all streams of a connection before it is read, in bytes.
const CONNECTION_WINDOW_BYTES: u32 = 16 << 20;
/// How long connecting may take.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// How often a connection that waits for an answer is tried, and how long it may take to react.
const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(20);

/// Where a peer listens.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum GrpcAddress {
    /// `http://host:port` or `https://host:port`; the latter trusts the roots of the system.
    Http(String),
    /// A unix socket.
    Unix(PathBuf),
}

impl fmt::Display for GrpcAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            GrpcAddress::Http(url) => write!(f, "grpc+{url}"),
            GrpcAddress::Unix(path) => write!(f, "grpc+unix://{}", path.display()),
        }
    }
}

/// How to speak with a peer.
#[derive(Debug, Clone)]
pub struct GrpcOptions {
    /// The dialect it speaks. Otherwise it is asked.
    pub dialect: Option<Dialect>,
    /// By which rule it wants the sizes of directories. Otherwise the dialect tells.
    pub size_rule: Option<SizeRule>,
    /// How long an answer may take.
    pub call_timeout: Duration,
    /// How long a stream may stand still, in either direction.
    pub idle_timeout: Duration,
}

impl Default for GrpcOptions {
    fn default() -> Self {
        GrpcOptions {
            dialect: None,
            size_rule: None,
            call_timeout: Duration::from_secs(30),
            idle_timeout: Duration::from_secs(30),
        }
    }
}

/// A channel to one peer. Cheap to clone.
#[derive(Debug, Clone)]
pub struct GrpcChannel(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    endpoint: Arc<str>,
    options: GrpcOptions,
    /// Known once the peer was asked successfully.
    dialect: OnceCell<Dialect>,
    /// Two connections: readers that are slow to take contents close the window of theirs, which must not keep
    /// anybody from looking up a path.
    questions: Channel,
    contents: Channel,
}

impl GrpcChannel {
    /// A channel to `address`, which is not connected yet. Fails if the address makes no sense.
    pub fn connect(address: &GrpcAddress, options: GrpcOptions) -> Result<Self> {
        Ok(GrpcChannel(Arc::new(Inner {
            endpoint: address.to_string().into(),
            dialect: OnceCell::new_with(options.dialect),
            options,
            questions: open(address)?,
            contents: open(address)?,
        })))
    }

    /// The peer, as errors name it.
    pub fn endpoint(&self) -> &Arc<str> {
        &self.0.endpoint
    }

    /// The dialect the peer speaks. It is asked once, in the older dialect, for the blob that everybody has.
    pub async fn dialect(&self) -> Result<Dialect> {
        self.0.dialect.get_or_try_init(|| self.ask_dialect()).await.copied()
    }

    /// The rule by which the peer wants the sizes of directories.
    pub async fn size_rule(&self) -> Result<SizeRule> {
        if let Some(rule) = self.0.options.size_rule {
            return Ok(rule);
        }
        Ok(match self.dialect().await? {
            Dialect::Tvix => SizeRule::Documented,
            Dialect::Snix => SizeRule::Doubled,
        })
    }

    async fn ask_dialect(&self) -> Result<Dialect> {
        let question = wire::StatBlobRequest {
            digest: Digest::EMPTY.as_bytes().to_vec().into(),
            ..Default::default()
        };
        let answer: Result<wire::StatBlobResponse, _> =
            self.unary_in(Dialect::Tvix, &BLOB_STAT, question).await?;
        match answer.map_err(|status| (status.code(), status)) {
            Ok(_) | Err((Code::NotFound | Code::InvalidArgument, _)) => Ok(Dialect::Tvix),
            Err((Code::Unimplemented, _)) => Ok(Dialect::Snix),
            Err((_, status)) => Err(self.error(&BLOB_STAT, status)),
        }
    }

    fn lane(&self, lane: Lane) -> Channel {
        match lane {
            Lane::Questions => self.0.questions.clone(),
            Lane::Contents => self.0.contents.clone(),
        }
    }
}

fn open(address: &GrpcAddress) -> Result<Channel> {
    let endpoint = match address {
        GrpcAddress::Http(url) => {
            let endpoint = Endpoint::from_shared(url.clone()).map_err(Error::invalid)?;
            match endpoint.uri().scheme_str() {
                Some("http") => endpoint,
                Some("https") => endpoint
                    .tls_config(ClientTlsConfig::new().with_native_roots())
                    .map_err(Error::invalid)?,
                _ => return Err(Error::invalid(format!("{url} is no http or https address"))),
            }
        }
        // Over a unix socket this is only what the requests call their peer.
        GrpcAddress::Unix(_) => Endpoint::from_static("http://localhost"),
    };
    let endpoint = endpoint
        .connect_timeout(CONNECT_TIMEOUT)
        .tcp_nodelay(true)
        .http2_adaptive_window(false)
        .initial_stream_window_size(STREAM_WINDOW_BYTES)
        .initial_connection_window_size(CONNECTION_WINDOW_BYTES)
        .http2_keep_alive_interval(KEEPALIVE_INTERVAL)
        .keep_alive_timeout(KEEPALIVE_INTERVAL);
    Ok(match address {
        GrpcAddress::Http(_) => endpoint.connect_lazy(),
        GrpcAddress::Unix(path) => {
            let path = path.clone();
            endpoint.connect_with_connector_lazy(tower::service_fn(move |_| {
                let path = path.clone();
                async move { UnixStream::connect(path).await.map(TokioIo::new) }
            }))
        }
    })
}
