# `services.lazystore.binaryCache`: the store for Nix, over HTTP.
{ config, lib, pkgs, ... }:
let
  inherit (lib) mkIf mkOption types;
  cfg = config.services.lazystore;
  inherit (import ./lib { inherit lib pkgs cfg; }) types' unit;
  options = cfg.binaryCache;

  keys = lib.imap0 (at: file: { id = "sign-key-${toString at}"; inherit file; }) options.signKeyFiles;
  service = unit.service {
    unit = "lazystore-binary-cache";
    kind = "serve";
    path = "binaryCache";
    inherit options;
    secrets = unit.given { upload-token-file = options.uploadTokenFile; }
      // lib.listToAttrs (map ({ id, file }: lib.nameValuePair id file) keys);
  };
in
{
  options.services.lazystore.binaryCache = import ./options/service.nix { inherit lib types'; } { loadCredentials = true; }
    // import ./options/listen.nix { inherit lib types'; } { default = [ "[::1]:8080" ]; } // {
    enable = lib.mkEnableOption "the binary cache, which serves a store to Nix";
    priority = mkOption {
      type = types.ints.unsigned;
      default = 30;
      description = "Which of several caches Nix asks first: that with the lowest number. That of cache.nixos.org is 40.";
    };
    signKeyFiles = mkOption {
      type = types.listOf types'.secretFile;
      default = [ ];
      description = "Secret keys, with which all that is served is signed.";
    };
    logDir = mkOption {
      type = types.nullOr types'.place;
      default = null;
      example = "/nix/var/log/nix";
      description = "Logs of builds to serve. The user of the service has to be able to read them.";
    };
    allowUpload = mkOption {
      type = types.bool;
      default = false;
      description = "Whether clients may bring store paths.";
    };
    uploadTokenFile = mkOption {
      type = types.nullOr types'.secretFile;
      default = null;
      description = "Only clients that know a token from this file may bring something. It has one on each line.";
    };
    uploadSizeMax = mkOption {
      type = types'.anySize;
      default = "64G";
      description = "The longest archive that clients may bring, decompressed.";
    };
  };

  config = mkIf options.enable {
    services.lazystore.services.lazystore-binary-cache = service;
    networking.firewall.allowedTCPPorts = mkIf options.openFirewall (unit.ports options);
    systemd.sockets.lazystore-binary-cache = mkIf options.socketActivation (unit.socket "lazystore binary cache" options);
    systemd.services.lazystore-binary-cache = lib.mkMerge [
      (unit.unitConfig service)
      {
        description = "lazystore binary cache: a Nix store for Nix, over HTTP";
        wantedBy = mkIf (!options.socketActivation) [ "multi-user.target" ];
        serviceConfig = unit.serviceConfig service // {
          ExecStart = unit.execStart service {
            flags = unit.listenFlags options // {
              inherit (options) priority;
              sign-key = map ({ id, ... }: service.resolved.secretAt id) keys;
              log-dir = options.logDir;
              allow-upload = options.allowUpload;
              upload-token-file = if options.uploadTokenFile == null then null else service.resolved.secretAt "upload-token-file";
              upload-size-max = options.uploadSizeMax;
            };
          };
          Restart = "on-failure";
          RestartSec = 1;
        };
      }
      (unit.startedBySocket "lazystore-binary-cache" options)
    ];
  };
}
