# Files of the tree that are made from the module: docs/nixos-options.md, and the units for other distributions. The test
# binary `nixos` holds them to this; with LAZYSTORE_WRITE=1 it writes them.
let
  standin = import ./standin { program = "/usr/local"; root = "/etc/lazystore"; };
  inherit (standin) lib;

  # The names that stand for an instance here; in the templates, systemd fills it in.
  instance = "INSTANCE";
  place = "/MOUNTPOINT";
  machine = standin.machine [{
    services.lazystore = {
      # `daemon` is there of itself: the daemon of this machine.
      sources.disk.address = "local:";
      caches.disk = { };
      stores.default.read = [ "daemon" ];
      daemon = { enable = true; store = "disk"; };
      binaryCache.enable = true;
      mounts.${instance}.mountPoint = place;
      virtiofs.${instance} = { };
    };
  }];

  header = ''
    # Made from nixos-module/ by its tests: change it there. To change something on one machine: systemctl edit NAME.
  '';
  # Elsewhere there is one configuration file for all, and each service has its own file with variables of the environment.
  plain = name: text:
    let
      unit = lib.head (lib.splitString "." name);
      kind = lib.removePrefix "lazystore-" unit;
      variables = if lib.hasInfix "-${instance}" kind then lib.replaceStrings [ "-${instance}" ] [ "-%i" ] kind else kind;
      inherit (lib) replaceStrings;
      general = replaceStrings
        [
          "Wants=lazystore-daemon.socket\n"
          "--config=/etc/lazystore/${unit}.toml"
          " --store=disk"
          " --store=default"
          "--store-dir=/var/lib/lazystore"
          "[Service]\n"
        ]
        [
          # Whether there is one is for the machine to say.
          ""
          "--config=/etc/lazystore/config.toml"
          ""
          ""
          "--store-dir=/var/lib/lazystore --cache-dir=/var/cache/${unit}"
          "[Service]\nEnvironment=LAZYSTORE_STORE=${if kind == "daemon" then "disk" else "default"}\nEnvironmentFile=-/etc/lazystore/${variables}.env\n"
        ]
        text;
      arguments = lib.concatMapStringsSep "\n"
        (line: if lib.hasPrefix "ExecStart=" line then "${line} $LAZYSTORE_ARGS" else line)
        (lib.splitString "\n" general);
      # The instance is in the name, and where the store is mounted follows from it.
      templates = replaceStrings
        [ "${instance}.socket" "${instance}.service" "-${instance}" " ${instance}:" " ${instance}\n" place ]
        [ "%i.socket" "%i.service" "-%i" " %i:" " %i\n" "%f" ]
        arguments;
      # Units of one template name each other by it.
      names = replaceStrings [ "lazystore-virtiofs-%i.socket" "lazystore-virtiofs-%i.service" ] [ "lazystore-virtiofs@%i.socket" "lazystore-virtiofs@%i.service" ] templates;
    in
    header + names;
  fileName = name: lib.replaceStrings [ "-${instance}" ] [ "@" ] name;
  units = lib.mapAttrs' (name: text: lib.nameValuePair "nixos-module/systemd/${fileName name}" (plain name text)) machine.units;

  options = import ./options.nix;
  escape = lib.replaceStrings [ "<" ] [ "\\<" ];
  option = one: ''
    ## `${one.name}`

    ${escape one.description}

    * type: ${escape one.type}
    ${if one.default == null then "* needed" else "* default: `${one.default}`"}
  '' + lib.optionalString (one.example != null) ''
    * example: `${one.example}`
  '';
in
units // {
  "nixos-module/systemd/config.toml" = ''
    # What each service of lazystore reads: docs/configuration.md has all of it. The units choose caches of their own.
    # The daemon serves [source.disk], the store of this machine; all others read [store.default].

    ${machine.people}'';
  "nixos-module/systemd/sysusers.d/lazystore.conf" = header
    + lib.concatMapStrings (group: "g ${group} -\n") machine.groups;
  "nixos-module/systemd/tmpfiles.d/lazystore.conf" = header
    + "d /etc/lazystore 0755 root root -\nd /run/lazystore 0755 root root -\n"
    + lib.concatMapStrings (rule: "${rule}\n") machine.tmpfiles;
  "docs/nixos-options.md" = ''
    # Options of the NixOS module

    Made from `nixos-module/` by its tests. [nixos.md](nixos.md) says how to use them, [configuration.md](configuration.md) what sources,
    caches and stores are.

    ${lib.concatMapStringsSep "\n" option options}'';
}
