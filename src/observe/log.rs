//! Log lines, on standard error.

use std::{
    fmt::Debug,
    io::{self, IsTerminal as _},
};

use tracing::field::Field;
use tracing_subscriber::{
    EnvFilter,
    fmt::{
        self,
        format::{Writer, debug_fn},
    },
    prelude::*,
};

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

/// The field in which the name of an event stands.
const EVENT_FIELD: &str = "event";

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
            let layer = fmt::layer().with_writer(io::stderr).with_ansi(is_coloured());
            layer.with_target(false).fmt_fields(debug_fn(field_for_people)).boxed()
        }
        LogFormat::Json => fmt::layer().json().with_writer(io::stderr).boxed(),
        LogFormat::Journal => fmt::layer()
            .with_ansi(false)
            .fmt_fields(debug_fn(field_for_people))
            .event_format(JournalFormat::new())
            .with_writer(io::stderr)
            .boxed(),
    };
    // A second call, as tests make it, leaves the first one's in place.
    let _ = tracing_subscriber::registry().with(filter).with(layer).try_init();
    Ok(())
}

/// Writes a field of a line for people: all but the name of the event, which is for programs.
fn field_for_people(writer: &mut Writer<'_>, field: &Field, value: &dyn Debug) -> std::fmt::Result {
    match (field.name(), writer.has_ansi_escapes()) {
        (EVENT_FIELD, _) => Ok(()),
        // It comes first.
        ("message", _) => write!(writer, "{value:?}"),
        (name, false) => write!(writer, " {name}={value:?}"),
        (name, true) => write!(writer, " \x1b[3m{name}\x1b[0m\x1b[2m=\x1b[0m{value:?}"),
    }
}

/// Whether log lines have colours.
fn is_coloured() -> bool {
    io::stderr().is_terminal() && std::env::var_os(NO_COLOR_VARIABLE).is_none_or(|v| v.is_empty())
}
