# What a service needs of the sources, caches and stores that are configured: which are within its reach, what of them
# becomes its configuration file, and which secrets and directories go with them.
{ lib, types', toml, cfg }:
let
  inherit (lib) concatMap concatMapStringsSep filter filterAttrs foldl' mapAttrs optional optionalAttrs unique;

  unixSockets = filter (lib.hasPrefix "/") cfg.daemon.listen;
  daemonAddress = "grpc+unix://${lib.head unixSockets}";
  # A source of which only the address is said.
  bare = address: {
    inherit address;
    trustedPublicKeys = [ ];
    options = { };
  } // lib.genAttrs [
    "verify" "timeout" "attempts" "dialect" "sizes" "compress" "ca" "cert" "key" "tokenFile" "insecure" "requireSigs"
    "foreignUrls" "priority" "netrc"
  ] (_: null);
in
rec {
  # The daemon of this machine is a source of all others, and its own store is one if nothing else is.
  sources = optionalAttrs (cfg.daemon.enable && unixSockets != [ ]) { daemon = bare daemonAddress; }
    // optionalAttrs (cfg.sources == { }) { local = bare "local:"; }
    // cfg.sources;
  caches = if cfg.caches == { } then { disk = { dir = null; size = null; }; } else cfg.caches;
  inherit (cfg) stores;

  addresses = source: concatMap (text: filter (one: one != "") (lib.splitString " " text)) (lib.toList source.address);
  isLocal = source: lib.any (lib.hasPrefix "local:") (addresses source);
  isFar = source: !isLocal source && addresses source != [ "memory:" ];
  isOfDaemon = source: lib.any (address: lib.elem address (map (socket: "grpc+unix://${socket}") unixSockets)) (addresses source);

  # Which store a service that names none means; null if that cannot be told.
  default = { isDaemon }:
    let own = lib.attrNames cfg.sources; in
    if stores ? default then "default"
    else if !isDaemon && cfg.daemon.enable && sources ? daemon then "daemon"
    else if own == [ ] then "local"
    else if lib.length own == 1 then lib.head own
    else null;

  # What a store names.
  named = store:
    let
      write = from: optional (from.write != null && from.write != "none") from.write;
      services = [ store store.blobs store.directories store.pathInfos ];
    in
    unique (concatMap (service: service.read ++ write service) services);

  # A store or a source with all that is within it.
  reach =
    let
      go = seen: name:
        if lib.elem name seen then seen
        else if stores ? ${name} then foldl' go (seen ++ [ name ]) (named stores.${name})
        else seen ++ [ name ];
    in
    go [ ];

  # The cache of a store: its name, null for none, or "" if there are several to choose from.
  cacheOf = store:
    let own = store.cache or null; in
    if own == "none" then null
    else if own != null then own
    else if lib.length (lib.attrNames caches) == 1 then lib.head (lib.attrNames caches)
    else "";

  # All of it for one service.
  forUnit = { unit, store, loadCredentials, secrets ? { }, ... }:
    let
      reached = reach store;
      ownSources = filterAttrs (name: _: lib.elem name reached) sources;
      ownStores = filterAttrs (name: _: lib.elem name reached) stores;
      needsCache = lib.any isFar (lib.attrValues ownSources);
      cacheNames = map cacheOf (lib.attrValues ownStores ++ optional (!stores ? ${store}) { });
      ownCaches = optionalAttrs needsCache (filterAttrs (name: _: lib.elem name cacheNames) caches);

      secretsOfSource = name: source: lib.concatMapAttrs
        (key: file: optionalAttrs (file != null) { "source-${name}-${key}" = file; })
        { inherit (source) ca cert key netrc; token-file = source.tokenFile; };
      secretsOfStore = name: store: lib.listToAttrs
        (lib.imap0 (at: file: lib.nameValuePair "store-${name}-sign-key-${toString at}" file) store.signKeyFiles);
      all = secrets // lib.concatMapAttrs secretsOfSource ownSources // lib.concatMapAttrs secretsOfStore ownStores;
      secretAt = id: if loadCredentials then "/run/credentials/${unit}.service/${id}" else all.${id};
      here = id: file: if file == null then null else secretAt id;
    in
    {
      inherit reached ownSources ownStores ownCaches secretAt;
      secretFiles = all;
      readsLocal = lib.any isLocal (lib.attrValues ownSources);
      readsDaemon = lib.any isOfDaemon (lib.attrValues ownSources);
      credentials = lib.optionals loadCredentials (lib.mapAttrsToList (id: file: "${id}:${file}") all);
      cacheDirs = lib.mapAttrs (name: cache: if cache.dir != null then cache.dir else "/var/cache/${unit}/${name}") ownCaches;
      text = render {
        inherit here;
        sources = ownSources;
        stores = ownStores;
        caches = mapAttrs
          (name: cache: cache // optionalAttrs (cache.dir == null) { dir = "/var/cache/${unit}/${name}"; })
          ownCaches;
      };
    };

  # The file for people, who have the secrets where they are.
  forPeople = render {
    here = _: file: file;
    sources = filterAttrs (name: _: name != "local") sources // cfg.sources;
    inherit stores;
    caches = mapAttrs (_: cache: cache // optionalAttrs (cache.dir == null) { dir = "/var/cache/lazystore"; })
      (if lib.count (cache: cache.dir == null) (lib.attrValues cfg.caches) > 1
      then filterAttrs (_: cache: cache.dir != null) cfg.caches else cfg.caches);
  };

  render = { here, sources, stores, caches }: toml.render {
    source = mapAttrs (sourceTable here) sources;
    cache = mapAttrs (_: cache: { inherit (cache) dir size; }) caches;
    store = mapAttrs (storeTable here) stores;
  };

  sourceTable = here: name: source:
    let secret = key: here "source-${name}-${key}"; in
    {
      inherit (source) address verify timeout attempts dialect sizes compress insecure priority options;
      ca = secret "ca" source.ca;
      cert = secret "cert" source.cert;
      key = secret "key" source.key;
      netrc = secret "netrc" source.netrc;
      token-file = secret "token-file" source.tokenFile;
      trusted-public-keys = source.trustedPublicKeys;
      require-sigs = source.requireSigs;
      foreign-urls = source.foreignUrls;
    };

  storeTable = here: name: store:
    let
      part = service: filterAttrs (_: value: value != null && value != [ ]) { inherit (service) read write; };
    in
    {
      inherit (store) read write cache;
      blobs = part store.blobs;
      directories = part store.directories;
      path-infos = part store.pathInfos;
      sign-key-files = lib.imap0 (at: here "store-${name}-sign-key-${toString at}") store.signKeyFiles;
      fetch-whole-up-to = store.fetchWholeUpTo;
      absent-ttl = store.absentTtl;
    };
}
