//! Backends: where blobs are in the end.

mod bucket;
mod grpc;
mod local;
mod memory;

pub use bucket::BucketBlobs;
pub use grpc::GrpcBlobs;
pub use local::LocalBlobs;
pub use memory::MemoryBlobs;
