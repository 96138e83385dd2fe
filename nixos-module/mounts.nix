# `services.lazystore.mounts.<name>`: the store as a directory.
{ config, lib, pkgs, ... }:
let
  inherit (lib) mkIf mkMerge mkOption types;
  cfg = config.services.lazystore;
  shared = import ./lib { inherit lib pkgs cfg; };
  inherit (shared) types' unit;

  unitOf = name: "lazystore-mount-${name}";
  enabled = lib.filterAttrs (_: options: options.enable) cfg.mounts;
  service = name: options: unit.service { unit = unitOf name; kind = "mount"; path = "mounts.${name}"; inherit options; isRoot = true; };
  each = f: lib.mapAttrs' (name: options: lib.nameValuePair (unitOf name) (f name options)) enabled;
  units = description: default: mkOption { type = types.listOf types.str; inherit default description; };

  submodule = { ... }: {
    options = import ./options/service.nix { inherit lib types'; } { loadCredentials = false; hasUser = false; }
      // import ./options/view.nix { inherit lib types'; }
      // import ./options/overlay.nix { inherit lib types'; } // {
      enable = lib.mkEnableOption "this mount" // { default = true; };
      mountPoint = mkOption {
        type = types'.place;
        example = "/mnt/store";
        description = "The directory to mount on, which is made if it is not there.";
      };
      import = mkOption {
        type = types.listOf types.path;
        default = [ ];
        description = "Files and directories to import before mounting.";
      };
      allowOther = mkOption {
        type = types.bool;
        default = true;
        description = "Whether others than root may look in.";
      };
      ioMode = mkOption {
        type = types.enum [ "auto" "no-open" "passthrough" ];
        default = "auto";
        description = "Who opens and reads files that are here.";
      };
      threads = mkOption {
        type = types.nullOr (types.ints.between 1 256);
        default = null;
        description = "How many threads answer the kernel. Without it, the number of processors, at least 4.";
      };
      wantedBy = units "Units that start the mount." [ "multi-user.target" ];
      neededBy = mkOption {
        type = types.listOf types.str;
        default = [ ];
        example = [ "my-job.service" ];
        description = "Units that need the store: they are started after the mount, and not without it.";
      };
    };
  };
in
{
  options.services.lazystore.mounts = mkOption {
    type = types.attrsOf (types.submodule submodule);
    default = { };
    example = lib.literalExpression ''{ team = { mountPoint = "/mnt/store"; store = "team"; }; }'';
    description = "Directories on which a store is mounted, by names of your choice.";
  };

  config = mkIf (enabled != { }) {
    services.lazystore.services = each service;
    boot.kernelModules = [ "fuse" ];
    systemd.services = each (name: options:
      let own = service name options; in
      mkMerge [
        (unit.unitConfig own)
        {
          description = "lazystore ${name}: a Nix store on ${options.mountPoint}";
          inherit (options) wantedBy;
          requiredBy = options.neededBy;
          before = options.neededBy;
          # A store that everybody waits for is tried for ever.
          unitConfig.StartLimitIntervalSec = 0;
          unitConfig.RequiresMountsFor = [ (builtins.dirOf options.mountPoint) ];
          serviceConfig = unit.serviceConfig own // {
            ExecStart = unit.mountCommand own;
            # Whatever became of the process, nothing is left at which readers fail for ever. It only takes away what is dead.
            ExecStopPost = "-${cfg.package}/bin/lazystore unmount-when-orphaned ${options.mountPoint}";
            Restart = "always";
            RestartSec = 1;
            OOMScoreAdjust = -900;
          } // lib.optionalAttrs (own.resolved.readsLocal && !cfg.daemon.enable) {
            StateDirectory = "lazystore";
          };
        }
      ]);
  };
}
