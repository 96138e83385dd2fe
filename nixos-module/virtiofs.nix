# `services.lazystore.virtiofs.<name>`: the store for virtual machines.
{ config, lib, pkgs, ... }:
let
  inherit (lib) mapAttrs mkIf mkMerge mkOption types;
  cfg = config.services.lazystore;
  inherit (import ./lib { inherit lib pkgs cfg; }) types' unit;

  unitOf = name: "lazystore-virtiofs-${name}";
  enabled = lib.filterAttrs (_: options: options.enable) cfg.virtiofs;
  service = name: options: unit.service { unit = unitOf name; kind = "virtiofs"; path = "virtiofs.${name}"; inherit options; };
  each = f: lib.mapAttrs' (name: options: lib.nameValuePair (unitOf name) (f name options)) enabled;

  submodule = { name, ... }: {
    options = import ./options/service.nix { inherit lib types'; } { loadCredentials = true; }
      // import ./options/view.nix { inherit lib types'; } // {
      enable = lib.mkEnableOption "this server" // { default = true; };
      socket = mkOption {
        type = types'.place;
        default = "/run/lazystore/virtiofs-${name}.sock";
        defaultText = lib.literalExpression ''"/run/lazystore/virtiofs-''${name}.sock"'';
        description = "Where machine monitors connect.";
      };
      socketMode = mkOption {
        type = types'.mode;
        default = "0660";
        description = "Who may connect. Whoever may sees the store, and is trusted with the life of the server.";
      };
      socketUser = mkOption {
        type = types'.name;
        default = "root";
        example = "microvm";
        description = "The user of the socket: that of the machine monitor.";
      };
      socketGroup = mkOption {
        type = types'.name;
        default = "lazystore";
        example = "kvm";
        description = "The group of the socket.";
      };
      queues = mkOption {
        type = types.nullOr (types.ints.between 1 32);
        default = null;
        description = "How many queues of requests a guest may have. Without it, the number of processors, at most 8.";
      };
    };
  };
in
{
  options.services.lazystore.virtiofs = mkOption {
    type = types.attrsOf (types.submodule submodule);
    default = { };
    example = lib.literalExpression ''{ guests = { socketGroup = "kvm"; listRoot = true; }; }'';
    description = "Servers for virtual machines, by names of your choice.";
  };

  config = mkIf (enabled != { }) {
    services.lazystore.services = each service;
    systemd.sockets = each (name: options: {
      description = "Socket for the machines that see the lazystore ${name}";
      wantedBy = [ "sockets.target" ];
      listenStreams = [ options.socket ];
      socketConfig = {
        SocketMode = options.socketMode;
        SocketUser = options.socketUser;
        SocketGroup = options.socketGroup;
        DirectoryMode = "0755";
      };
    });
    systemd.services = each (name: options:
      let own = service name options; in
      mkMerge [
        (unit.unitConfig own)
        {
          description = "lazystore ${name}: a Nix store for virtual machines, over virtiofs";
          requires = [ "${unitOf name}.socket" ];
          after = [ "${unitOf name}.socket" ];
          serviceConfig = unit.serviceConfig own // {
            ExecStart = unit.execStart own { flags = unit.viewFlags own // { inherit (options) queues; }; };
            Restart = "on-failure";
            RestartSec = 1;
          };
        }
      ]);
  };
}
