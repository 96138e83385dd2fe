# `services.lazystore.caches.<name>`: what docs/configuration.md calls `[cache.NAME]`.
{ lib, types' }:
{ ... }:
let
  inherit (lib) mkOption types;
in
{
  options = {
    dir = mkOption {
      type = types.nullOr types'.place;
      default = null;
      example = "/srv/cache";
      description = "Where it is. Without it, each service has one of its own in `/var/cache`, with the name of its unit.";
    };
    size = mkOption {
      type = types.nullOr types'.cacheSize;
      default = null;
      example = "64GiB";
      description = "How much it may take. Without it, a tenth of the disk, 1 GiB at least.";
    };
  };
}
