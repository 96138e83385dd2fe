# `services.lazystore.mounts.<name>.overlay`: a writable layer on top of a mount, in stage 2.
{ config, lib, pkgs, utils, ... }:
let
  inherit (lib) mkIf;
  cfg = config.services.lazystore;
  enabled = lib.filterAttrs (_: options: options.enable && options.overlay.enable && !options.initrd.enable) cfg.mounts;
  each = f: lib.mapAttrsToList f enabled;
  parent = options: builtins.dirOf options.overlay.upperDir;
in
{
  config = mkIf (enabled != { }) {
    boot.kernelModules = [ "overlay" ];
    systemd.mounts = lib.concatLists (each (name: options:
      let
        inherit (options) overlay;
        service = "lazystore-mount-${name}.service";
      in
      [{
        description = "Writable layer on the lazystore ${name}";
        what = "overlay";
        where = overlay.mountPoint;
        type = "overlay";
        options = lib.concatStringsSep "," [
          # What is local wins over what is far.
          "lowerdir=${lib.optionalString overlay.keepLocal "${overlay.mountPoint}:"}${options.mountPoint}"
          "upperdir=${overlay.upperDir}"
          "workdir=${overlay.workDir}"
          # Directories keep their inode numbers.
          "xino=on"
        ];
        # An overlay goes on pointing to a mount that has died. With the service it is taken away, also while in use, and
        # with the service it comes again.
        bindsTo = [ service ];
        after = [ service ];
        before = [ "nix-daemon.service" "umount.target" ] ++ options.neededBy;
        conflicts = [ "umount.target" ];
        requiredBy = options.neededBy;
        mountConfig.LazyUnmount = true;
        unitConfig.RequiresMountsFor = [ (parent options) ];
        # By default it would be wanted before local-fs.target, which the service comes after.
        unitConfig.DefaultDependencies = false;
      }]
      ++ lib.optional overlay.tmpfs.enable {
        description = "What is written to the lazystore ${name}, in memory";
        what = "tmpfs";
        where = parent options;
        type = "tmpfs";
        options = "mode=0755,size=${overlay.tmpfs.size}";
        before = [ service ];
        wantedBy = [ service ];
      }));
    systemd.services = lib.mapAttrs'
      (name: options: lib.nameValuePair "lazystore-mount-${name}" {
        # A wish that lasts: also when the service was started again by itself.
        unitConfig.Upholds = [ "${utils.escapeSystemdPath options.overlay.mountPoint}.mount" ];
        unitConfig.RequiresMountsFor = [ (parent options) ];
        # Programs run from it: a new version waits for a boot or for a restart that somebody asks for.
        restartIfChanged = false;
        serviceConfig.ExecStartPre = [
          "${pkgs.coreutils}/bin/mkdir -p ${options.overlay.upperDir} ${options.overlay.workDir}"
        ];
      })
      enabled;
  };
}
