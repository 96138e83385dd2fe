//! Backends: where directories are in the end.

mod grpc;
mod local;
mod memory;

pub use grpc::GrpcDirectories;
pub use local::LocalDirectories;
pub use memory::MemoryDirectories;
