//! `lazystore serve`.

use std::{
    fs,
    path::{Path, PathBuf},
    sync::Arc,
};

use anyhow::Context as _;
use clap::Args;
use tracing::info;

use super::{
    GlobalOptions,
    listen::{self, Signals},
};
use crate::{
    nix::SecretKey,
    serve::http::{self, BinaryCache, CacheOptions},
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
}

impl Serve {
    pub(super) async fn run(&self, options: &GlobalOptions) -> anyhow::Result<()> {
        let signals = Signals::new()?;
        let keys =
            self.sign_key.iter().map(|file| read_key(file)).collect::<Result<Vec<_>, _>>()?;
        for key in &keys {
            info!(public_key = %key.public(), "signing");
        }
        let stores = options.open()?;
        let cache_options =
            CacheOptions { priority: self.priority, keys, logs: self.log_dir.clone() };
        let cache = Arc::new(BinaryCache::new(stores.clone(), cache_options));
        let listeners = listen::listeners(&self.listen, DEFAULT_LISTEN)?;
        let serve = |listener, stopped| http::serve(listener, cache.clone(), stopped);
        listen::serve_all(listeners, signals, serve).await?;
        stores.blobs.sync().await?;
        Ok(())
    }
}

/// Reads a secret key as Nix writes it.
pub(super) fn read_key(file: &Path) -> anyhow::Result<SecretKey> {
    let text = fs::read_to_string(file)
        .with_context(|| format!("cannot read the key in {}", file.display()))?;
    let key = text.trim().parse::<SecretKey>();
    key.with_context(|| format!("there is no secret key in {}", file.display()))
}
