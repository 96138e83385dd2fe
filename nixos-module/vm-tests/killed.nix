# The process that serves a mount is killed in the middle of a read, again and again: readers get an error and not
# silence, the mount comes again by itself, and no dead mountpoint is left when it is stopped.
{ ... }:
{
  name = "lazystore-killed";
  nodes.server = ./server.nix;
  nodes.client = {
    imports = [ ../. ];
    services.lazystore = {
      sources.server.address = "grpc+http://server:8000";
      mounts.store = { mountPoint = "/mnt/store"; listRoot = true; };
    };
  };
  testScript = ''
    start_all()
    server.wait_for_unit("sockets.target")
    server.succeed("dd if=/dev/urandom of=/tmp/large bs=1M count=256")
    path = server.succeed("lazystore import --store grpc+unix:///run/lazystore/daemon.sock /tmp/large").strip()
    name = path.rsplit("/", 1)[1]
    wanted = server.succeed("sha256sum < /tmp/large").strip()

    client.wait_for_unit("lazystore-mount-store.service")
    for attempt in range(5):
        client.succeed("echo 3 > /proc/sys/vm/drop_caches")
        client.succeed(f"(timeout 60 cat /mnt/store/{name} > /dev/null; echo $? > /tmp/ended-{attempt}) >&2 &")
        client.succeed("systemctl kill --kill-whom=all --signal=SIGKILL lazystore-mount-store.service")
        # Done or failed, but not waiting: 124 would be the timeout.
        client.wait_for_file(f"/tmp/ended-{attempt}", timeout=70)
        client.fail(f"grep -qx 124 /tmp/ended-{attempt}")
        client.wait_for_unit("lazystore-mount-store.service")
        assert client.succeed(f"sha256sum < /mnt/store/{name}").strip() == wanted

    client.succeed("systemctl stop lazystore-mount-store.service")
    client.fail("mountpoint /mnt/store")
    client.succeed("stat /mnt/store")
  '';
}
