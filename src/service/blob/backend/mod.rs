//! Backends: where blobs are in the end.

mod grpc;
mod local;
mod memory;

pub use grpc::GrpcBlobs;
pub use local::LocalBlobs;
pub use memory::MemoryBlobs;
