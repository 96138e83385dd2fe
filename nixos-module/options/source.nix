# `services.lazystore.sources.<name>`: what docs/configuration.md calls `[source.NAME]`.
{ lib, types' }:
{ ... }:
let
  inherit (lib) mkOption types;
  optional = type: description: mkOption { type = types.nullOr type; default = null; inherit description; };
  scalar = types.oneOf [ types.bool types.int types.float types.str ];
in
{
  options = {
    address = mkOption {
      type = types.either types'.sourceAddress (types.listOf types'.sourceAddress);
      example = "grpc+https://store.example.org:8000";
      description = "Where it is. Several addresses are for binary caches that are asked as one.";
    };
    verify = optional (types.enum [ "source" "strict" ]) "Whether its lists of chunks are believed (`source`), or nothing without proof (`strict`).";
    timeout = optional (types'.secondsBetween 0.1 3600) "How many seconds an answer may take, however often it is tried. Without it, 30.";
    attempts = optional (types.ints.between 1 100) "How often it is tried at most. Without it, 4. For `grpc+` and `nix+`.";
    dialect = optional (types.enum [ "tvix" "snix" ]) "What a daemon speaks. Without it, that is found out.";
    sizes = optional (types.enum [ "documented" "doubled" ]) "How sizes of directories are computed that are written there.";
    compress = optional (types.enum [ "zstd" "none" ]) "Whether messages are compressed, which the daemon must take.";
    ca = optional types'.secretFile "Roots of its certificate, in PEM. Without it, those of the system. For `grpc+https`.";
    cert = optional types'.secretFile "The certificate that it is shown, in PEM. For `grpc+https`.";
    key = optional types'.secretFile "The key of that certificate, in PEM.";
    tokenFile = optional types'.secretFile "A file with the token that it is shown.";
    insecure = optional types.bool "Whether the token may be shown where others can read it on its way.";
    trustedPublicKeys = mkOption {
      type = types.listOf types'.publicKey;
      default = [ ];
      description = "Whose signatures are believed. For `nix+`.";
    };
    requireSigs = optional types.bool "`false` believes anybody. For `nix+`.";
    foreignUrls = optional types.bool "Whether archives may be on other servers. For `nix+`.";
    priority = optional types.ints.unsigned "In which order it is asked among those of the same address. For `nix+`.";
    netrc = optional types'.secretFile "Names and passwords. For `nix+`.";
    options = mkOption {
      type = types.attrsOf scalar;
      default = { };
      example = { region = "eu-central-1"; };
      description = "All other options that its kind of address takes, like those of buckets. Secrets do not belong here, but into `environmentFiles` of the service.";
    };
  };
}
