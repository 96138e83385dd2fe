//! Backends: where path infos are in the end.

mod bigtable;
mod bucket;
mod grpc;
mod local;
mod memory;

pub use bigtable::BigtablePathInfos;
pub use bucket::BucketPathInfos;
pub use grpc::GrpcPathInfos;
pub use local::LocalPathInfos;
pub use memory::MemoryPathInfos;
