//! Layers: each wraps a blob service and adds one thing.

mod lazy;
mod metrics;
mod routed;
mod verify;

pub use lazy::{LazyBlobs, LazyOptions, Verify, WHOLE_LEN_MAX};
pub use metrics::{BlobCounters, MeasuredBlobs};
pub use routed::RoutedBlobs;
pub use verify::VerifiedBlobs;
