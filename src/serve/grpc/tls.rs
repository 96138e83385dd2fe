//! TLS, with certificates that can be replaced while connections go on.
//!
//! tonic can do the handshake too, but keeps the certificate that it began with.

use std::{fmt, io, sync::Arc, time::Duration};

use arc_swap::ArcSwap;
use futures::{Stream, StreamExt as _, future::ready};
use rustls::{
    RootCertStore, ServerConfig,
    crypto::ring,
    pki_types::{CertificateDer, PrivateKeyDer, pem, pem::PemObject as _},
    server::{VerifierBuilderError, WebPkiClientVerifier},
};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    time::timeout,
};
use tokio_rustls::{TlsAcceptor, server::TlsStream};

/// How long a client may take to agree on encryption.
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(10);

/// How many clients may be about to do that before others are looked at.
const HANDSHAKES_MAX: usize = 1024;

/// What is spoken on a connection that is agreed on.
const PROTOCOL: &[u8] = b"h2";

/// The certificate of a server, and whose clients it takes. All in PEM.
#[derive(Clone)]
pub struct TlsFiles {
    /// The certificate, and those between it and its root.
    pub certificate: Vec<u8>,
    /// Its key.
    pub key: Vec<u8>,
    /// Only clients with a certificate by one of these are taken.
    pub client_roots: Option<Vec<u8>>,
}

/// Why no TLS can be spoken.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// What should be certificates is something else, or nothing.
    #[error("there is no certificate in {what}: {source}")]
    Certificates {
        /// Which certificates.
        what: &'static str,
        /// Why not.
        source: pem::Error,
    },
    /// What should be a key is something else.
    #[error("there is no key for the certificate: {0}")]
    Key(#[source] pem::Error),
    /// They do not belong together, or are of a kind that is not known.
    #[error("the certificate and the key cannot be used together: {0}")]
    Identity(#[source] rustls::Error),
    /// Certificates that no clients can have certificates by.
    #[error("clients cannot be checked: {0}")]
    Clients(#[source] VerifierBuilderError),
}

/// TLS as a server speaks it. Clones are the same.
#[derive(Clone)]
pub struct ServerTls(Arc<ArcSwap<ServerConfig>>);

impl fmt::Debug for TlsFiles {
    /// Without the key.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let checks_clients = self.client_roots.is_some();
        f.debug_struct("TlsFiles").field("checks_clients", &checks_clients).finish_non_exhaustive()
    }
}

impl fmt::Debug for ServerTls {
    /// Without the key.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ServerTls").finish_non_exhaustive()
    }
}

impl TlsFiles {
    fn config(&self) -> Result<ServerConfig, TlsError> {
        let provider = Arc::new(ring::default_provider());
        let builder = ServerConfig::builder_with_provider(provider.clone())
            .with_safe_default_protocol_versions()
            .expect("the provider has what the versions need");
        let builder = match &self.client_roots {
            Some(pem) => {
                let what = "the file of those who vouch for clients";
                let mut roots = RootCertStore::empty();
                for root in certificates(pem, what)? {
                    roots.add(root).map_err(TlsError::Identity)?;
                }
                let verifier =
                    WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider);
                builder.with_client_cert_verifier(verifier.build().map_err(TlsError::Clients)?)
            }
            None => builder.with_no_client_auth(),
        };
        let chain = certificates(&self.certificate, "the file of the certificate")?;
        let key = PrivateKeyDer::from_pem_slice(&self.key).map_err(TlsError::Key)?;
        let mut config = builder.with_single_cert(chain, key).map_err(TlsError::Identity)?;
        config.alpn_protocols = vec![PROTOCOL.to_vec()];
        Ok(config)
    }
}

fn certificates(pem: &[u8], what: &'static str) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let all = CertificateDer::pem_slice_iter(pem).collect::<Result<Vec<_>, _>>();
    match all {
        Ok(all) if all.is_empty() => {
            Err(TlsError::Certificates { what, source: pem::Error::NoItemsFound })
        }
        Ok(all) => Ok(all),
        Err(source) => Err(TlsError::Certificates { what, source }),
    }
}

impl ServerTls {
    /// With these files.
    pub fn new(files: &TlsFiles) -> Result<Self, TlsError> {
        Ok(ServerTls(Arc::new(ArcSwap::from_pointee(files.config()?))))
    }

    /// From now on as `other`: for connections that are yet to come.
    pub fn replace(&self, other: &ServerTls) {
        self.0.store(other.0.load_full());
    }

    /// Agrees on encryption with whoever connects. Those with whom that fails are let go of.
    pub(super) fn accept<S>(
        self,
        incoming: impl Stream<Item = io::Result<S>>,
    ) -> impl Stream<Item = io::Result<TlsStream<S>>>
    where
        S: AsyncRead + AsyncWrite + Unpin,
    {
        incoming
            .map(move |socket| {
                let acceptor = TlsAcceptor::from(self.0.load_full());
                async move {
                    let socket = match socket {
                        Ok(socket) => socket,
                        Err(error) => return Some(Err(error)),
                    };
                    match timeout(HANDSHAKE_TIMEOUT, acceptor.accept(socket)).await {
                        Ok(Ok(stream)) => Some(Ok(stream)),
                        Ok(Err(error)) => {
                            tracing::debug!(%error, "a client did not agree on encryption");
                            None
                        }
                        Err(_) => None,
                    }
                }
            })
            .buffer_unordered(HANDSHAKES_MAX)
            .filter_map(ready)
    }
}
