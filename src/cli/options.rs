//! Options that every command has.

use std::{
    env,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use anyhow::{Context as _, bail};
use clap::{Args, ValueEnum};

use crate::{
    compose::{self, Address, Addresses},
    observe::log::LogFormat,
    service::{
        Stores,
        blob::{SMALL_BLOB_LEN_MAX, layer::Verify},
        local::LocalStore,
    },
};

/// Which store, and how to tell what happens.
#[derive(Debug, Args)]
#[command(next_help_heading = "Options of all commands")]
pub struct GlobalOptions {
    /// The store: memory:, local:, local:///abs/dir, grpc+http://host:port[,host:port...], grpc+https://host:port or
    /// grpc+unix:///abs/socket, the last three with ?timeout=SECONDS for how long an answer may take (default 30) and
    /// ?dialect=tvix|snix if that cannot be found out, &token-file=FILE with a token for it, and with https
    /// &ca=FILE for the roots of its certificate, &cert=FILE&key=FILE for one of ours; a bucket,
    /// objectstore+s3://bucket/prefix or gs, az, file, http, https, with ?timeout=SECONDS and the options of its kind,
    /// like &endpoint=URL and &region=NAME; or Nix binary caches, several with spaces between:
    /// nix+https://host/prefix?trusted-public-keys=KEY%20KEY, with &priority=N for which is asked first, &timeout=SECONDS,
    /// &netrc=FILE, &token-file=FILE, &foreign-urls=1 if archives may be elsewhere, &require-sigs=0 to believe anybody
    /// [default: local:, the store in --store-dir]
    #[arg(long, global = true, env = "LAZYSTORE_STORE", value_name = "ADDR")]
    store: Option<String>,

    /// Where blobs come from and go to, if not to --store
    #[arg(long, global = true, env = "BLOB_SERVICE_ADDR", value_name = "ADDR")]
    blob_service_addr: Option<String>,

    /// Where directories come from and go to, if not to --store
    #[arg(long, global = true, env = "DIRECTORY_SERVICE_ADDR", value_name = "ADDR")]
    directory_service_addr: Option<String>,

    /// Where path infos come from and go to, if not to --store
    #[arg(long, global = true, env = "PATH_INFO_SERVICE_ADDR", value_name = "ADDR")]
    path_info_service_addr: Option<String>,

    /// The directory of the store that local: means [default: /var/lib/lazystore for root, else
    /// $XDG_STATE_HOME/lazystore]
    #[arg(long, global = true, env = "LAZYSTORE_DIR", value_name = "DIR")]
    store_dir: Option<PathBuf>,

    /// Where what comes from a remote store is kept, or "none" [default: /var/cache/lazystore for root, else
    /// $XDG_CACHE_HOME/lazystore]
    #[arg(long, global = true, env = "LAZYSTORE_CACHE_DIR", value_name = "DIR")]
    cache_dir: Option<PathBuf>,

    /// How much the cache may take of the disk: bytes, or 500M, 64GiB, ... [default: a tenth of the disk, at
    /// least 1 GiB]
    #[arg(long, global = true, env = "LAZYSTORE_CACHE_SIZE", value_name = "SIZE", value_parser = cache_size)]
    cache_size: Option<u64>,

    /// A file with a token, which daemons are shown; token-file=FILE in an address wins. For lazystore daemon itself: the
    /// tokens, one on each line, of which its clients have to know one
    #[arg(long, global = true, env = "LAZYSTORE_AUTH_TOKEN_FILE", value_name = "FILE")]
    pub(super) auth_token_file: Option<PathBuf>,

    /// Ask nothing that is remote: what is in the cache is there, anything else fails at once
    #[arg(long, global = true, env = "LAZYSTORE_OFFLINE")]
    offline: bool,

    /// What is believed of a remote store that proves nothing of a part of a file: its list of the parts, as long as
    /// store paths come from the same one ("source"), or nothing before the whole file is checked ("strict")
    #[arg(long, global = true, value_name = "HOW", value_enum, default_value_t = VerifyHow::Source)]
    verify: VerifyHow,

    /// Up to this size, at most 1M, a file of a remote store is fetched whole, in one request; longer ones in parts
    #[arg(long, global = true, value_name = "SIZE", default_value = "256K", value_parser = whole_size)]
    fetch_whole_up_to: u64,

    /// For how many seconds a name that a remote store does not have is not asked for again
    #[arg(long, global = true, value_name = "SECONDS", default_value = "5", value_parser = seconds)]
    absent_ttl: Duration,

    /// How much to log: error, warn, info, debug or trace; RUST_LOG wins [default: info for mount and
    /// daemon, else warn]
    #[arg(long, global = true, value_name = "LEVEL")]
    pub(super) log_level: Option<String>,

    /// How to log
    #[arg(long, global = true, value_enum, default_value_t = LogFormat::Text)]
    pub(super) log_format: LogFormat,

    /// Whether long work shows its progress
    #[arg(long, global = true, value_enum, default_value_t = ProgressWhen::Auto)]
    pub(super) progress: ProgressWhen,
}

/// What is believed without proof.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum VerifyHow {
    /// Lists of chunks, if they come from where path infos come from.
    Source,
    /// Nothing.
    Strict,
}

