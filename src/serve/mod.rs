//! Servers.

pub mod grpc;
pub mod http;
mod listener;
pub mod metrics;
mod running;
mod socket_file;
mod tokens;

pub use listener::Listener;
pub use running::{DRAIN_DEFAULT, Running};
pub use socket_file::SocketFile;
pub use tokens::{Tokens, TokensError};
