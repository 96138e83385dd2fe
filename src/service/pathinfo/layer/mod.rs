//! Layers: each wraps a path info service and adds one thing.

mod cache;
mod lru;
mod metrics;
mod verify;

pub use cache::CachedPathInfos;
pub use lru::LruPathInfos;
pub use metrics::{MeasuredPathInfos, PathInfoCounters};
pub use verify::VerifiedPathInfos;
pub(crate) use verify::check_path;
