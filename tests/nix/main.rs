//! Archives and binary caches, beside the real Nix.

#[path = "../support/real_nix.rs"]
mod real_nix;
#[path = "../support/mod.rs"]
mod support;

mod archives;
mod closure;
mod copy;
mod http;
mod proof;
mod routes;
mod seeds;
mod serving;
