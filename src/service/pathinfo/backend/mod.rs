//! Backends: where path infos are in the end.

mod grpc;
mod local;
mod memory;

pub use grpc::GrpcPathInfos;
pub use local::LocalPathInfos;
pub use memory::MemoryPathInfos;
