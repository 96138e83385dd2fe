//! The filesystem brought to a kernel.
