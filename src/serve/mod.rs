//! Servers.

pub mod grpc;
pub mod http;
mod listener;
pub mod metrics;
mod tokens;

pub use listener::Listener;
pub use tokens::{Tokens, TokensError};
