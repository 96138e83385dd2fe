//! Between messages and pure types. What comes from the wire is checked, what goes there is right by construction.

pub(super) mod castore;
pub(super) mod path_info;
