# `services.lazystore.daemon`: the store for others, over gRPC.
{ config, lib, pkgs, ... }:
let
  inherit (lib) mkIf mkOption types;
  cfg = config.services.lazystore;
  inherit (import ./lib { inherit lib pkgs cfg; }) types' unit;
  options = cfg.daemon;
  secret = description: mkOption { type = types.nullOr types'.secretFile; default = null; inherit description; };

  service = unit.service {
    unit = "lazystore-daemon";
    kind = "daemon";
    path = "daemon";
    inherit options;
    isDaemon = true;
    secrets = unit.given {
      tls-cert = options.tlsCert;
      tls-key = options.tlsKey;
      tls-client-ca = options.tlsClientCa;
      auth-token-file = options.tokenFile;
      read-token-file = options.readTokenFile;
    };
  };
in
{
  options.services.lazystore.daemon = import ./options/service.nix { inherit lib types'; } { loadCredentials = true; }
    // import ./options/listen.nix { inherit lib types'; } { default = [ "/run/lazystore/daemon.sock" ]; } // {
    enable = lib.mkEnableOption "the daemon, which serves a store to others";
    tlsCert = secret "The certificate that it shows on TCP, in PEM.";
    tlsKey = secret "The key of the certificate, in PEM.";
    tlsClientCa = secret "Take only clients on TCP that have a certificate by one of those in this file, in PEM.";
    tokenFile = secret "Clients that know a token from this file may read and write. It has one on each line.";
    readTokenFile = secret "Clients that know a token from this file may read. It has one on each line.";
    insecure = mkOption {
      type = types.bool;
      default = false;
      description = "Whether it may listen without TLS where others than this machine can connect.";
    };
  };

  config = mkIf options.enable {
    services.lazystore.services.lazystore-daemon = service;
    networking.firewall.allowedTCPPorts = mkIf options.openFirewall (unit.ports options);
    systemd.sockets.lazystore-daemon = mkIf options.socketActivation (unit.socket "lazystore daemon" options);
    systemd.services.lazystore-daemon = lib.mkMerge [
      (unit.unitConfig service)
      {
        description = "lazystore daemon: a Nix store for others, over gRPC";
        wantedBy = mkIf (!options.socketActivation) [ "multi-user.target" ];
        serviceConfig = unit.serviceConfig service // {
          ExecStart = unit.execStart service {
            flags = unit.secretFlags service // unit.listenFlags options // { inherit (options) insecure; };
          };
          Restart = "on-failure";
          RestartSec = 1;
          StateDirectory = "lazystore";
          StateDirectoryMode = "0700";
        };
      }
      (unit.startedBySocket "lazystore-daemon" options)
    ];
  };
}
