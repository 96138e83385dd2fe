//! What `mount.rs` is in a build without the feature `fuse`: the subcommand is known, and refused.

use std::ffi::OsString;

use clap::Args;
use tokio::runtime::Runtime;

use super::{GlobalOptions, Usage};

/// Mount the store on a directory (not in this build, which lacks the feature fuse)
#[derive(Debug, Args)]
pub(super) struct Mount {
    #[arg(hide = true, trailing_var_arg = true, allow_hyphen_values = true)]
    _arguments: Vec<OsString>,
}

impl Mount {
    pub(super) fn run(self, _: &GlobalOptions, _: &Runtime) -> anyhow::Result<()> {
        Err(Usage(
            "this lazystore was built without the feature \"fuse\", which `lazystore mount` needs: \
             build it with --features fuse",
        )
        .into())
    }
}
