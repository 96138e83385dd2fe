//! What happens, told.

pub mod journal;
pub mod log;
