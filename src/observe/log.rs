//! Log lines, on standard error.

use std::io::{self, IsTerminal as _};

use tracing_subscriber::{EnvFilter, fmt, prelude::*};

/// How log lines look.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum LogFormat {
    /// For people.
    Text,
    /// One JSON object a line.
    Json,
}

/// The environment variable that says what to log, in `tracing`'s own syntax.
const FILTER_VARIABLE: &str = "RUST_LOG";

/// Why logging could not be set up.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The level or filter is not understood.
    #[error("cannot understand the log level {filter:?}: {source}")]
    Filter {
        /// What was given.
        filter: String,
        /// Why it is wrong.
        source: tracing_subscriber::filter::ParseError,
    },
}

/// Starts logging. `RUST_LOG` wins over `level`; without both, `default_level` and above are logged.
pub fn init(level: Option<&str>, default_level: &str, format: LogFormat) -> Result<(), Error> {
    let from_environment = std::env::var(FILTER_VARIABLE).ok().filter(|filter| !filter.is_empty());
    let filter = match (from_environment, level) {
        (Some(filter), _) => filter,
        (None, Some(level)) => level.to_owned(),
        (None, None) => default_level.to_owned(),
    };
    let filter = EnvFilter::try_new(&filter).map_err(|source| Error::Filter { filter, source })?;
    let layer = match format {
        LogFormat::Text => fmt::layer()
            .with_writer(io::stderr)
            .with_ansi(io::stderr().is_terminal())
            .with_target(false)
            .boxed(),
        LogFormat::Json => fmt::layer().json().with_writer(io::stderr).boxed(),
    };
    // A second call, as tests make it, leaves the first one's in place.
    let _ = tracing_subscriber::registry().with(filter).with(layer).try_init();
    Ok(())
}
