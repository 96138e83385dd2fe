# The program, from the tree that this file is in: `pkgs.callPackage ./nixos-module/package.nix { }`.
{ lib, rustPlatform }:
let
  manifest = lib.importTOML ../Cargo.toml;
in
rustPlatform.buildRustPackage {
  pname = manifest.package.name;
  inherit (manifest.package) version;

  # What is built, without what changes often for other reasons.
  src = lib.fileset.toSource {
    root = ../.;
    fileset = lib.fileset.unions [
      ../Cargo.lock
      ../Cargo.toml
      ../README.md
      ../benches
      ../build.rs
      ../protos
      ../src
    ];
  };
  cargoLock.lockFile = ../Cargo.lock;

  # SQLite, zstd and lzma are compiled in, and protobuf is translated in Rust: a C compiler is all that is needed besides.
  # The tests mount, and need the network of the machine: `cargo nextest run` runs them, not the sandbox.
  doCheck = false;

  meta = {
    inherit (manifest.package) description;
    license = with lib.licenses; [ mit asl20 ];
    mainProgram = "lazystore";
    platforms = lib.platforms.linux;
  };
}
