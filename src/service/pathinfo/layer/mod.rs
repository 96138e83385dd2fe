//! Layers: each wraps a path info service and adds one thing.

mod absent;
mod cache;
mod coalesce;
mod lru;
mod metrics;
mod nars;
mod routed;
mod sign;
mod verify;

pub use absent::AbsentPathInfos;
pub use cache::CachedPathInfos;
pub use coalesce::CoalescedPathInfos;
pub use lru::LruPathInfos;
pub use metrics::{MeasuredPathInfos, PathInfoCounters};
pub use nars::RememberedNars;
pub use routed::{RoutedNars, RoutedPathInfos};
pub use sign::SignedPathInfos;
pub use verify::VerifiedPathInfos;
pub(crate) use verify::check_path;
