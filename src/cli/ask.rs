//! Asks a mount whether it lives, by a process of its own.
//!
//! The process that serves a mount must not ask it anything through the kernel: see [`Probe`]. A child may. Once nobody
//! serves the mount any more the kernel takes the question back, and the child ends.

use std::{
    path::PathBuf,
    process::{Command, Stdio},
};

use clap::Args;
use tracing::debug;

use crate::mount::mountpoint::Probe;

/// The name of the hidden subcommand.
pub(super) const COMMAND: &str = "ask-mount";

/// Also where the program was replaced or deleted since it started.
const THIS_PROGRAM: &str = "/proc/self/exe";

/// Ask the mount with this device number, and end once it has answered.
#[derive(Debug, Args)]
pub(super) struct Ask {
    mountpoint: PathBuf,
    device: u64,
}

impl Ask {
    pub(super) fn run(&self) -> anyhow::Result<()> {
        Ok(Probe::new(self.mountpoint.clone(), self.device).ask()?)
    }
}

/// Whether the mount answers a child. Where none can be started, which says nothing against the mount, it is taken to.
/// Does not return while nobody serves the mount.
pub(super) fn answers(probe: &Probe) -> bool {
    let mut command = Command::new(THIS_PROGRAM);
    command.arg(COMMAND).arg(probe.path()).arg(probe.device().to_string());
    command.env_clear().current_dir("/");
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    match command.status() {
        Ok(status) => status.success(),
        Err(error) => {
            debug!(%error, "the mount cannot be asked whether it lives");
            true
        }
    }
}
