//! `lazystore daemon`.

use clap::Args;

use super::{
    GlobalOptions,
    listen::{self, Signals},
};
use crate::serve::grpc;

const DEFAULT_LISTEN: &str = "[::1]:8000";

/// Serve the store to others over gRPC, in both dialects.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  lazystore daemon
  lazystore daemon --listen unix:/run/lazystore.sock --listen 127.0.0.1:8000

A socket that systemd passes is used instead of the default.")]
pub(super) struct Daemon {
    /// Where to listen: host:port or unix:/path; may be repeated [default: [::1]:8000]
    #[arg(long, value_name = "ADDR")]
    listen: Vec<String>,
}

impl Daemon {
    pub(super) async fn run(&self, options: &GlobalOptions) -> anyhow::Result<()> {
        let signals = Signals::new()?;
        let stores = options.open()?;
        let listeners = listen::listeners(&self.listen, DEFAULT_LISTEN)?;
        let serve = |listener, stopped| grpc::serve(listener, stores.clone(), stopped);
        listen::serve_all(listeners, signals, serve).await?;
        stores.blobs.sync().await?;
        Ok(())
    }
}
