//! What the three gRPC backends share: a channel to one peer, in the dialect that it speaks.
//!
//! A channel connects when it is first used, again whenever it must, and never waits longer than its deadline; see
//! `attempts` for what happens within it. It must be made and used inside a tokio runtime.

mod attempts;
mod call;
mod codec;
mod guard;
pub(crate) mod lending;
pub(crate) mod method;
mod peers;
mod probe;
mod secrets;
mod status;

use std::{fmt, future::Future, path::PathBuf, sync::Arc, time::Duration};

use hyper_util::rt::TokioIo;
use parking_lot::Mutex;
use tokio::net::UnixStream;
use tonic::transport::{Channel, Endpoint};

pub(crate) use call::{Opened, Upload};
pub use method::{Dialect, DialectError};
pub use secrets::{BearerToken, BearerTokenError, ClientTls};
pub use status::to_status;
#[cfg(feature = "cloud")]
pub(crate) use status::{Failure, failure};

use crate::{
    castore::{DIRECTORY_LEN_MAX, Digest, SizeRule},
    observe::event,
    proto::castore as wire,
    service::{Error, Result, blob::LocalBlob},
};
use lending::Borrower;
use method::BLOB_STAT;
use peers::Peers;

/// The longest message that is read, in bytes: a directory of the longest kind, and what goes around it.
pub const MESSAGE_LEN_MAX: usize = DIRECTORY_LEN_MAX + (64 << 10);

/// How much a peer may send on one stream before it is read, in bytes.
const STREAM_WINDOW_BYTES: u32 = 8 << 20;
/// How much a peer may send on all streams of a connection before it is read, in bytes: a second of a fast line that is
/// far away.
const CONNECTION_WINDOW_BYTES: u32 = 32 << 20;
/// The longest frame that a peer may send, in bytes. What is longer is cut, so that others get a turn.
const FRAME_LEN_MAX: u32 = 256 << 10;
/// Of how many streams that were given up a connection knows that what still comes for them is to be passed over. For
/// those it has forgotten, it would complain to the peer, and break after too many complaints.
const GIVEN_UP_STREAMS_MAX: usize = 4096;
/// How long connecting may take.
const CONNECT_TIMEOUT_MAX: Duration = Duration::from_secs(5);
/// How long a connection may be silent before it is tried, and how long it may take to react: at most,
const KEEPALIVE_MAX: Duration = Duration::from_secs(10);
/// and at least, lest a line that is far away seem dead.
const KEEPALIVE_MIN: Duration = Duration::from_millis(500);
/// The longest answer is waited for this long, unless the address says otherwise.
pub const DEADLINE_DEFAULT: Duration = Duration::from_secs(30);
/// How often a call is tried at most, unless the address says otherwise.
pub const ATTEMPTS_DEFAULT: u32 = 4;

/// In this header our server sends the digest of the one message of an answer that no digest of contents covers. It
/// guards against a bad line, not against a bad server.
pub(crate) const ANSWER_DIGEST_HEADER: &str = "lazystore-answer-digest-bin";

/// With this header our server says that an answer has at least one message. Other peers say by an empty stream that
/// there is nothing, and one damaged byte is enough to empty it.
pub(crate) const FOUND_HEADER: &str = "lazystore-found";

/// Where a peer listens.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum GrpcAddress {
    /// `http://host:port` or `https://host:port`; the latter trusts the roots of the system.
    Http(String),
    /// Several of that kind, which have the same store: the next is asked where one fails.
    Several(Vec<String>),
    /// A unix socket.
    Unix(PathBuf),
}

impl fmt::Display for GrpcAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            GrpcAddress::Http(url) => write!(f, "grpc+{url}"),
            GrpcAddress::Several(urls) => {
                let others =
                    urls.iter().skip(1).map(|url| url.split_once("://").map_or("", |u| u.1));
                let first = urls.first().map(String::as_str).into_iter();
                write!(f, "grpc+{}", first.chain(others).collect::<Vec<_>>().join(","))
            }
            GrpcAddress::Unix(path) => write!(f, "grpc+unix://{}", path.display()),
        }
    }
}

