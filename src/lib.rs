//! lazystore mounts a Nix store that is somewhere else and downloads only what is touched, verified.
//!
//! The rooms of the house, from the pure to the practical: [`castore`] and [`nix`] are types without I/O; [`proto`]
//! carries them over the wire; [`service`] stores them; [`ingest`] and [`render`] turn trees and archives into
//! stored objects and back; [`transfer`] moves store paths, [`audit`] checks them, [`substitute`] reads binary caches;
//! [`vfs`] is the filesystem without a kernel, [`mount`] brings it to one; [`serve`] answers
//! others; [`compose`] builds stacks of services from addresses; [`observe`] tells what happens; [`cli`] is the
//! command line. `docs/architecture.md` shows how they depend on each other, and a test holds them to it.
//!
//! Features leave parts out: `fuse` is [`mount`] with the kernel's device, `virtiofs` the same for guests, `cloud` object
//! stores and Bigtable, `otlp` traces and metrics for a collector. All are on by default; an address or a subcommand that a build lacks says so.

pub mod access;
pub mod audit;
pub mod castore;
pub mod cli;
pub mod compose;
#[cfg(test)]
mod house;
pub mod ingest;
#[cfg(any(feature = "fuse", feature = "virtiofs"))]
pub mod mount;
pub mod nix;
pub mod observe;
pub mod proto;
pub mod render;
pub mod serve;
pub mod service;
pub mod substitute;
pub mod transfer;
pub mod vfs;
