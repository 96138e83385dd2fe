//! A second process that cleans up when the first one dies.
//!
//! If the process that serves a mount is killed, the mount stays, and everything below it fails with ENOTCONN until
//! somebody detaches it. So `lazystore mount` starts this beside it. It holds one end of a pipe, wakes when the other
//! end closes for whatever reason, and detaches the mount if it is dead.

use std::{
    io::{self, Read as _},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
};

use anyhow::Context as _;
use clap::Args;

use crate::mount::mountpoint;

/// The name of the hidden subcommand.
pub(super) const COMMAND: &str = "unmount-when-orphaned";

/// Wait until standard input closes, then detach the mount if nobody serves it.
#[derive(Debug, Args)]
pub(super) struct Watchdog {
    mountpoint: PathBuf,
}

impl Watchdog {
    pub(super) fn run(&self) -> anyhow::Result<()> {
        // Ctrl-C is for the process that serves. This one ends when that one has.
        let _ = rustix::process::setsid();
        io::stdin().read_to_end(&mut Vec::new())?;
        mountpoint::detach_stale(&self.mountpoint)?;
        Ok(())
    }
}

/// Starts the second process. It ends by itself once the child's standard input is dropped.
pub(super) fn start(mountpoint: &Path) -> anyhow::Result<Child> {
    let program = std::env::current_exe().context("cannot find this program")?;
    Command::new(program)
        .arg(COMMAND)
        .arg(mountpoint)
        .env_clear()
        .env("PATH", std::env::var_os("PATH").unwrap_or_default())
        .current_dir("/")
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .context("cannot start the process that cleans up after a crash")
}
