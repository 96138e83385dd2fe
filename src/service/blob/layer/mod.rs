//! Layers: each wraps a blob service and adds one thing.

mod cache;
mod metrics;
mod verify;

pub use cache::CachedBlobs;
pub use metrics::{BlobCounters, MeasuredBlobs};
pub use verify::VerifiedBlobs;
