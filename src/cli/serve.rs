//! `lazystore serve`.

use std::{
    fs,
    path::{Path, PathBuf},
    sync::Arc,
};

use anyhow::{Context as _, bail};
use arc_swap::ArcSwap;
use clap::Args;
use tokio::runtime::Handle;
use tracing::info;

use super::{
    GlobalOptions, eyes::EyesOptions, listen, signals::Signals, stack::Stack,
    supervised::ServiceOptions,
};
use crate::{
    compose::size::parse_size,
    nix::SecretKey,
    observe::{Role, event},
    serve::{
        Listener, Running, Tokens,
        http::{self, BinaryCache, CacheOptions, UploadOptions},
    },
};

const DEFAULT_LISTEN: &str = "[::1]:8080";

/// Serve the store to Nix, as a binary cache over HTTP.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  lazystore serve --sign-key /etc/nix/cache.sec
  lazystore serve --listen 0.0.0.0:8080 --store grpc+unix:///run/lazystore.sock
  nix copy --from http://localhost:8080 /nix/store/3c3vsw8xbk8ls38vmw8qq1fd61ckdrbq-src

A socket that systemd passes is used instead of the default.")]
pub(super) struct Serve {
    /// Where to listen: host:port or unix:/path; may be repeated [default: [::1]:8080]
    #[arg(long, value_name = "ADDR")]
    listen: Vec<String>,

    #[command(flatten)]
    eyes: EyesOptions,

    /// Which of several caches Nix asks first: that with the lowest number. That of cache.nixos.org is 40
    #[arg(long, value_name = "N", default_value_t = 30)]
    priority: u32,

    /// Sign all that is served with the secret key in this file, as nix-store --generate-binary-cache-key makes it,
    /// beside the signatures that came; may be repeated
    #[arg(long, value_name = "FILE")]
    sign_key: Vec<PathBuf>,

    /// Serve the logs of builds that are in this directory, like /nix/var/log/nix
    #[arg(long, value_name = "DIR")]
    log_dir: Option<PathBuf>,

    /// Let clients bring store paths, as nix copy --to does
    #[arg(long)]
    allow_upload: bool,

    /// Only clients that know a token from this file, which has one on each line, may bring something: as a bearer, or
    /// as the password that stands for this host in their netrc file. Needed where others than this machine can connect
    #[arg(long, value_name = "FILE", requires = "allow_upload")]
    upload_token_file: Option<PathBuf>,

    /// The longest archive that clients may bring, decompressed
    #[arg(long, value_name = "SIZE", default_value = "64G", value_parser = parse_size)]
    upload_size_max: u64,

    #[command(flatten)]
    service: ServiceOptions,
}

impl Serve {
    pub(super) async fn run(&self, options: &GlobalOptions) -> anyhow::Result<()> {
        let signals = Signals::new()?;
        let keys = Arc::new(ArcSwap::from_pointee(self.keys()?));
        let listeners = listen::listeners(&self.listen, DEFAULT_LISTEN)?;
        let uploads = self.uploads(&listeners)?;
        let tokens = uploads.as_ref().and_then(|uploads| uploads.tokens.clone());
        let eyes = self.eyes.open(Role::Serve)?;
        let mut stack = Stack::open(options)?;
        let stores = stack.stores();
        eyes.start(&Handle::current());
        let cache_options = CacheOptions {
            priority: self.priority,
            keys: keys.clone(),
            logs: self.log_dir.clone(),
            uploads,
        };
        let cache = Arc::new(BinaryCache::new(stores.clone(), cache_options));
        let serve = |listener, running| http::serve(listener, cache.clone(), running);
        let running = Running::new(self.service.drain);
        let reload = || {
            let (next_keys, next_tokens) = (self.keys()?, self.tokens()?);
            let reopened = stack.reopen()?;
            // All could be read.
            keys.store(Arc::new(next_keys));
            if let (Some(tokens), Some(next)) = (&tokens, next_tokens) {
                tokens.store(Arc::new(next));
            }
            stack.put(reopened);
            Ok(())
        };
        listen::serve_all(listeners, signals, running, serve, reload).await?;
        stores.blobs.sync().await?;
        Ok(())
    }
}

impl Serve {
    /// The keys by which all is signed.
    fn keys(&self) -> anyhow::Result<Vec<SecretKey>> {
        let keys: Vec<_> =
            self.sign_key.iter().map(|file| read_key(file)).collect::<Result<_, _>>()?;
        for key in &keys {
            info!(event = event::SIGNING, public_key = %key.public(), "signing");
        }
        Ok(keys)
    }

    /// What those know who may bring something.
    fn tokens(&self) -> anyhow::Result<Option<Tokens>> {
        self.upload_token_file.as_deref().map(read_tokens).transpose()
    }

    /// What clients may bring. Anybody may where only this machine can connect, and nobody else.
    fn uploads(&self, listeners: &[(String, Listener)]) -> anyhow::Result<Option<UploadOptions>> {
        if !self.allow_upload {
            return Ok(None);
        }
        let tokens = self.tokens()?.map(|tokens| Arc::new(ArcSwap::from_pointee(tokens)));
        let open = listeners.iter().find(|(_, listener)| !listener.is_of_this_machine());
        if let (None, Some((address, _))) = (&tokens, open) {
            bail!(
                "--allow-upload on {address}, where others can connect, needs --upload-token-file"
            );
        }
        Ok(Some(UploadOptions { tokens, nar_len_max: self.upload_size_max }))
    }
}

/// Reads the tokens that clients have to know.
pub(super) fn read_tokens(file: &Path) -> anyhow::Result<Tokens> {
    let text = fs::read_to_string(file)
        .with_context(|| format!("cannot read the tokens in {}", file.display()))?;
    Tokens::parse(&text).with_context(|| format!("cannot use {}", file.display()))
}

/// Reads a secret key as Nix writes it.
pub(super) fn read_key(file: &Path) -> anyhow::Result<SecretKey> {
    let text = fs::read_to_string(file)
        .with_context(|| format!("cannot read the key in {}", file.display()))?;
    let key = text.trim().parse::<SecretKey>();
    key.with_context(|| format!("there is no secret key in {}", file.display()))
}
