//! What `virtiofs.rs` is in a build without the feature `virtiofs`: the subcommand is known, and refused.

use std::ffi::OsString;

use clap::Args;
use tokio::runtime::Runtime;

use super::{GlobalOptions, Usage};

/// Serve the store to virtual machines over virtiofs (not in this build, which lacks the feature virtiofs)
#[derive(Debug, Args)]
pub(super) struct Virtiofs {
    #[arg(hide = true, trailing_var_arg = true, allow_hyphen_values = true)]
    _arguments: Vec<OsString>,
}

impl Virtiofs {
    pub(super) fn run(self, _: &GlobalOptions, _: &Runtime) -> anyhow::Result<()> {
        Err(Usage(
            "this lazystore was built without the feature \"virtiofs\", which `lazystore virtiofs` needs: \
             build it with --features virtiofs",
        )
        .into())
    }
}
