//! The NixOS module, evaluated by the real Nix, and its units, read by the real systemd.

#[path = "../support/kernel.rs"]
mod kernel;
#[path = "../support/mod.rs"]
mod support;

mod booted;
mod evaluation;
mod generated;
mod initrd;
mod machines;
mod options;
mod package;
mod refusals;
mod running;
mod units;
