//! Addresses into stacks of services.
