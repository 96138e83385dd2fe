//! Backends.

mod grpc;

pub use grpc::GrpcDirectories;
