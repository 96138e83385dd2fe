# The machines and scripts of vm-tests/, as far as they can be looked at without nixpkgs.
let
  standin = import ./standin { };
  inherit (standin) lib pkgs;
  # What scripts say of machines that were built.
  built = name: { system.build.toplevel = "/nix/store/00000000000000000000000000000000-nixos-system-${name}"; };
  tests = lib.genAttrs [ "boot" "killed" "network" "sandbox" ] (name: import (../vm-tests + "/${name}.nix") { inherit lib pkgs; });
  look = test:
    let nodes = builtins.mapAttrs (name: _: built name) test.nodes; in
    {
      inherit (test) name;
      nodes = builtins.mapAttrs (_: module: standin.node nodes module) test.nodes;
      script = if builtins.isFunction test.testScript then test.testScript { inherit nodes; } else test.testScript;
    };
in
builtins.mapAttrs (_: look) tests
