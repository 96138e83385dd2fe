//! Backends: where directories are in the end.

mod bigtable;
mod bucket;
mod grpc;
mod local;
mod memory;

pub use bigtable::BigtableDirectories;
pub use bucket::BucketDirectories;
pub use grpc::GrpcDirectories;
pub use local::LocalDirectories;
pub use memory::MemoryDirectories;
