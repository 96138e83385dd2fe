# Options of what shows a tree: mounts and virtiofs.
{ lib, types' }:
let
  inherit (lib) mkOption types;
  paths = description: mkOption {
    type = types.listOf types'.storePath;
    default = [ ];
    inherit description;
  };
in
{
  listRoot = mkOption {
    type = types.bool;
    default = false;
    description = "Whether the root lists everything in the store, not only what has been looked up.";
  };
  showXattr = mkOption {
    type = types.bool;
    default = true;
    description = "Whether digests are shown as extended attributes.";
  };
  only = paths "Show these store paths and no others.";
  closureOf = paths "Show these store paths, all that they refer to, and no others.";
  onlyFrom = mkOption {
    type = types.nullOr types.path;
    default = null;
    description = "Show the store paths in this file, one a line, and no others.";
  };
  accessLog = mkOption {
    type = types.bool;
    default = false;
    description = "Whether what is read is written to `access.log` in the folder of `/var/log` that has the name of the unit.";
  };
}
