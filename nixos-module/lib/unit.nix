# What the units of all services have in common: the configuration file, the command line, directories, secrets.
{ lib, pkgs, cfg, resolve, command, hardening }:
let
  inherit (lib) optional optionalAttrs optionals;
in
rec {
  # A service as it is configured, with what follows from that. `kind` is the subcommand, `path` the place
  # of its options; `secrets` are files that the
  # command line names, by the names that they are handed over under.
  service = { unit, kind, path, options, secrets ? { }, isRoot ? false, isDaemon ? false }:
    let
      store = if options.store != null then options.store else resolve.default { inherit isDaemon; };
      resolved = resolve.forUnit {
        inherit unit secrets;
        inherit (options) loadCredentials;
        # Assertions tell what is wrong with it.
        store = if store == null then "" else store;
      };
      user = if isRoot then "root" else options.user or null;
    in
    {
      inherit unit kind path options store resolved secrets isRoot isDaemon user;
      # Who owns its files: no two units have the same made-up user.
      owner = if user == null then unit else user;
      configFile = configFile unit resolved.text;
    };

  # Each file is checked by the program when the system is built, if this machine can run it.
  configFile = unit: text: pkgs.writeTextFile {
    name = "${unit}.toml";
    inherit text;
    checkPhase = lib.optionalString cfg.checkConfig ''
      ${cfg.package}/bin/lazystore config check --offline --cache-dir "$PWD/cache" --store-dir "$PWD/store" "$target"
    '';
  };

  # `lazystore KIND PLACE --config=… OPTIONS`. The place comes first: some options take all that follows.
  execStart = service: { place ? [ ], flags }: command.line (
    [ "${cfg.package}/bin/lazystore" service.kind ] ++ place
    ++ command.flags {
      config = service.configPath or "/etc/lazystore/${service.unit}.toml";
      inherit (service) store;
      inherit (service.options) drain offline verify;
      store-dir = "/var/lib/lazystore";
      log-level = service.options.logLevel;
      log-format = service.options.logFormat;
      progress = "never";
      slow-log = service.options.slowLog;
      otlp-endpoint = service.options.otlpEndpoint;
      metrics = map listenAt service.options.metrics;
    }
    ++ command.flags flags
    ++ service.options.extraArgs
  );

  serviceConfig = service:
    let
      inherit (service) options resolved unit user;
      dirs = lib.attrValues resolved.cacheDirs;
      inCache = lib.filter (lib.hasPrefix "/var/cache/") dirs;
      elsewhere = lib.filter (dir: !lib.hasPrefix "/var/cache/" dir) dirs;
      top = dir: if lib.hasPrefix "/var/cache/${unit}/" dir then unit else lib.removePrefix "/var/cache/" dir;
    in
    {
      Type = "notify";
      NotifyAccess = "main";
      # The shell's own kill: small systems lack the program.
      ExecReload = "${pkgs.runtimeShell} -c 'kill -HUP $MAINPID'";
      KillMode = "mixed";
      LimitNOFILE = options.openFilesMax;
      # Always there, so that a cache can be named at any time.
      CacheDirectory = lib.unique ([ unit ] ++ map top inCache);
      CacheDirectoryMode = "0700";
      # Wrong usage stays wrong, and so does what is configured.
      RestartPreventExitStatus = "2 78";
      TimeoutStopSec = options.drain + 20;
    }
    // optionalAttrs (options.watchdog != null) { WatchdogSec = options.watchdog; }
    // optionalAttrs (resolved.credentials != [ ]) { LoadCredential = resolved.credentials; }
    // optionalAttrs (options.environmentFiles != [ ]) { EnvironmentFile = options.environmentFiles; }
    // optionalAttrs (lib.any (lib.hasPrefix "/") options.metrics) { RuntimeDirectory = unit; }
    // optionalAttrs (options.accessLog or false) {
      LogsDirectory = unit;
      LogsDirectoryMode = "0750";
    }
    // (if service.isRoot then hardening.mount { inherit (resolved) readsLocal; }
    else hardening.server
      // (if user == null then { DynamicUser = true; } else { User = user; })
      // optionalAttrs (elsewhere != [ ]) { ReadWritePaths = elsewhere; }
      // optionalAttrs resolved.readsDaemon { SupplementaryGroups = [ "lazystore" ]; });

  # The dependencies on what it reads from.
  unitConfig = service: {
    after = [ "network.target" "nss-lookup.target" ]
      ++ optionals (service.options.closureOf or [ ] != [ ]) [ "network-online.target" ]
      ++ optional service.resolved.readsDaemon daemonUnit;
    wants = optionals (service.options.closureOf or [ ] != [ ]) [ "network-online.target" ]
      ++ optional service.resolved.readsDaemon daemonUnit;
    inherit (service.options) environment;
    reloadTriggers = [ service.configFile ];
    # A cache that is in use cannot be moved or resized.
    restartTriggers = lib.mapAttrsToList (name: cache: "${service.resolved.cacheDirs.${name}} ${toString cache.size}") service.resolved.ownCaches;
  };
  daemonUnit = if cfg.daemon.socketActivation then "lazystore-daemon.socket" else "lazystore-daemon.service";

  # Directories that systemd does not make: those of users that exist.
  tmpfiles = service:
    let elsewhere = lib.filter (dir: !lib.hasPrefix "/var/cache/" dir) (lib.attrValues service.resolved.cacheDirs); in
    map (dir: "d ${dir} 0700 ${if service.user == null then "-" else service.user} - -") elsewhere;

  # Secrets without those that are not given, and where the service finds them.
  given = lib.filterAttrs (_: file: file != null);
  secretFlags = service: lib.mapAttrs (id: _: service.resolved.secretAt id) service.secrets;

  # The socket unit of a server.
  socket = what: options: {
    description = "Socket of the ${what}";
    wantedBy = [ "sockets.target" ];
    listenStreams = options.listen;
    socketConfig = {
      SocketMode = options.socketMode;
      SocketGroup = options.socketGroup;
      DirectoryMode = "0755";
      FreeBind = true;
      Backlog = 1024;
    };
  };
  startedBySocket = unit: options: lib.mkIf options.socketActivation {
    requires = [ "${unit}.socket" ];
    after = [ "${unit}.socket" ];
  };
  ports = options: map (address: lib.toInt (lib.last (lib.splitString ":" address)))
    (lib.filter (address: !lib.hasPrefix "/" address) options.listen);

  # Where a server listens if systemd does not.
  listenFlags = options: optionalAttrs (!options.socketActivation) {
    listen = map listenAt options.listen;
  };
  listenAt = address: if lib.hasPrefix "/" address then "unix:${address}" else address;

  # What is to be seen.
  viewFlags = service:
    let inherit (service) options; in
    {
      list-root = options.listRoot;
      # On by default, so that only the other word says something.
      show-xattr = if options.showXattr then null else "false";
      only = options.only;
      closure-of = options.closureOf;
      only-from = options.onlyFrom;
      access-log = if options.accessLog then "/var/log/${service.unit}/access.log" else null;
    };

  mountCommand = service:
    let inherit (service) options; in
    execStart service {
      place = [ options.mountPoint ];
      flags = viewFlags service // {
        import = options.import;
        allow-other = options.allowOther;
        io-mode = options.ioMode;
        inherit (options) threads;
      };
    };

  # A command whose process systemd spares when it leaves the initrd: its name begins with @.
  asSurvivor = line:
    let words = lib.splitString " " line; in
    lib.concatStringsSep " " ([ "@${lib.head words}" "@lazystore" ] ++ lib.tail words);
}
