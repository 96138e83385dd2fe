//! Servers.

pub mod grpc;
