//! The services into archives.

mod nar;

pub use nar::{RenderError, RenderNar, write_nar};