/// How to speak with a peer.
#[derive(Debug, Clone)]
pub struct GrpcOptions {
    /// The dialect it speaks. Otherwise that is found out.
    pub dialect: Option<Dialect>,
    /// By which rule it wants the sizes of directories. Otherwise the dialect tells.
    pub size_rule: Option<SizeRule>,
    /// How long a call may take, however often it is tried: to its answer, or to the first message of a stream. A
    /// stream that stands still for as long, in either direction, ends.
    pub deadline: Duration,
    /// How often a call is tried at most; each of several peers is asked once at least.
    pub attempts_max: u32,
    /// Whether messages are compressed by zstd, in both directions. The peer has to know that.
    pub compress: bool,
    /// Whether nobody may be asked: every call is [`Error::Offline`] at once.
    pub offline: bool,
    /// How a peer at `https` is known, and what it is shown.
    pub tls: ClientTls,
    /// What every call shows.
    pub token: Option<BearerToken>,
}

impl Default for GrpcOptions {
    fn default() -> Self {
        GrpcOptions {
            dialect: None,
            size_rule: None,
            deadline: DEADLINE_DEFAULT,
            attempts_max: ATTEMPTS_DEFAULT,
            compress: false,
            offline: false,
            tls: ClientTls::default(),
            token: None,
        }
    }
}

/// A channel to a peer, or to several that have the same store. Cheap to clone.
#[derive(Debug, Clone)]
pub struct GrpcChannel(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    endpoint: Arc<str>,
    options: GrpcOptions,
    /// By which names the peer answered last.
    dialect: Mutex<Option<Dialect>>,
    peers: Peers,
    /// Where files can be borrowed, if that is possible.
    borrower: Option<Borrower>,
}

impl GrpcChannel {
    /// A channel to `address`, which is not connected yet. Fails if the address makes no sense.
    pub fn connect(address: &GrpcAddress, options: GrpcOptions) -> Result<Self> {
        let endpoint: Arc<str> = address.to_string().into();
        Ok(GrpcChannel(Arc::new(Inner {
            peers: Peers::open(address, &options)?,
            endpoint,
            dialect: Mutex::new(options.dialect),
            borrower: match address {
                GrpcAddress::Unix(socket) if !options.offline => {
                    Some(Borrower::new(socket.clone()))
                }
                GrpcAddress::Unix(_) | GrpcAddress::Http(_) | GrpcAddress::Several(_) => None,
            },
            options,
        })))
    }

    /// Begins to connect in the background, for whoever will soon call and should not wait for that. Needs the context
    /// of a tokio runtime.
    pub fn connect_ahead(&self) {
        if !self.0.options.offline {
            let channel = self.clone();
            tokio::spawn(async move { channel.greet(&BLOB_STAT, empty_blob()).await });
        }
    }

    /// The peer, as errors name it.
    pub fn endpoint(&self) -> &Arc<str> {
        &self.0.endpoint
    }

    /// The blob as an open file of the peer, if it is on this machine and lends it.
    pub(crate) async fn borrow(&self, digest: &Digest) -> Option<LocalBlob> {
        self.0.borrower.as_ref()?.borrow(digest).await
    }

    /// Whether the peer is on this machine and lends files.
    pub(crate) async fn lends(&self) -> bool {
        match &self.0.borrower {
            Some(borrower) => borrower.is_lent_to().await,
            None => false,
        }
    }

    /// The outcome of `ask`. Where a peer has sent something wrong, each of the others is asked as well.
    pub(crate) async fn asking_others<T, F: Future<Output = Result<T>>>(
        &self,
        ask: impl Fn() -> F,
    ) -> Result<T> {
        for _ in 1..self.peers() {
            match ask().await {
                Err(error) if self.blames(&error) => {
                    tracing::error!(event = event::CORRUPT, %error, "another is asked")
                }
                outcome => return outcome,
            }
        }
        ask().await
    }

