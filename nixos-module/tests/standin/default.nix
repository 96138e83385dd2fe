# Evaluates the module for one configuration: what NixOS would make of it, as text.
{ root ? "/nix/store/00000000000000000000000000000000-files", program ? "/nix/store/00000000000000000000000000000000-lazystore" }:
let
  lib = import ./lib.nix;
  pkgs = import ./pkgs.nix { inherit lib root program; };
  render = import ./render.nix { inherit lib; };
  utils.escapeSystemdPath = render.escapePath;

  evaluateWith = args: modules: lib.evalModules {
    modules = [ ./nixos.nix ] ++ modules;
    specialArgs = { inherit pkgs utils; } // args;
  };
  evaluate = modules: evaluateWith { } ([ ../../default.nix ] ++ modules);

  units = { services, sockets, mounts }:
    lib.mapAttrs' (name: one: lib.nameValuePair "${name}.service" (render.service one)) services
    // lib.mapAttrs' (name: one: lib.nameValuePair "${name}.socket" (render.socket one)) sockets
    // lib.listToAttrs (map (one: lib.nameValuePair "${render.escapePath one.where}.mount" (render.mount one)) mounts);
  # What comes of it. Ends as NixOS does if an assertion does not hold.
  result = { config, ... }:
    let
      failed = map (one: one.message) (lib.filter (one: !one.assertion) config.assertions);
      result = {
        units = units { inherit (config.systemd) services sockets mounts; };
        initrd = units { inherit (config.boot.initrd.systemd) services mounts; sockets = { }; };
        files = lib.mapAttrs (_: file: { path = file.outPath; inherit (file) text checkPhase; }) config.services.lazystore.configFiles;
        etc = lib.mapAttrs (_: one: "${one.source}") config.environment.etc;
        people = config.environment.etc."lazystore/config.toml".source.text or "";
        tmpfiles = config.systemd.tmpfiles.rules;
        users = lib.attrNames config.users.users;
        groups = lib.attrNames config.users.groups;
        ports = config.networking.firewall.allowedTCPPorts;
        kernelModules = { stage2 = config.boot.kernelModules; initrd = config.boot.initrd.kernelModules; };
        reload = lib.mapAttrs (_: one: map (file: file.outPath) one.reloadTriggers) config.systemd.services;
        restart = lib.mapAttrs (_: one: one.restartTriggers) config.systemd.services;
        keptRunning = lib.attrNames (lib.filterAttrs (_: one: !one.restartIfChanged) config.systemd.services);
      };
    in
    if failed == [ ] then result
    else throw "\nFailed assertions:\n${lib.concatMapStringsSep "\n" (message: "- ${message}") failed}";
in
{
  inherit lib pkgs evaluate;

  machine = modules: result (evaluate modules);
  # For modules that import this one themselves, and know of each other.
  node = nodes: module: result (evaluateWith { inherit nodes; } [ module ]);
}
