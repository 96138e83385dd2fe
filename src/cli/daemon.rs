//! `lazystore daemon`.

use std::{
    fs,
    path::{Path, PathBuf},
    sync::Arc,
};

use anyhow::{Context as _, bail};
use arc_swap::ArcSwap;
use clap::Args;
use tokio::runtime::Handle;

use super::{
    GlobalOptions, eyes::EyesOptions, listen, serve::read_tokens, signals::Signals, stack::Stack,
    supervised::ServiceOptions,
};
use crate::{
    observe::Role,
    serve::{
        Listener, Running, Tokens,
        grpc::{self, Access, ServerOptions, ServerTls, TlsFiles},
    },
};

const DEFAULT_LISTEN: &str = "[::1]:8000";

/// Serve the store to others over gRPC, in both dialects.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  lazystore daemon
  lazystore daemon --listen unix:/run/lazystore.sock --listen 127.0.0.1:8000
  lazystore daemon --listen 0.0.0.0:8000 --tls-cert cert.pem --tls-key key.pem --auth-token-file tokens

A socket that systemd passes is used instead of the default.")]
pub(super) struct Daemon {
    /// Where to listen: host:port or unix:/path; may be repeated [default: [::1]:8000]
    #[arg(long, value_name = "ADDR")]
    listen: Vec<String>,

    #[command(flatten)]
    eyes: EyesOptions,

    /// Speak TLS on TCP, with the certificate in this file, in PEM
    #[arg(long, value_name = "FILE", requires = "tls_key")]
    tls_cert: Option<PathBuf>,

    /// The key of the certificate, in PEM
    #[arg(long, value_name = "FILE", requires = "tls_cert")]
    tls_key: Option<PathBuf>,

    /// Take only clients on TCP that have a certificate by one of those in this file, in PEM
    #[arg(long, value_name = "FILE", requires = "tls_cert")]
    tls_client_ca: Option<PathBuf>,

    /// Clients that know a token from this file may read; nobody may write without --auth-token-file, whose clients may
    /// do both. Each has a token on each line
    #[arg(long, value_name = "FILE")]
    read_token_file: Option<PathBuf>,

    /// Listen without TLS where others than this machine can connect
    #[arg(long)]
    insecure: bool,

    #[command(flatten)]
    service: ServiceOptions,
}

impl Daemon {
    pub(super) async fn run(&self, options: &GlobalOptions) -> anyhow::Result<()> {
        let signals = Signals::new()?;
        let listeners = listen::listeners(&self.listen, DEFAULT_LISTEN)?;
        self.check_who_listens(&listeners)?;
        let server = self.server(options)?;
        let eyes = self.eyes.open(Role::Daemon)?;
        let mut stack = Stack::open_without_token(options)?;
        let stores = stack.stores();
        eyes.start(&Handle::current());
        let serve =
            |listener, running| grpc::serve_with(listener, stores.clone(), server.clone(), running);
        let running = Running::new(self.service.drain);
        let reload = || {
            let (next, reopened) = (self.server(options)?, stack.reopen()?);
            // All could be read.
            if let (Some(tls), Some(next)) = (&server.tls, &next.tls) {
                tls.replace(next);
            }
            if let (Some(access), Some(next)) = (&server.access, &next.access) {
                access.store(next.load_full());
            }
            stack.put(reopened);
            Ok(())
        };
        listen::serve_all(listeners, signals, running, serve, reload).await?;
        stores.blobs.sync().await?;
        Ok(())
    }

    /// Nobody may read what passes on a network that is not trusted.
    fn check_who_listens(&self, listeners: &[(String, Listener)]) -> anyhow::Result<()> {
        let open = listeners.iter().find(|(_, listener)| !listener.is_of_this_machine());
        if let (None, false, Some((address, _))) = (&self.tls_cert, self.insecure, open) {
            bail!(
                "others can connect to {address}, and read what passes: give --tls-cert and --tls-key, \
                 or --insecure if the network is trusted"
            );
        }
        Ok(())
    }

    /// How others are kept out, as the files say now.
    fn server(&self, options: &GlobalOptions) -> anyhow::Result<ServerOptions> {
        let tls = match (&self.tls_cert, &self.tls_key) {
            (Some(certificate), Some(key)) => {
                let files = TlsFiles {
                    certificate: read(certificate)?,
                    key: read(key)?,
                    client_roots: self.tls_client_ca.as_deref().map(read).transpose()?,
                };
                let unusable = || format!("cannot use {} for TLS", certificate.display());
                Some(ServerTls::new(&files).with_context(unusable)?)
            }
            _ => None,
        };
        let tokens = |file: &Option<PathBuf>| -> anyhow::Result<Option<Tokens>> {
            file.as_deref().map(read_tokens).transpose()
        };
        let access = Access {
            write: tokens(&options.auth_token_file)?,
            read: tokens(&self.read_token_file)?,
        };
        let is_open = access.write.is_none() && access.read.is_none();
        Ok(ServerOptions {
            tls,
            access: (!is_open).then(|| Arc::new(ArcSwap::from_pointee(access))),
        })
    }
}

fn read(file: &Path) -> anyhow::Result<Vec<u8>> {
    fs::read(file).with_context(|| format!("cannot read {}", file.display()))
}
