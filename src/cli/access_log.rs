//! `--access-log` of what serves a view.

use std::{path::PathBuf, sync::Arc};

use anyhow::Context as _;
use clap::Args;

use crate::{
    access::AccessLog,
    vfs::{Observer, Visible},
};

/// Who is told what is read.
#[derive(Debug, Args)]
pub(super) struct AccessOptions {
    /// Write what is read, by whom, and how much of it was fetched, to this file; lazystore access-report sums it up. What
    /// the kernel has kept in memory and gives out again is not seen, nor what it reads of files that are passed through
    #[arg(long, value_name = "FILE")]
    access_log: Option<PathBuf>,
}

impl AccessOptions {
    /// Begins the log, if one is wanted. `here` tells whether the readers are processes of this machine.
    pub(super) fn observer(
        &self,
        here: bool,
        visible: &Visible,
    ) -> anyhow::Result<Option<Arc<dyn Observer>>> {
        let Some(path) = &self.access_log else { return Ok(None) };
        let mut inputs: Vec<_> = match visible {
            Visible::Everything => Vec::new(),
            Visible::Only(store_paths) => store_paths.iter().map(ToString::to_string).collect(),
        };
        inputs.sort();
        let log = AccessLog::create(path, here, inputs)
            .with_context(|| format!("cannot write the access log {}", path.display()))?;
        Ok(Some(Arc::new(log)))
    }
}
