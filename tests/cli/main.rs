//! The program from outside: its commands, next to the real Nix, and under fire.

#[path = "../support/real_nix.rs"]
mod real_nix;
#[path = "../support/scrape.rs"]
mod scrape;
#[path = "../support/supervisor.rs"]
mod supervisor;
#[path = "../support/mod.rs"]
mod support;

mod cache;
mod commands;
mod config;
mod crashes;
mod documents;
mod drain;
mod logs;
mod metrics;
mod nix;
mod shells;
mod status;
mod supervised;
