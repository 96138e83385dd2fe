//! What happens, told: logs, the numbers of `--metrics`, and spans.
//!
//! What is counted is counted for the whole process, as what is logged is: there is one set of counters, and any room
//! may add to it. Counting takes no lock. The names of all metrics stand in [`names`], those of events in [`event`], and
//! tests hold `docs/metrics.md` and what a server really answers to both.
//!
//! The counters are our own, and not those of a crate: counting here is one relaxed addition to a place that is the
//! thread's own, which the usual crates do not do (they look a series up by its labels, or lock a histogram), and what is
//! left for them to do is to write some lines of text.

mod counter;
pub mod event;
mod histogram;
pub mod journal;
pub mod log;
mod metric;
pub mod names;
#[cfg(feature = "otlp")]
pub mod otlp;
mod process;
mod rate;
mod sampled;
mod scrape;
pub mod slow;
#[cfg_attr(not(feature = "otlp"), path = "no_span.rs")]
pub mod span;
pub mod spent;
pub mod tally;
pub mod timing;
mod traced_body;
#[cfg(test)]
mod written;

pub use counter::{Counter, Gauge, Held};
pub use histogram::{BOUNDS, Histogram, Snapshot};
pub use metric::{Kind, Metric, Role};
pub use process::begin;
pub use rate::Rate;
pub use sampled::Sampled;
pub use scrape::{Scrape, register, register_once, scrape};
pub use span::Span;
pub use traced_body::TracedBody;
