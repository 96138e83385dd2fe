//! Guests: real ones, and frontends that play one.
#![cfg(feature = "virtiofs")]

#[path = "../support/mod.rs"]
mod support;

mod frontend;
mod hostile;
mod machine;
mod walks;
