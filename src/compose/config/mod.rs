//! Configuration files: sources, caches and stores by name. See `docs/configuration.md`.

mod resolve;
mod source;
mod tables;

use std::{
    fs, io,
    ops::Range,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use tables::File;

use super::{
    CachePlan, Plan, SourcePlan,
    plan::{ABSENT_TTL_DEFAULT, WHOLE_LEN_MAX_DEFAULT},
};

/// The longest file that is read, in bytes.
const FILE_LEN_MAX: u64 = 1 << 20;

/// The store that is opened if none is named.
pub const DEFAULT_STORE: &str = "default";

/// A configuration file that was read. What it names is checked when it is resolved.
#[derive(Debug)]
pub struct Config {
    file: PathBuf,
    text: String,
    tables: File,
}

/// What a command line says of all stores, and what stands where nobody says anything.
#[derive(Debug, Clone)]
pub struct Settings {
    /// The cache that a command line names, if it does: inside, `None` for no cache.
    pub cache: Option<Option<PathBuf>>,
    /// The cache of those stores for which nobody names one.
    pub cache_default: Option<PathBuf>,
    /// How much a cache may take that the command line names, or for which the file gives no size; in bytes.
    pub cache_size_max: Option<u64>,
    /// Whether nothing is believed of any source without proof.
    pub is_strict: bool,
    /// Up to how many bytes a blob is fetched whole, if the command line says so.
    pub whole_len_max: Option<u64>,
    /// For how long it is remembered that something is absent, if the command line says so.
    pub absent_ttl: Option<Duration>,
}

/// What is wrong with a configuration file.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// It cannot be read.
    #[error("cannot read {}: {source}", file.display())]
    Read {
        /// Which file.
        file: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// It is too long.
    #[error("{} is longer than {FILE_LEN_MAX} bytes, so it is something else", .0.display())]
    TooLong(PathBuf),
    /// Something in it.
    #[error("{}:{line}:{column}: {message}", file.display())]
    At {
        /// Which file.
        file: PathBuf,
        /// The line, counted from 1.
        line: usize,
        /// The character of the line, counted from 1.
        column: usize,
        /// What is wrong there, and what to do.
        message: String,
    },
    /// A store that it does not name.
    #[error("{} has no [store.{name}]{hint}", file.display())]
    NoStore {
        /// Which file.
        file: PathBuf,
        /// The name that was asked for.
        name: String,
        /// Which there are.
        hint: String,
    },
}

impl Config {
    /// Reads a file.
    pub fn read(file: &Path) -> Result<Self, ConfigError> {
        let failed = |source| ConfigError::Read { file: file.to_owned(), source };
        let metadata = fs::metadata(file).map_err(failed)?;
        if metadata.len() > FILE_LEN_MAX {
            return Err(ConfigError::TooLong(file.to_owned()));
        }
        Self::parse(file, fs::read_to_string(file).map_err(failed)?)
    }

    /// Takes the text of a file, which errors call `file`.
    pub fn parse(file: &Path, text: String) -> Result<Self, ConfigError> {
        match toml::from_str(&text) {
            Ok(tables) => Ok(Config { file: file.to_owned(), text, tables }),
            Err(error) => {
                let span = error.span().unwrap_or(0..0);
                Err(at(file, &text, &span, error.message().to_owned()))
            }
        }
    }

    /// Where it came from.
    pub fn file(&self) -> &Path {
        &self.file
    }

    /// Whether it names anything that could be opened.
    pub fn names_stores(&self) -> bool {
        !self.tables.store.is_empty() || !self.tables.source.is_empty()
    }

    /// All stores that it names, each resolved, in the order of their names. What is named but not used is checked as well.
    pub fn all(&self, settings: &Settings) -> Result<Vec<Arc<Plan>>, ConfigError> {
        resolve::all(self, settings)
    }

    /// The store of this name, or what a source of this name has as a store of its own.
    pub fn store(&self, name: &str, settings: &Settings) -> Result<Arc<Plan>, ConfigError> {
        resolve::store(self, settings, name)
    }

    /// Its sources, in the order of their names.
    pub fn sources(&self, settings: &Settings) -> Result<Vec<Arc<SourcePlan>>, ConfigError> {
        self.tables.source.keys().map(|name| source::source(self, settings, name)).collect()
    }

    /// The cache for a store that the file does not name: that of the command line, or the only one of the file, or the
    /// usual one.
    pub fn cache(&self, settings: &Settings) -> Result<Option<Arc<CachePlan>>, ConfigError> {
        if settings.cache.is_none() && self.tables.cache.len() > 1 {
            let plan = |dir| Arc::new(CachePlan { dir, size_max: settings.cache_size_max });
            return Ok(settings.cache_default.clone().map(plan));
        }
        resolve::cache(self, settings, None, None)
    }

    fn at(&self, span: &Range<usize>, message: impl Into<String>) -> ConfigError {
        at(&self.file, &self.text, span, message.into())
    }
}

fn at(file: &Path, text: &str, span: &Range<usize>, message: String) -> ConfigError {
    let before = text.get(..span.start).unwrap_or(text);
    let line_start = before.rfind('\n').map_or(0, |newline| newline + 1);
    ConfigError::At {
        file: file.to_owned(),
        line: before.matches('\n').count() + 1,
        column: before[line_start..].chars().count() + 1,
        message,
    }
}

#[cfg(test)]
mod tests;
