//! Generated protocol code, and the checked conversions to and from the pure types.
