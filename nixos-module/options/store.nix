# `services.lazystore.stores.<name>`: what docs/configuration.md calls `[store.NAME]`.
{ lib, types' }:
{ ... }:
let
  inherit (lib) mkOption types;
  read = mkOption {
    type = types.listOf types'.name;
    default = [ ];
    example = [ "lan" "public" ];
    description = "Sources, or other stores, asked in this order.";
  };
  write = mkOption {
    type = types.nullOr (types.either (types.enum [ "none" ]) types'.name);
    default = null;
    example = "lan";
    description = "Where what is written goes: a source or a store, or `none`. Without it, the source that is read, if there is one.";
  };
  service = what: mkOption {
    type = types.submodule { options = { inherit read write; }; };
    default = { };
    description = "Where ${what} are, if elsewhere than the rest.";
  };
in
{
  options = {
    inherit read write;
    blobs = service "blobs";
    directories = service "directories";
    pathInfos = service "path infos";
    cache = mkOption {
      type = types.nullOr (types.either (types.enum [ "none" ]) types'.name);
      default = null;
      description = "Which of `caches` stands in front of sources that are far, or `none`. Without it, the only one.";
    };
    signKeyFiles = mkOption {
      type = types.listOf types'.secretFile;
      default = [ ];
      description = "Secret keys: what is written gets their signatures.";
    };
    fetchWholeUpTo = mkOption {
      type = types.nullOr types'.wholeSize;
      default = null;
      example = "256K";
      description = "Up to which size a file comes whole, in one request. Without it, 256 KiB.";
    };
    absentTtl = mkOption {
      type = types.nullOr (types'.secondsBetween 0 86400);
      default = null;
      description = "For how many seconds it is remembered that a name is absent. Without it, 5.";
    };
  };
}
