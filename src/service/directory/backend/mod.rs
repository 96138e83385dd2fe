//! Backends: where directories are in the end.

#[cfg(feature = "cloud")]
mod bigtable;
#[cfg(feature = "cloud")]
mod bucket;
mod grpc;
mod local;
mod memory;

#[cfg(feature = "cloud")]
pub use bigtable::BigtableDirectories;
#[cfg(feature = "cloud")]
pub use bucket::BucketDirectories;
pub use grpc::GrpcDirectories;
pub use local::LocalDirectories;
pub use memory::MemoryDirectories;
