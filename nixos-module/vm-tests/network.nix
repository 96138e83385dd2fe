# The network is cut: what is here stays readable, what is not fails within a bounded time, and all is well again once the
# network is.
{ ... }:
{
  name = "lazystore-network";
  nodes.server = ./server.nix;
  nodes.client = {
    imports = [ ../. ];
    services.lazystore = {
      sources.server = { address = "grpc+http://server:8000"; timeout = 5; };
      mounts.store = { mountPoint = "/mnt/store"; };
    };
  };
  testScript = ''
    start_all()
    server.wait_for_unit("sockets.target")
    names = []
    for which in ["here", "far"]:
        server.succeed(f"dd if=/dev/urandom of=/tmp/{which} bs=1M count=8")
        path = server.succeed(f"lazystore import --store grpc+unix:///run/lazystore/daemon.sock /tmp/{which}").strip()
        names.append(path.rsplit("/", 1)[1])
    here, far = names

    client.wait_for_unit("lazystore-mount-store.service")
    client.succeed(f"cat /mnt/store/{here} > /dev/null")

    client.block()
    client.succeed("echo 3 > /proc/sys/vm/drop_caches")
    client.succeed(f"cat /mnt/store/{here} > /dev/null")
    # An error, and not the end of patience: 124 would be the timeout.
    status, _ = client.execute(f"timeout 60 cat /mnt/store/{far}")
    assert status not in (0, 124), status
    # A mount that waits for nobody is not taken for hung.
    client.succeed("systemctl is-active lazystore-mount-store.service")

    client.unblock()
    client.wait_until_succeeds(f"cat /mnt/store/{far} > /dev/null", timeout=60)
  '';
}
