# The options of NixOS that the module and the machines of vm-tests/ set, with the types that they have there.
{ lib, ... }:
let
  inherit (lib) mkOption types;
  strings = mkOption { type = types.listOf types.str; default = [ ]; };
  switch = mkOption { type = types.bool; default = false; };
  # Sections of a unit: numbers, words, lists of these.
  section = mkOption { type = types.attrsOf (types.oneOf [ types.bool types.int types.float types.str types.path (types.listOf types.anything) ]); default = { }; };

  unit = {
    enable = mkOption { type = types.bool; default = true; };
    description = mkOption { type = types.str; default = ""; };
    documentation = strings;
    requires = strings;
    wants = strings;
    bindsTo = strings;
    partOf = strings;
    conflicts = strings;
    before = strings;
    after = strings;
    requiredBy = strings;
    wantedBy = strings;
    unitConfig = section;
  };
  service = types.submodule {
    options = unit // {
      serviceConfig = section;
      environment = mkOption { type = types.attrsOf (types.nullOr (types.oneOf [ types.str types.path types.package ])); default = { }; };
      path = mkOption { type = types.listOf types.anything; default = [ ]; };
      script = mkOption { type = types.lines; default = ""; };
      restartIfChanged = mkOption { type = types.bool; default = true; };
      stopIfChanged = mkOption { type = types.bool; default = true; };
      reloadTriggers = mkOption { type = types.listOf types.unspecified; default = [ ]; };
      restartTriggers = mkOption { type = types.listOf types.unspecified; default = [ ]; };
    };
  };
  socket = types.submodule { options = unit // { listenStreams = strings; socketConfig = section; }; };
  mount = types.submodule {
    options = unit // {
      what = mkOption { type = types.str; };
      where = mkOption { type = types.str; };
      type = mkOption { type = types.str; default = ""; };
      options = mkOption { type = types.str; default = ""; };
      mountConfig = section;
    };
  };
  anything = mkOption { type = types.attrsOf types.anything; default = { }; };
in
{
  options = {
    assertions = mkOption {
      type = types.listOf (types.submodule {
        options = { assertion = mkOption { type = types.bool; }; message = mkOption { type = types.str; }; };
      });
      default = [ ];
    };
    warnings = strings;

    systemd.services = mkOption { type = types.attrsOf service; default = { }; };
    systemd.sockets = mkOption { type = types.attrsOf socket; default = { }; };
    systemd.mounts = mkOption { type = types.listOf mount; default = [ ]; };
    systemd.tmpfiles.rules = strings;

    boot.kernelModules = strings;
    boot.initrd.kernelModules = strings;
    boot.initrd.availableKernelModules = strings;
    boot.initrd.network.enable = switch;
    boot.initrd.systemd = {
      enable = switch;
      network = anything // { type = types.submodule { options = { enable = switch; networks = anything; }; }; };
      storePaths = mkOption { type = types.listOf (types.either types.package types.str); default = [ ]; };
      services = mkOption { type = types.attrsOf service; default = { }; };
      mounts = mkOption { type = types.listOf mount; default = [ ]; };
    };

    users.groups = mkOption {
      type = types.attrsOf (types.submodule { options.members = strings; });
      default = { };
    };
    users.users = mkOption {
      type = types.attrsOf (types.submodule {
        options = {
          isSystemUser = switch;
          isNormalUser = switch;
          group = mkOption { type = types.str; default = ""; };
          extraGroups = strings;
          description = mkOption { type = types.str; default = ""; };
        };
      });
      default = { };
    };

    environment.systemPackages = mkOption { type = types.listOf types.package; default = [ ]; };
    environment.etc = mkOption {
      type = types.attrsOf (types.submodule {
        options = {
          text = mkOption { type = types.nullOr types.lines; default = null; };
          source = mkOption { type = types.nullOr types.path; default = null; };
          mode = mkOption { type = types.str; default = "symlink"; };
        };
      });
      default = { };
    };
    networking = anything // {
      type = types.submodule {
        options = {
          hostName = mkOption { type = types.str; default = "nixos"; };
          useNetworkd = switch;
          firewall = {
            enable = mkOption { type = types.bool; default = true; };
            allowedTCPPorts = mkOption { type = types.listOf types.int; default = [ ]; };
          };
        };
      };
    };
    nix.settings = anything;
    nix.enable = mkOption { type = types.bool; default = true; };
    fileSystems = anything;
    virtualisation = anything;
  };
}
