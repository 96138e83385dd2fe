//! What happens, told.

pub mod log;
