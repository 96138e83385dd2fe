//! Log lines, on standard error.

use std::io::{self, IsTerminal as _};

use tracing_subscriber::{EnvFilter, fmt, prelude::*};

use super::journal::{self, JournalFormat};

/// How log lines look.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum LogFormat {
    /// For people
    Text,
    /// One JSON object a line
    Json,
    /// For journald: a priority before each line, and no time
    Journal,
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

/// The variable by which users ask for no colours, if it is not empty: <https://no-color.org>.
const NO_COLOR_VARIABLE: &str = "NO_COLOR";

impl LogFormat {
    /// What fits where the lines go.
    pub fn fitting() -> Self {
        match journal::stderr_is_journal() {
            true => LogFormat::Journal,
            false => LogFormat::Text,
        }
    }
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
        LogFormat::Text => {
            fmt::layer().with_writer(io::stderr).with_ansi(is_coloured()).with_target(false).boxed()
        }
        LogFormat::Json => fmt::layer().json().with_writer(io::stderr).boxed(),
        LogFormat::Journal => fmt::layer()
            .with_ansi(false)
            .event_format(JournalFormat::new())
            .with_writer(io::stderr)
            .boxed(),
    };
    // A second call, as tests make it, leaves the first one's in place.
    let _ = tracing_subscriber::registry().with(filter).with(layer).try_init();
    Ok(())
}

/// Whether log lines have colours.
fn is_coloured() -> bool {
    io::stderr().is_terminal() && std::env::var_os(NO_COLOR_VARIABLE).is_none_or(|v| v.is_empty())
}
