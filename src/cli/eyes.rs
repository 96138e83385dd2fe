//! How those who run a command see what it does.

use std::time::Duration;

use anyhow::Context as _;
use clap::Args;
use tokio::runtime::Handle;
use tracing::{error, info};

use super::{listen, otlp::Otlp};
use crate::{
    observe::{self, Role, event, slow, timing},
    serve::{Listener, Running, metrics},
};

/// What takes so long is slow, if nothing else is said.
const SLOW_DEFAULT: &str = "1";

/// Options of the commands that run on.
#[derive(Debug, Args)]
#[command(next_help_heading = "Options for those who run it")]
pub(super) struct EyesOptions {
    /// Tell numbers for Prometheus at http://ADDR/metrics (docs/metrics.md): host:port or unix:/path; may be repeated. Who
    /// can connect there sees how much is read, and the addresses of far stores, but no store path
    #[arg(long, value_name = "ADDR", env = "LAZYSTORE_METRICS", value_delimiter = ',')]
    metrics: Vec<String>,

    /// Log operations that take so many seconds or longer, with where the time went; 0 for none
    #[arg(long, value_name = "SECONDS", default_value = SLOW_DEFAULT, env = "LAZYSTORE_SLOW_LOG",
          value_parser = super::options::seconds)]
    slow_log: Duration,

    /// Send traces and metrics to the OpenTelemetry collector at this address, http(s)://host:port, by OTLP over gRPC
    /// (docs/tracing.md) [env: OTEL_EXPORTER_OTLP_ENDPOINT, and the other standard variables]
    #[arg(long, value_name = "URL")]
    otlp_endpoint: Option<String>,
}

/// Where numbers and spans go, bound but not begun yet.
pub(super) struct Eyes {
    listeners: Vec<(String, Listener)>,
    otlp: Otlp,
    role: Role,
}

impl EyesOptions {
    /// Begins to count, and binds the addresses: before anything else, so that what is wrong with them is told first.
    pub(super) fn open(&self, role: Role) -> anyhow::Result<Eyes> {
        observe::begin(role);
        slow::set_bound(self.slow_log);
        let otlp = Otlp::new(self.otlp_endpoint.as_deref())?;
        if !self.slow_log.is_zero() {
            timing::switch_on_for(self.slow_log);
        }
        // The variable may be set to nothing.
        let addresses = self.metrics.iter().filter(|address| !address.is_empty());
        let bound = addresses.map(|address| listen::bind(address)).collect::<Result<Vec<_>, _>>();
        let listeners =
            bound.context("cannot tell metrics: choose another address for --metrics")?;
        if !listeners.is_empty() || otlp.is_wanted() {
            timing::switch_on();
        }
        Ok(Eyes { listeners, otlp, role })
    }
}

impl Eyes {
    /// Tells from now on, for as long as the process lives.
    pub(super) fn start(self, runtime: &Handle) {
        let _context = runtime.enter();
        // Nobody should lack a store because a collector cannot be reached.
        if let Err(error) = self.otlp.begin(self.role) {
            error!(event = event::OTLP_FAILED, %error, "sends neither traces nor metrics");
        }
        for (address, listener) in self.listeners {
            info!(event = event::METRICS, %address, "telling metrics");
            runtime.spawn(async move {
                if let Err(error) = metrics::serve(listener, Running::new(Duration::ZERO)).await {
                    error!(
                        event = event::METRICS_ENDED,
                        %address,
                        %error,
                        "tells no metrics any more"
                    );
                }
            });
        }
    }
}