/// When progress is shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum ProgressWhen {
    /// On a terminal.
    Auto,
    /// Never.
    Never,
}

impl GlobalOptions {
    /// Opens the store. What is remote is not waited for. Needs the context of the runtime.
    pub(super) fn open(&self) -> anyhow::Result<Stores> {
        Ok(compose::open(&self.addresses()?)?)
    }

    /// Opens the store for a daemon, whose tokens are those of its clients.
    pub(super) fn open_without_token(&self) -> anyhow::Result<Stores> {
        Ok(compose::open(&Addresses { token_file: None, ..self.addresses()? })?)
    }

    /// Opens another store, with the same options. What comes from a daemon or a bucket is not kept in the cache, since
    /// whoever asks puts it elsewhere. Needs the context of the runtime.
    pub(super) fn open_other(&self, address: &str) -> anyhow::Result<Stores> {
        let mut addresses = self.addresses()?;
        if matches!(address.parse::<Address>()?, Address::Grpc { .. } | Address::Bucket(_)) {
            addresses.cache_dir = None;
        }
        (addresses.blobs, addresses.directories, addresses.path_infos) = (None, None, None);
        addresses.store = Some(address.to_owned());
        Ok(compose::open(&addresses)?)
    }

    /// Opens the directory that the blobs of the store are in, if they are in one.
    pub(super) fn open_local(&self) -> anyhow::Result<Option<Arc<LocalStore>>> {
        let addresses = self.addresses()?;
        Ok(compose::open_local(&addresses.plan()?, &addresses.common())?)
    }

    fn addresses(&self) -> anyhow::Result<Addresses> {
        Ok(Addresses {
            store: self.store.clone(),
            blobs: self.blob_service_addr.clone(),
            directories: self.directory_service_addr.clone(),
            path_infos: self.path_info_service_addr.clone(),
            store_dir: match &self.store_dir {
                Some(dir) => dir.clone(),
                None => default_dir("/var/lib", "XDG_STATE_HOME", ".local/state")
                    .context("--store-dir is needed")?,
            },
            cache_dir: self.cache_dir().ok(),
            token_file: self.auth_token_file.clone(),
            cache_size_max: self.cache_size,
            verify: match self.verify {
                VerifyHow::Source => Verify::Source,
                VerifyHow::Strict => Verify::Strict,
            },
            whole_len_max: self.fetch_whole_up_to,
            offline: self.offline,
            absent_ttl: self.absent_ttl,
        })
    }

