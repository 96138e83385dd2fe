//! Archives and binary caches, beside the real Nix.

#[path = "../support/http.rs"]
mod http;
#[path = "../support/real_nix.rs"]
mod real_nix;
#[path = "../support/mod.rs"]
mod support;

#[path = "../support/made_cache.rs"]
mod made_cache;
#[allow(dead_code)] // The proxy can do more than is needed here.
#[path = "../support/proxy.rs"]
mod proxy;
#[path = "../support/web.rs"]
mod web;

mod archives;
mod caches;
mod closure;
mod copy;
mod evicted;
mod in_front;
mod interrupted;
mod proof;
mod refusing;
mod routes;
mod seeds;
mod serving;
mod tampered;
mod tampered_uploads;
mod tls;
mod told;
mod uploading;
mod weather;
