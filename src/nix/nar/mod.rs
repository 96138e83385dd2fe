//! Nix archives (NAR).
