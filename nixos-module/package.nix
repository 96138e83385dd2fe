# The program, from the tree that this file is in: `pkgs.callPackage ./nixos-module/package.nix { }`.
{ lib, stdenv, rustPlatform, installShellFiles }:
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
      # The manifest names tests.
      ../tests
    ];
  };
  cargoLock.lockFile = ../Cargo.lock;

  # SQLite, zstd and lzma are compiled in, and protobuf is translated in Rust: a C compiler is all that is needed besides.
  # The tests mount, and need the network of the machine: `cargo nextest run` runs them, not the sandbox.
  doCheck = false;

  # They come from the program itself, which has to run on the machine that builds.
  nativeBuildInputs = [ installShellFiles ];
  postInstall = lib.optionalString (stdenv.buildPlatform.canExecute stdenv.hostPlatform) ''
    for shell in bash fish zsh; do
      installShellCompletion --cmd lazystore --$shell <($out/bin/lazystore completions $shell)
    done
    $out/bin/lazystore man --dir man
    installManPage man/*
  '';

  meta = {
    inherit (manifest.package) description;
    license = with lib.licenses; [ mit asl20 ];
    mainProgram = "lazystore";
    platforms = lib.platforms.linux;
  };
}
