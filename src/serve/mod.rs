//! Servers.

pub mod grpc;
pub mod http;
mod listener;

pub use listener::Listener;