    /// Takes note of what a call ended with. Whether another peer should be asked, as this one has sent something wrong.
    pub(crate) fn blames(&self, error: &Error) -> bool {
        matches!(error, Error::Corrupt { .. }) && self.0.peers.blame()
    }

    /// Takes note that what a peer sent turned out to be wrong.
    pub(crate) fn distrust(&self) {
        self.0.peers.blame();
    }

    /// How many peers there are, each of which may be asked.
    pub(crate) fn peers(&self) -> usize {
        self.0.peers.len()
    }

    /// The dialect the peer speaks. If no call has shown it yet, it is asked for the blob that everybody has.
    pub async fn dialect(&self) -> Result<Dialect> {
        if let Some(dialect) = self.known_dialect() {
            return Ok(dialect);
        }
        // Whatever it says about the blob, it says so by the right name.
        match self.unary::<_, wire::StatBlobResponse>(&BLOB_STAT, empty_blob()).await {
            Ok(_) => {}
            Err(error) if self.known_dialect().is_none() => return Err(error),
            Err(_) => {}
        }
        Ok(self.known_dialect().unwrap_or(Dialect::Tvix))
    }

    fn known_dialect(&self) -> Option<Dialect> {
        *self.0.dialect.lock()
    }

    fn remember_dialect(&self, dialect: Dialect) {
        *self.0.dialect.lock() = Some(dialect);
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
}

fn empty_blob() -> wire::StatBlobRequest {
    let digest = Digest::EMPTY.as_bytes().to_vec().into();
    wire::StatBlobRequest { digest, ..Default::default() }
}

/// A connection to one peer.
fn open(address: &GrpcAddress, options: &GrpcOptions) -> Result<Channel> {
    let endpoint = match address {
        GrpcAddress::Several(_) => return Err(Error::invalid("each peer is opened by itself")),
        GrpcAddress::Http(url) => {
            let endpoint = Endpoint::from_shared(url.clone()).map_err(Error::invalid)?;
            match endpoint.uri().scheme_str() {
                Some("http") => endpoint,
                Some("https") => {
                    endpoint.tls_config(options.tls.config()).map_err(Error::invalid)?
                }
                _ => return Err(Error::invalid(format!("{url} is no http or https address"))),
            }
        }
        // Over a unix socket this is only what the requests call their peer.
        GrpcAddress::Unix(_) => Endpoint::from_static("http://localhost"),
    };
    // A connection that is dead without a word is found out in half of the deadline: there is time for another.
    let keepalive = (options.deadline / 4).clamp(KEEPALIVE_MIN, KEEPALIVE_MAX);
    let endpoint = endpoint
        .connect_timeout((options.deadline / 3).min(CONNECT_TIMEOUT_MAX))
        .tcp_nodelay(true)
        .http2_adaptive_window(false)
        .initial_stream_window_size(STREAM_WINDOW_BYTES)
        .initial_connection_window_size(CONNECTION_WINDOW_BYTES)
        .max_frame_size(FRAME_LEN_MAX)
        // Headers are few and short. Without a table, one that was damaged on the way is not repeated by it.
        .http2_header_table_size(0)
        .http2_max_concurrent_reset_streams(GIVEN_UP_STREAMS_MAX)
        .http2_reset_stream_duration(options.deadline)
        .http2_keep_alive_interval(keepalive)
        .keep_alive_timeout(keepalive)
        .keep_alive_while_idle(true);
    Ok(match address {
        GrpcAddress::Http(_) | GrpcAddress::Several(_) => endpoint.connect_lazy(),
        GrpcAddress::Unix(path) => {
            let path = path.clone();
            endpoint.connect_with_connector_lazy(tower::service_fn(move |_| {
                let path = path.clone();
                async move { UnixStream::connect(path).await.map(TokioIo::new) }
            }))
        }
    })
}
