# Nix builds in its sandbox with inputs that lie in the lower layer of /nix/store alone.
{ pkgs, ... }:
{
  name = "lazystore-sandbox";
  nodes.server = ./server.nix;
  nodes.builder = {
    imports = [ ../. ];
    services.lazystore = {
      sources.server.address = "grpc+http://server:8000";
      mounts.store = { mountPoint = "/nix/.lazystore"; overlay.enable = true; };
    };
    virtualisation.writableStore = true;
    nix.settings.sandbox = true;
    nix.settings.substituters = pkgs.lib.mkForce [ ];
  };
  testScript = ''
    start_all()
    server.wait_for_unit("sockets.target")
    server.succeed("mkdir /tmp/input && echo from far > /tmp/input/word")
    # A copy of the store path that the builder does not have.
    path = server.succeed("lazystore import --store grpc+unix:///run/lazystore/daemon.sock /tmp/input").strip()

    builder.wait_for_unit("nix-store.mount")
    builder.succeed(f"grep -x 'from far' {path}/word")
    builder.succeed(
        f"lazystore registration --store server --closure {path} | nix-store --load-db"
    )
    expression = (
        'derivation { name = "built"; system = builtins.currentSystem; builder = "/bin/sh"; '
        f'args = [ "-c" "read word < ''${{builtins.storePath {path}}}/word; echo $word > $out" ]; }}'
    )
    built = builder.succeed(f"nix-build --option sandbox true -E '{expression}'").strip()
    builder.succeed(f"grep -x 'from far' {built}")
    # It was written to the upper layer.
    builder.succeed(f"test -e /nix/.rw-store/store/{built.rsplit('/', 1)[1]}")
    builder.fail(f"test -e /nix/.lazystore/{built.rsplit('/', 1)[1]}")
  '';
}
