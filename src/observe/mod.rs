//! What happens, told.
