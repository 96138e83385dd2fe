# A machine without a disk boots from the mount: its initrd has the network and lazystore, its system comes from a daemon.
{ lib, ... }:
{
  name = "lazystore-boot";
  nodes.server = { nodes, ... }: {
    imports = [ ./server.nix ];
    virtualisation.additionalPaths = [ nodes.diskless.system.build.toplevel ];
  };
  nodes.diskless = {
    imports = [ ../. ];
    boot.initrd.systemd.enable = true;
    boot.initrd.systemd.network = {
      enable = true;
      networks."10-test" = {
        matchConfig.Name = "eth1";
        address = [ "192.168.1.1/24" ];
      };
    };
    boot.initrd.availableKernelModules = [ "virtio_net" "virtio_pci" ];
    networking.useNetworkd = true;
    fileSystems = lib.mkForce {
      "/" = { device = "none"; fsType = "tmpfs"; };
    };
    virtualisation = {
      # Neither the store of the host nor a disk.
      useDefaultFilesystems = false;
      mountHostNixStore = false;
      diskImage = null;
      memorySize = 2048;
    };
    services.lazystore = {
      sources.server.address = "grpc+http://192.168.1.2:8000";
      mounts.boot = {
        mountPoint = "/nix/.lazystore";
        initrd.enable = true;
        overlay = { enable = true; tmpfs.enable = true; };
      };
    };
  };
  testScript = { nodes, ... }: ''
    server.start()
    server.wait_for_unit("sockets.target")
    # The system of the other machine, as its closure in the store of this one.
    server.succeed(
        "nix-store --dump-db $(nix-store -qR ${nodes.diskless.system.build.toplevel}) "
        "| lazystore copy --store grpc+unix:///run/lazystore/daemon.sock -"
    )

    diskless.start()
    diskless.wait_for_unit("multi-user.target")
    diskless.succeed("findmnt --types overlay /nix/store")
    diskless.succeed("findmnt --types fuse.lazystore /nix/.lazystore")
    # The process of the initrd is the unit of the system.
    diskless.succeed("systemctl is-active lazystore-mount-boot.service")
    diskless.succeed("echo 3 > /proc/sys/vm/drop_caches && ls -R /run/current-system/sw/bin > /dev/null")
    diskless.fail("systemctl stop lazystore-mount-boot.service")
    diskless.shutdown()
  '';
}
