//! Backends: where path infos are in the end.

mod bucket;
mod grpc;
mod local;
mod memory;

pub use bucket::BucketPathInfos;
pub use grpc::GrpcPathInfos;
pub use local::LocalPathInfos;
pub use memory::MemoryPathInfos;
