# The machine that has the store: a daemon with a store on its disk, which others reach over TCP.
{ pkgs, ... }:
{
  imports = [ ../. ];
  services.lazystore.daemon = {
    enable = true;
    listen = [ "/run/lazystore/daemon.sock" "0.0.0.0:8000" ];
    # The network of the test is nobody else's.
    insecure = true;
    openFirewall = true;
  };
  virtualisation.writableStore = true;
  environment.systemPackages = [ pkgs.hello ];
}
