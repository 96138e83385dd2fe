# Options of a mount under an overlay, and of one that the machine boots from.
{ lib, types' }:
let
  inherit (lib) mkOption types;
  switch = description: mkOption { type = types.bool; default = false; inherit description; };
in
{
  overlay = {
    enable = switch "Whether a writable layer is put on top of the mount, as an overlay.";
    mountPoint = mkOption {
      type = types'.place;
      default = "/nix/store";
      description = "Where the two are seen as one.";
    };
    keepLocal = mkOption {
      type = types.bool;
      default = true;
      description = "Whether what is at `mountPoint` already stays visible, above the mount. At `/nix/store` of a machine that has booted from it, nothing works without.";
    };
    upperDir = mkOption {
      type = types'.place;
      default = "/nix/.rw-store/store";
      description = "Where what is written goes. It must be on a filesystem that overlays can write to, like ext4, xfs, btrfs or tmpfs.";
    };
    workDir = mkOption {
      type = types'.place;
      default = "/nix/.rw-store/work";
      description = "An empty directory on the same filesystem.";
    };
    tmpfs = {
      enable = switch "Whether what is written is kept in memory, and forgotten at the next boot: a tmpfs is mounted on the directory that `upperDir` and `workDir` are in.";
      size = mkOption {
        type = types'.tmpfsSize;
        default = "50%";
        description = "How much memory it may take.";
      };
    };
  };
  initrd = {
    enable = switch "Whether it is mounted in the initrd already, so that the machine boots from it. For systemd in the initrd.";
    network = mkOption {
      type = types.bool;
      default = true;
      description = "Whether the network of the initrd is waited for.";
    };
  };
}
