# Mounts, daemons, binary caches and virtiofs servers of lazystore as services. See docs/nixos.md.
{ config, lib, pkgs, ... }:
let
  inherit (lib) mkIf mkOption types;
  cfg = config.services.lazystore;
  shared = import ./lib { inherit lib pkgs cfg; };
  inherit (shared) resolve types';
  submodules = description: file: mkOption {
    type = types.attrsOf (types.submodule (import file { inherit lib types'; }));
    default = { };
    inherit description;
  };
  anything = cfg.services != { };
in
{
  imports = [
    ./assertions.nix
    ./binary-cache.nix
    ./daemon.nix
    ./initrd.nix
    ./mounts.nix
    ./overlay.nix
    ./virtiofs.nix
  ];

  options.services.lazystore = {
    package = mkOption {
      type = types.package;
      default = pkgs.callPackage ./package.nix { };
      defaultText = lib.literalExpression "pkgs.callPackage ./package.nix { }";
      description = "The program.";
    };
    checkConfig = mkOption {
      type = types.bool;
      default = pkgs.stdenv.buildPlatform.canExecute pkgs.stdenv.hostPlatform;
      defaultText = lib.literalExpression "pkgs.stdenv.buildPlatform.canExecute pkgs.stdenv.hostPlatform";
      description = "Whether the program checks configuration files when the system is built.";
    };
    sources = submodules "Places where things are." ./options/source.nix;
    caches = submodules "Directories in which what comes from far is kept. Without any, each service has one in `/var/cache`." ./options/cache.nix;
    stores = submodules "Which sources are read in which order, and which one is written." ./options/store.nix;

    services = mkOption {
      type = types.attrsOf types.raw;
      default = { };
      internal = true;
      description = "What each part of the module runs, by the names of the units.";
    };
    configFiles = mkOption {
      type = types.attrsOf types.package;
      readOnly = true;
      default = lib.mapAttrs (_: service: service.configFile) cfg.services;
      defaultText = lib.literalMD "from all other options";
      description = "The configuration file of each service, by the name of its unit, for looking at.";
    };
  };

  config = mkIf anything {
    environment.systemPackages = [ cfg.package ];
    environment.etc = lib.mapAttrs' (unit: file: lib.nameValuePair "lazystore/${unit}.toml" { source = file; }) cfg.configFiles
      // {
        # For people, who run the program without --config. It may be read by all; what it names may not.
        "lazystore/config.toml".source = shared.unit.configFile "lazystore" resolve.forPeople;
      };
    users.groups.lazystore = { };
    users.users = lib.mkMerge (map
      (service: mkIf (service.user == "lazystore") {
        lazystore = { isSystemUser = true; group = "lazystore"; description = "lazystore"; };
      })
      (lib.attrValues cfg.services));
    systemd.tmpfiles.rules = lib.unique (lib.concatMap shared.unit.tmpfiles (lib.attrValues cfg.services));
  };
}
