//! Layers: each wraps a directory service and adds one thing.

mod arriving;
mod cache;
mod lru;
mod metrics;
mod routed;
mod verify;

pub use arriving::ArrivingDirectories;
pub use cache::{CachedDirectories, leaves_first};
pub use lru::LruDirectories;
pub use metrics::{DirectoryCounters, MeasuredDirectories};
pub use routed::RoutedDirectories;
pub use verify::VerifiedDirectories;
pub(crate) use verify::{check_closure, check_digest};
