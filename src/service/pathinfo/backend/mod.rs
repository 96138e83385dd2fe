//! Backends: where path infos are in the end.

#[cfg(feature = "cloud")]
mod bigtable;
#[cfg(feature = "cloud")]
mod bucket;
mod grpc;
mod local;
mod memory;

#[cfg(feature = "cloud")]
pub use bigtable::BigtablePathInfos;
#[cfg(feature = "cloud")]
pub use bucket::BucketPathInfos;
pub use grpc::GrpcPathInfos;
pub use local::LocalPathInfos;
pub use memory::MemoryPathInfos;
