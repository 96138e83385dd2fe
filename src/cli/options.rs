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
    compose::{
        self, ABSENT_TTL_DEFAULT, Addresses, CachePlan, Common, Plan, WHOLE_LEN_MAX_DEFAULT,
        config::{Config, DEFAULT_STORE, Settings},
        size::{parse_cache_size, parse_whole_size},
    },
    observe::log::LogFormat,
    service::{Stores, blob::layer::Verify, local::LocalStore},
};

/// The configuration file that is read if none is named and it is there.
const CONFIG_FILE: &str = "/etc/lazystore/config.toml";

/// Which store, and how to tell what happens.
#[derive(Debug, Args)]
#[command(next_help_heading = "Options of all commands")]
pub struct GlobalOptions {
    /// A file that names sources, caches and stores (docs/configuration.md), or "none" [default:
    /// /etc/lazystore/config.toml if it is there]. Without --store, its [store.default] is opened
    #[arg(long, global = true, env = "LAZYSTORE_CONFIG", value_name = "FILE")]
    config: Option<PathBuf>,

    /// The store: the name of a store or a source in --config; or memory:, local:, local:///abs/dir, grpc+http://host:port[,host:port...], grpc+https://host:port or
    /// grpc+unix:///abs/socket, the last three with ?timeout=SECONDS for how long an answer may take (default 30) and
    /// ?dialect=tvix|snix if that cannot be found out, &token-file=FILE with a token for it, and with https
    /// &ca=FILE for the roots of its certificate, &cert=FILE&key=FILE for one of ours; a bucket,
    /// objectstore+s3://bucket/prefix or gs, az, file, http, https, with ?timeout=SECONDS and the options of its kind,
    /// like &endpoint=URL and &region=NAME; or Nix binary caches, several with spaces between:
    /// nix+https://host/prefix?trusted-public-keys=KEY%20KEY, with &priority=N for which is asked first, &timeout=SECONDS,
    /// &netrc=FILE, &token-file=FILE, &foreign-urls=1 if archives may be elsewhere, &require-sigs=0 to believe anybody
    /// [default: local:, the store in --store-dir]
    #[arg(long, global = true, env = "LAZYSTORE_STORE", value_name = "NAME|ADDR")]
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
    #[arg(long, global = true, env = "LAZYSTORE_CACHE_SIZE", value_name = "SIZE", value_parser = parse_cache_size)]
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
    /// [default: 256K]
    #[arg(long, global = true, value_name = "SIZE", value_parser = parse_whole_size)]
    fetch_whole_up_to: Option<u64>,

    /// For how many seconds a name that a remote store does not have is not asked for again [default: 5]
    #[arg(long, global = true, value_name = "SECONDS", value_parser = seconds)]
    absent_ttl: Option<Duration>,

    /// How much to log: error, warn, info, debug or trace; RUST_LOG wins [default: info for mount and
    /// daemon, else warn]
    #[arg(long, global = true, value_name = "LEVEL")]
    pub(super) log_level: Option<String>,

