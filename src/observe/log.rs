//! Log lines, on standard error.

use std::{
    fmt::{Debug, Write},
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
        (EVENT_FIELD, _) => return Ok(()),
        // It comes first, and we have written it.
        ("message", _) => return write!(writer, "{value:?}"),
        (name, false) => write!(writer, " {name}=")?,
        (name, true) => write!(writer, " \x1b[3m{name}\x1b[0m\x1b[2m=\x1b[0m")?,
    }
    write!(Harmless { writer, keeps_lines: false }, "{value:?}")
}

/// Writes text of others without what would do something to a terminal, and, unless it `keeps_lines`, in one line, so that
/// it looks like nothing that we have written.
struct Harmless<W> {
    writer: W,
    keeps_lines: bool,
}

impl<W: Write> Write for Harmless<W> {
    fn write_str(&mut self, text: &str) -> std::fmt::Result {
        let is_harmful = |c: char| c.is_control() && !(self.keeps_lines && c == '\n');
        let mut rest = text;
        while let Some(at) = rest.find(is_harmful) {
            let (before, after) = rest.split_at(at);
            self.writer.write_str(before)?;
            let mut after = after.chars();
            after
                .next()
                .into_iter()
                .try_for_each(|c| write!(self.writer, "{}", c.escape_default()))?;
            rest = after.as_str();
        }
        self.writer.write_str(rest)
    }
}

/// A text for people in which others may have had a word, without what would do something to a terminal. Lines stay.
pub fn harmless(text: &str) -> String {
    let mut harmless = String::with_capacity(text.len());
    // Writing to a string cannot fail.
    let _ = Harmless { writer: &mut harmless, keeps_lines: true }.write_str(text);
    harmless
}

/// Whether log lines have colours.
fn is_coloured() -> bool {
    io::stderr().is_terminal() && std::env::var_os(NO_COLOR_VARIABLE).is_none_or(|v| v.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::observe::written::Written;

    #[test]
    fn what_others_say_does_nothing_to_a_terminal_and_looks_like_no_line_of_ours() {
        let written = Written::default();
        let writer = written.clone();
        let layer = fmt::layer().without_time().with_ansi(false).with_target(false);
        let layer =
            layer.fmt_fields(debug_fn(field_for_people)).with_writer(move || writer.clone());
        tracing::subscriber::with_default(tracing_subscriber::registry().with(layer), || {
            let error = "\u{1b}]0;mine\u{7}\u{9b}2J\n INFO forged\rgr\u{fc}n";
            tracing::info!(%error, text = "a\u{1b}", "ours");
        });
        assert_eq!(
            written.text(),
            " INFO ours error=\\u{1b}]0;mine\\u{7}\\u{9b}2J\\n INFO forged\\rgr\u{fc}n text=\"a\\u{1b}\"\n"
        );
    }

    #[test]
    fn lines_stay_in_a_text_for_people() {
        assert_eq!(harmless("a\nb\u{1b}[1mc"), "a\nb\\u{1b}[1mc");
    }
}
