//! Backends: where blobs are in the end.

#[cfg(feature = "cloud")]
mod bucket;
mod grpc;
mod local;
mod memory;

#[cfg(feature = "cloud")]
pub use bucket::BucketBlobs;
pub use grpc::GrpcBlobs;
pub use local::LocalBlobs;
pub use memory::MemoryBlobs;