    /// How to log [default: journal where standard error goes to journald, else text]
    #[arg(long, global = true, value_name = "FORMAT", value_enum)]
    pub(super) log_format: Option<LogFormat>,

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
        Ok(compose::open_plan(&self.plan()?, &self.common()?)?)
    }

    /// As [`GlobalOptions::open`], for whoever adds to the store: only the sources that are written are asked.
    pub(super) fn open_target(&self) -> anyhow::Result<Stores> {
        let plan = self.plan()?;
        plan.check().map_err(|misfit| misfit.error)?;
        Ok(compose::open_plan(&plan.target()?, &self.common()?)?)
    }

    /// Opens another store, with the same options. What comes from far is not kept in the cache, since whoever asks puts it
    /// elsewhere. Needs the context of the runtime.
    pub(super) fn open_other(&self, store: &str) -> anyhow::Result<Stores> {
        let config = self.config()?;
        let mut plan = match &config {
            Some(config) if !store.contains(':') => {
                (*config.store(store, &self.settings())?).clone()
            }
            _ => {
                let addresses = self.addresses(config.as_ref())?;
                let (blobs, directories, path_infos) = Default::default();
                let store = Some(store.to_owned());
                Addresses { store, blobs, directories, path_infos, ..addresses }.plan()?
            }
        };
        if !plan.needs_cache() {
            plan.cache = None;
        }
        Ok(compose::open_plan(&plan, &self.common()?)?)
    }

    /// Opens the directory that the blobs of the store are in, if they are in one.
    pub(super) fn open_local(&self) -> anyhow::Result<Option<Arc<LocalStore>>> {
        Ok(compose::open_local(&self.plan()?, &self.common()?)?)
    }

    /// The configuration file, if there is one.
    pub(super) fn config(&self) -> anyhow::Result<Option<Config>> {
        let file = match &self.config {
            Some(file) if file.as_os_str() == "none" => return Ok(None),
            Some(file) => file,
            None if Path::new(CONFIG_FILE).exists() => Path::new(CONFIG_FILE),
            None => return Ok(None),
        };
        Ok(Some(Config::read(file)?))
    }

    /// The store that the options mean.
    pub(super) fn plan(&self) -> anyhow::Result<Plan> {
        let config = self.config()?;
        let addresses = self.addresses(config.as_ref())?;
        let named = match (&config, self.store.as_deref()) {
            (_, Some(address)) if address.contains(':') => None,
            (Some(config), Some(name)) => Some(config.store(name, &self.settings())?),
            (Some(config), None) if config.names_stores() => {
                Some(config.store(DEFAULT_STORE, &self.settings())?)
            }
            // Without a file, what is no address is told as such.
            (Some(_) | None, _) => None,
        };
        Ok(match named {
            Some(named) => addresses.plan_on(&named)?,
            None => addresses.plan()?,
        })
    }

    /// What the command line says of all stores.
    pub(super) fn settings(&self) -> Settings {
        let is_none = |dir: &PathBuf| dir.as_os_str() == "none";
        Settings {
            cache: self.cache_dir.as_ref().map(|dir| (!is_none(dir)).then(|| dir.clone())),
            cache_default: default_dir("/var/cache", "XDG_CACHE_HOME", ".cache").ok(),
            cache_size_max: self.cache_size,
            is_strict: self.verify == VerifyHow::Strict,
            whole_len_max: self.fetch_whole_up_to,
            absent_ttl: self.absent_ttl,
        }
    }

    /// What all stores share.
    pub(super) fn common(&self) -> anyhow::Result<Common> {
        Ok(Common {
            store_dir: match &self.store_dir {
                Some(dir) => dir.clone(),
                None => default_dir("/var/lib", "XDG_STATE_HOME", ".local/state")
                    .context("--store-dir is needed")?,
            },
            token_file: self.auth_token_file.clone(),
            offline: self.offline,
        })
    }

    fn addresses(&self, config: Option<&Config>) -> anyhow::Result<Addresses> {
        let (common, settings) = (self.common()?, self.settings());
        let cache = match config {
            Some(config) => config.cache(&settings)?,
            None => self
                .cache_dir()
                .ok()
                .map(|dir| Arc::new(CachePlan { dir, size_max: self.cache_size })),
        };
        Ok(Addresses {
            store: self.store.clone(),
            blobs: self.blob_service_addr.clone(),
            directories: self.directory_service_addr.clone(),
            path_infos: self.path_info_service_addr.clone(),
            store_dir: common.store_dir,
            cache_dir: cache.as_ref().map(|cache| cache.dir.clone()),
            cache_size_max: cache.as_ref().and_then(|cache| cache.size_max),
            token_file: common.token_file,
            verify: match self.verify {
                VerifyHow::Source => Verify::Source,
                VerifyHow::Strict => Verify::Strict,
            },
            whole_len_max: self.fetch_whole_up_to.unwrap_or(WHOLE_LEN_MAX_DEFAULT),
            offline: common.offline,
            absent_ttl: self.absent_ttl.unwrap_or(ABSENT_TTL_DEFAULT),
        })
    }

    /// Where the cache of the store is and how much it may take, in bytes; or why there is none.
    pub(super) fn cache(&self) -> anyhow::Result<(PathBuf, u64)> {
        let cache = match self.cache_dir {
            // Whoever names it need not have a store.
            Some(_) => None,
            None => self.config()?.map(|_| self.plan()).transpose()?,
        };
        let (dir, size_max) = match cache {
            Some(plan) => {
                let cache = plan.cache.context("the store has no cache")?;
                (cache.dir.clone(), cache.size_max)
            }
            None => (self.cache_dir()?, self.cache_size),
        };
        let size_max = size_max.map_or_else(|| compose::default_cache_size(&dir), Ok)?;
        Ok((dir, size_max))
    }

    fn cache_dir(&self) -> anyhow::Result<PathBuf> {
        match &self.cache_dir {
            Some(dir) if dir.as_os_str() == "none" => {
                bail!("there is no cache: --cache-dir is none")
            }
            Some(dir) => Ok(dir.clone()),
            None => default_dir("/var/cache", "XDG_CACHE_HOME", ".cache")
                .context("--cache-dir is needed"),
        }
    }
}

/// A time in seconds, with or without a fraction.
pub(super) fn seconds(text: &str) -> Result<Duration, String> {
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
