//! Guests: real ones, and frontends that play one.

#[path = "../support/kernel.rs"]
mod kernel;
#[path = "../support/mod.rs"]
mod support;

mod frontend;
mod hostile;
mod machine;
mod walks;
