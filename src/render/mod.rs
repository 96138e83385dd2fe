//! The services into archives.
