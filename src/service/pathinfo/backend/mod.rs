//! Backends.

mod grpc;

pub use grpc::GrpcPathInfos;
