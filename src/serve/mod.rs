//! Servers.

pub mod grpc;
pub mod http;
mod listener;
mod tokens;

pub use listener::Listener;
pub use tokens::{Tokens, TokensError};
