# Options of what listens for clients.
{ lib, types' }:
{ default }:
let
  inherit (lib) mkOption types;
in
{
  listen = mkOption {
    type = types.listOf types'.listenAddress;
    inherit default;
    description = "Where it listens: `HOST:PORT`, or the path of a unix socket.";
  };
  socketActivation = mkOption {
    type = types.bool;
    default = true;
    description = "Whether systemd listens, and starts the service at the first connection. What connects during a restart waits.";
  };
  socketMode = mkOption {
    type = types'.mode;
    default = "0660";
    description = "Who may connect to unix sockets on which systemd listens.";
  };
  socketGroup = mkOption {
    type = types'.name;
    default = "lazystore";
    description = "The group of unix sockets on which systemd listens.";
  };
  openFirewall = mkOption {
    type = types.bool;
    default = false;
    description = "Whether the firewall lets others in on its ports.";
  };
}