    /// Where the cache is, or why there is none.
    pub(super) fn cache_dir(&self) -> anyhow::Result<PathBuf> {
        match &self.cache_dir {
            Some(dir) if dir.as_os_str() == "none" => {
                bail!("there is no cache: --cache-dir is none")
            }
            Some(dir) => Ok(dir.clone()),
            None => default_dir("/var/cache", "XDG_CACHE_HOME", ".cache")
                .context("--cache-dir is needed"),
        }
    }

    /// How much the cache in `dir` may take, in bytes.
    pub(super) fn cache_size(&self, dir: &Path) -> anyhow::Result<u64> {
        match self.cache_size {
            Some(size) => Ok(size),
            None => Ok(compose::default_cache_size(dir)?),
        }
    }
}

/// A smaller cache would hold hardly more than its own database.
const CACHE_SIZE_MIN: u64 = 16 << 20;

fn cache_size(text: &str) -> Result<u64, String> {
    match size(text)? {
        bytes if bytes < CACHE_SIZE_MIN => Err("a cache needs 16 MiB at least".to_owned()),
        bytes => Ok(bytes),
    }
}

fn whole_size(text: &str) -> Result<u64, String> {
    match size(text)? {
        bytes if bytes > SMALL_BLOB_LEN_MAX as u64 => Err("at most 1M fits one request".to_owned()),
        bytes => Ok(bytes),
    }
}

/// A number of bytes: digits, then nothing or one of the units of 1024, as in `64M`, `64MB` or `64MiB`.
pub(super) fn size(text: &str) -> Result<u64, String> {
    const UNITS: &str = "KMGT";
    let split = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let (digits, unit) = text.split_at(split);
    let mut rest = unit.trim_start().chars();
    let shift = match rest.next() {
        None => Some(0),
        Some(first) => {
            let place = UNITS.find(first.to_ascii_uppercase());
            place
                .map(|place| 10 * (place as u32 + 1))
                .filter(|_| matches!(rest.as_str(), "" | "B" | "iB"))
        }
    };
    let bytes = digits.parse::<u64>().ok().zip(shift);
    bytes.and_then(|(number, shift)| number.checked_mul(1 << shift)).ok_or_else(|| {
        "expected a number of bytes, or one with K, M, G or T, like 64GiB".to_owned()
    })
}

/// A time in seconds, with or without a fraction.
fn seconds(text: &str) -> Result<Duration, String> {
    let seconds = text.parse::<f64>().map_err(|error| error.to_string())?;
    Duration::try_from_secs_f64(seconds).map_err(|error| error.to_string())
}

/// `<system>/lazystore` for root, else `$<variable>/lazystore`, else `$HOME/<fallback>/lazystore`.
fn default_dir(system: &str, variable: &str, fallback: &str) -> anyhow::Result<PathBuf> {
    let base = if rustix::process::geteuid().is_root() {
        PathBuf::from(system)
    } else if let Some(dir) = env::var_os(variable).filter(|dir| !dir.is_empty()) {
        PathBuf::from(dir)
    } else {
        let home = env::var_os("HOME").filter(|home| !home.is_empty());
        PathBuf::from(home.context("neither HOME nor the XDG directories are set")?).join(fallback)
    };
    Ok(base.join("lazystore"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_understood() {
        for (text, bytes) in [
            ("16777216", 16 << 20),
            ("16M", 16 << 20),
            ("16 MiB", 16 << 20),
            ("3g", 3 << 30),
            ("2TB", 2 << 40),
            ("20000KiB", 20_000 << 10),
        ] {
            assert_eq!(cache_size(text), Ok(bytes), "{text}");
        }
        for text in ["", "M", "-1", "1.5G", "16Mib", "16MiBs", "16X", "99999999T", "16\u{b5}"] {
            let error = cache_size(text).expect_err(text);
            assert!(error.contains("expected a number"), "{text}: {error}");
        }
        assert!(cache_size("15M").expect_err("small").contains("16 MiB"));
        assert_eq!((whole_size("0"), whole_size("1M")), (Ok(0), Ok(1 << 20)));
        assert!(whole_size("1025K").expect_err("long").contains("at most 1M"));
    }
}
