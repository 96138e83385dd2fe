//! A store that is far away, behind a network that misbehaves: the real daemon and the real mount, with a proxy between
//! them.

#[path = "../support/faults.rs"]
mod faults;
#[path = "../support/proxy.rs"]
mod proxy;
#[path = "../support/scrape.rs"]
mod scrape;
#[path = "../support/supervisor.rs"]
mod supervisor;
#[path = "../support/mod.rs"]
mod support;

mod access;
mod damage;
mod failover;
mod far;
mod frugal;
mod lent;
mod metrics;
mod range_damage;
mod reload;
mod round_trips;
mod streams;
mod sweep;
mod weather;
