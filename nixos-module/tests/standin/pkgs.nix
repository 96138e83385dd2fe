# The few packages that the module names. `root` is where files go that nixpkgs would write into the store; `program` is a
# directory with bin/lazystore. Programs of others are those of this machine, in /usr/bin.
{ lib, root, program }:
let
  package = name: outPath: { type = "derivation"; inherit name outPath; };
  machine = name: package name "/usr";
  self = {
    stdenv = rec {
      buildPlatform = { system = "x86_64-linux"; canExecute = platform: platform.system == "x86_64-linux"; };
      hostPlatform = buildPlatform;
    };
    callPackage = file: overrides: package "lazystore" program;
    # What is in it can be looked at, and whoever wants to have it puts it there.
    writeTextFile = { name, text, checkPhase ? "" }: package name "${root}/${name}" // { inherit text checkPhase; };
    writeText = name: text: self.writeTextFile { inherit name text; };
    closureInfo = { rootPaths }: package "closure-info" "${root}/closure-info" // { inherit rootPaths; };
    runtimeShell = "/bin/sh";
    coreutils = machine "coreutils";
    util-linux = machine "util-linux";
    cacert = package "cacert" "${root}/cacert";
    hello = package "hello" "/nix/store/00000000000000000000000000000000-hello-2.12";
  };
in
self
