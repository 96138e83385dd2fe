//! Backends.

mod grpc;

pub use grpc::GrpcBlobs;
