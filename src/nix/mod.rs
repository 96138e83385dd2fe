//! Nix: store paths, hashes, signatures, path infos and archives. Pure types, no I/O.

pub mod nar;
