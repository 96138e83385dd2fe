//! The services into archives, and what archives prove.

mod claim;
mod nar;

pub use claim::is_as_claimed;
pub use nar::{RenderError, RenderNar, write_nar};
