//! Guests: real ones, and frontends that play one.

#[path = "../support/mod.rs"]
mod support;

mod frontend;
mod hostile;
mod machine;
mod walks;
