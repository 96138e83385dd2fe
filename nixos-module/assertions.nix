# Settings that cannot work, told before anything is built: what is wrong, and what to do.
{ config, lib, pkgs, ... }:
let
  inherit (lib) concatMap concatStringsSep filter mapAttrsToList optionals;
  cfg = config.services.lazystore;
  inherit (import ./lib { inherit lib pkgs cfg; }) resolve types';
  inherit (resolve) sources stores;
  prefix = "services.lazystore";
  services = lib.attrValues cfg.services;
  mounts = lib.filterAttrs (_: options: options.enable) cfg.mounts;
  list = names: if names == [ ] then "none" else concatStringsSep ", " names;
  check = assertion: message: { inherit assertion message; };
  isWithin = outer: inner: inner == outer || lib.hasPrefix "${lib.removeSuffix "/" outer}/" inner;

  # Addresses
  isOfThisMachine = address:
    lib.hasPrefix "/" address
    || builtins.match "(127\\.[0-9.]+|\\[::1]|localhost):[0-9]+" address != null;
  isPlain = address:
    lib.hasPrefix "grpc+http://" address
    && builtins.match "grpc\\+http://(127\\.[0-9.]+|\\[::1]|localhost)(:[0-9]+)?/?([?].*)?" address == null;
  kindOf = address: lib.head (builtins.match "(grpc|objectstore|nix|bigtable|memory|local).*" address);
  # Which of the options of a source each kind of address takes.
  known = {
    grpc = [ "verify" "timeout" "attempts" "dialect" "sizes" "compress" "ca" "cert" "key" "tokenFile" "insecure" "options" ];
    nix = [ "verify" "timeout" "attempts" "tokenFile" "trustedPublicKeys" "requireSigs" "foreignUrls" "priority" "netrc" "options" ];
    objectstore = [ "verify" "timeout" "sizes" "options" ];
    bigtable = [ "verify" "timeout" "sizes" "options" ];
    memory = [ "verify" ];
    local = [ "verify" ];
  };
  given = source: lib.attrNames
    (lib.filterAttrs (name: value: name != "address" && name != "_module" && value != null && value != [ ] && value != { }) source);

  ofSource = name: source:
    let
      at = "${prefix}.sources.${name}";
      addresses = resolve.addresses source;
      kind = kindOf (lib.head addresses);
      alien = filter (key: !lib.elem key known.${kind}) (given source);
      hasQuery = key: lib.any (lib.hasInfix "${key}=") addresses;
    in
    [
      (check (alien == [ ]) "${at}: ${list alien} means nothing to ${kind}: addresses. Leave it out.")
      (check (lib.length addresses == 1 || lib.all (address: kindOf address == "nix") addresses)
        "${at}.address: only binary caches (nix+http, nix+https) can be several. Make a source of each, and a store that reads them.")
      (check ((source.cert == null) == (source.key == null)) "${at}: cert and key belong together. Give both or none.")
      (check (kind != "nix" || source.trustedPublicKeys != [ ] || source.requireSigs == false || hasQuery "trusted-public-keys" || hasQuery "require-sigs")
        "${at} is a binary cache of which no key is known, so that nothing of it is believed. Set trustedPublicKeys, or requireSigs = false to believe anybody.")
      (check (source.tokenFile == null || source.insecure == true || hasQuery "insecure" || !lib.any isPlain addresses)
        "${at}: the token would be readable on its way. Use grpc+https, or set insecure = true if the network is trusted.")
      (check (kind == "grpc" -> !(source.ca != null || source.cert != null) || lib.all (lib.hasPrefix "grpc+https:") addresses)
        "${at}: ca, cert and key are for grpc+https addresses.")
    ];

  ofStore = name: store:
    let
      at = "${prefix}.stores.${name}";
      parts = resolve.named store;
      strangers = filter (part: !sources ? ${part} && !stores ? ${part}) parts;
      inCircle = lib.any (part: lib.elem name (resolve.reach part)) (filter (part: stores ? ${part}) parts);
      nowhere = store.read == [ ] && lib.any (service: service.read == [ ]) [ store.blobs store.directories store.pathInfos ];
      cache = resolve.cacheOf store;
    in
    [
      (check (strangers == [ ])
        "${at}: there is no source or store called ${list strangers}. There are ${list (lib.attrNames (sources // stores))}.")
      (check (!nowhere) "${at} has nowhere to read from. Set read = [ \"SOURCE\" ].")
      (check (!inCircle) "${at} contains itself. Read sources instead, or a store that does not read this one.")
      (check (!sources ? ${name}) "${prefix}: a source and a store are both called ${name}. Names must differ.")
      (check (cache != "") "${at}: there are several caches. Set cache to one of ${list (lib.attrNames resolve.caches)}, or to \"none\".")
      (check (cache == "" || cache == null || resolve.caches ? ${cache})
        "${at}: there is no cache called ${toString cache}. There are ${list (lib.attrNames resolve.caches)}, or \"none\".")
      (check (cache != null || strangers != [ ] || !lib.any (part: sources ? ${part} && kindOf (lib.head (resolve.addresses sources.${part})) == "nix") store.read)
        "${at} reads a binary cache, which needs a cache: its archives are taken apart into one. Set cache.")
    ];

  ofService = service:
    let
      inherit (service) options store resolved;
      at = "${prefix}.${service.path}";
      dirs = filter (dir: !lib.hasPrefix "/var/cache/" dir) (lib.attrValues resolved.cacheDirs);
      locals = filter (name: resolve.isLocal resolved.ownSources.${name}) (lib.attrNames resolved.ownSources);
      localDirs = filter (address: builtins.match "local:///.*" address != null && !isWithin "/var/lib/lazystore" (lib.removePrefix "local://" address))
        (concatMap resolve.addresses (map (name: sources.${name}) locals));
      isForeign = !service.isDaemon && !service.isRoot && (service.user == null || service.user != cfg.daemon.user);
    in
    [
      (check (store != null)
        "${at}.store: there are several sources and no store called default. Set it to one of ${list (lib.attrNames (sources // stores))}.")
      (check (store == null || sources ? ${store} || stores ? ${store})
        "${at}.store: there is no store or source called ${toString store}. There are ${list (lib.attrNames (sources // stores))}.")
      (check (!service.isDaemon || !resolved.readsDaemon)
        "${at} would read from itself. Set its store to something that does not read from the socket on which it listens.")
      (check (locals == [ ] || !isForeign)
        "${at} cannot read ${list locals}: a store on this disk belongs to the daemon. Read it through the daemon (services.lazystore.daemon.enable = true, store = \"daemon\"), or let both run as one user (user).")
      (check (localDirs == [ ] || service.isRoot || service.user != null)
        "${at} cannot write to ${list localDirs}, as it runs as a user that systemd makes up. Use local:, which is in /var/lib/lazystore, or set user to one that owns it.")
      (check (dirs == [ ] || service.isRoot || service.user != null)
        "${at} cannot have a cache in ${list dirs}, as it runs as a user that systemd makes up. Choose a directory in /var/cache, or set user.")
      (check (lib.all (address: !lib.hasPrefix "/" address || isWithin "/run/${service.unit}" address) options.metrics)
        "${at}.metrics: a unix socket has to be in /run/${service.unit}, where the service may make it.")
      (check (resolved.ownStores != { } || resolve.cacheOf { } != "" || !lib.any resolve.isFar (lib.attrValues resolved.ownSources))
        "${at}.store is a source, and there are several caches. Make a store that reads it and names its cache.")
    ];

  # Each explicit directory of a cache belongs to one user.
  owners = lib.foldl'
    (all: service: lib.foldl'
      (all: dir: all // { ${dir} = lib.unique ((all.${dir} or [ ]) ++ [ service.owner ]); })
      all
      (lib.attrValues service.resolved.cacheDirs))
    { }
    services;
  shared = mapAttrsToList
    (dir: users: check (lib.length users == 1)
      "${prefix}.caches: ${dir} would be written by ${list users}, who cannot read each other's files. Leave dir out, so that each service has a cache of its own, or give them one user.")
    owners;

  ofListener = at: options:
    let names = filter (address: !lib.hasPrefix "/" address && builtins.match "([0-9.]+|\\[.*]):[0-9]+" address == null) options.listen; in
    [
      (check (options.listen != [ ]) "${at}.listen is empty. Name at least one place, like \"[::1]:8000\".")
      (check (!options.socketActivation || names == [ ])
        "${at}.listen: systemd cannot listen on names (${list names}). Give addresses, or set socketActivation = false.")
      (check (options.socketActivation || !lib.any (lib.hasPrefix "/") options.listen || options.user != null)
        "${at}: without socketActivation, a user that systemd makes up cannot create the socket of a path. Set user, or leave socketActivation on.")
    ];
  open = options: filter (address: !isOfThisMachine address) options.listen;

  daemon = let at = "${prefix}.daemon"; options = cfg.daemon; in optionals options.enable (ofListener at options ++ [
    (check ((options.tlsCert == null) == (options.tlsKey == null)) "${at}: tlsCert and tlsKey belong together. Give both or none.")
    (check (options.tlsClientCa == null || options.tlsCert != null) "${at}.tlsClientCa needs TLS. Set tlsCert and tlsKey.")
    (check (options.insecure || options.tlsCert != null || open options == [ ])
      "${at}: others can connect to ${list (open options)}, and read what passes. Set tlsCert and tlsKey, or insecure = true if the network is trusted.")
  ]);

  binaryCache = let at = "${prefix}.binaryCache"; options = cfg.binaryCache; in optionals options.enable (ofListener at options ++ [
    (check (options.uploadTokenFile == null || options.allowUpload) "${at}.uploadTokenFile is for uploads. Set allowUpload = true, or leave it out.")
    (check (!options.allowUpload || options.uploadTokenFile != null || open options == [ ])
      "${at}: everybody who can connect to ${list (open options)} could bring store paths. Set uploadTokenFile.")
  ]);

  pairs = concatMap
    (name: map (other: { inherit name other; }) (filter (other: other != name) (lib.attrNames mounts)))
    (lib.attrNames mounts);
  ofMount = name: options:
    let
      at = "${prefix}.mounts.${name}";
      inherit (options) overlay initrd mountPoint;
      covered = filter ({ name, other }: isWithin mounts.${other}.mountPoint mounts.${name}.mountPoint)
        (filter (pair: pair.name == name) pairs);
      systemStore = isWithin mountPoint "/nix/store";
    in
    [
      (check (covered == [ ])
        "${at}.mountPoint: ${mountPoint} is at or in the mount ${list (map (pair: pair.other) covered)}, which is read-only. Choose another directory.")
      (check (mountPoint != "/" && !lib.hasSuffix "/" mountPoint) "${at}.mountPoint: ${mountPoint} is no directory to mount on. Leave out the slash at its end.")
      (check (!systemStore || overlay.enable)
        "${at}.mountPoint: ${mountPoint} would hide the store that this machine runs from. Mount elsewhere, like on /nix/.lazystore, and set overlay.enable = true.")
      (check (!overlay.enable || !(isWithin overlay.mountPoint mountPoint || isWithin mountPoint overlay.mountPoint))
        "${at}: the overlay at ${overlay.mountPoint} and the mount at ${mountPoint} would be in each other. Mount elsewhere, like on /nix/.lazystore.")
      (check (!overlay.enable || !lib.any (dir: isWithin mountPoint dir || isWithin overlay.mountPoint dir) [ overlay.upperDir overlay.workDir ])
        "${at}.overlay: upperDir and workDir must be outside of ${mountPoint} and ${overlay.mountPoint}.")
      (check (!overlay.enable || (overlay.upperDir != overlay.workDir && builtins.dirOf overlay.upperDir == builtins.dirOf overlay.workDir))
        "${at}.overlay: upperDir and workDir must be two directories of the same one, so that both are on one filesystem.")
      (check (!overlay.enable || options.allowOther) "${at}: an overlay is for all users. Set allowOther = true.")
      (check (overlay.keepLocal || initrd.enable || !overlay.enable || overlay.mountPoint != "/nix/store")
        "${at}.overlay: without keepLocal, the store that this machine runs from would be hidden. Set keepLocal = true, or initrd.enable = true to boot from the mount.")
      (check (!initrd.enable || config.boot.initrd.systemd.enable)
        "${at}.initrd needs systemd in the initrd. Set boot.initrd.systemd.enable = true.")
      (check (!initrd.enable || overlay.enable) "${at}.initrd: a machine cannot boot from a store that it cannot write to. Set overlay.enable = true.")
      (check (!initrd.enable || !options.loadCredentials) "${at}.initrd: systemd cannot hand over secrets to what outlives the initrd. Set loadCredentials = false.")
      (check (!initrd.enable || !initrd.network || config.boot.initrd.network.enable || config.boot.initrd.systemd.network.enable)
        "${at}.initrd waits for the network, which the initrd does not have. Set boot.initrd.systemd.network.enable = true, or initrd.network = false.")
    ];

  names = concatMap
    (kind: map
      (name: check (types'.name.check name && builtins.stringLength name <= 60)
        "${prefix}.${kind}: \"${name}\" is no name. Take letters, digits, dots, dashes and underscores, 60 at most, but not \"none\".")
      (lib.attrNames cfg.${kind}))
    [ "sources" "caches" "stores" "mounts" "virtiofs" ];

  sameName = filter (pair: mounts.${pair.name}.overlay.enable && mounts.${pair.other}.overlay.enable
    && mounts.${pair.name}.overlay.mountPoint == mounts.${pair.other}.overlay.mountPoint) pairs;
in
{
  config.assertions = names
    ++ lib.concatLists (mapAttrsToList ofSource sources)
    ++ lib.concatLists (mapAttrsToList ofStore stores)
    ++ concatMap ofService services
    ++ shared
    ++ daemon
    ++ binaryCache
    ++ lib.concatLists (mapAttrsToList ofMount mounts)
    ++ [
      (check (sameName == [ ])
        "${prefix}.mounts: ${list (map (pair: pair.name) sameName)} have overlays at the same place. Read both sources in one store, and mount that.")
    ];
}
