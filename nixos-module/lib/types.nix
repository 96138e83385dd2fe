# Types whose description says what a value has to look like: it is what an evaluation that fails prints.
{ lib }:
let
  inherit (builtins) isFloat isInt isString;
  inherit (lib) mergeEqualOption mkOptionType;
  checked = name: description: check: mkOptionType {
    inherit name description check;
    merge = mergeEqualOption;
  };
  matches = pattern: value: isString value && builtins.match pattern value != null;
  units = { "" = 1; K = 1024; M = 1048576; G = 1073741824; T = 1099511627776; };
  pathPattern = "/[A-Za-z0-9._/+@-]*";
in
rec {
  # How many bytes a size means, or null if it is none.
  bytes = value:
    let
      parts = builtins.match "([0-9]{1,15}) ?([KMGTkmgt]?)(i?B)?" value;
      unit = lib.replaceStrings [ "k" "m" "g" "t" ] [ "K" "M" "G" "T" ] (builtins.elemAt parts 1);
    in
    if isInt value then (if value >= 0 then value else null)
    else if !isString value || parts == null then null
    # JSON knows no leading zeros.
    else builtins.fromJSON (builtins.head (builtins.match "0*([0-9]+)" (builtins.head parts))) * units.${unit};

  sizeBetween = low: high: words: checked "size" "number of bytes, or a string like \"64GiB\" or \"500M\" (${words})"
    (value: let size = bytes value; in size != null && low <= size && (high == null || size <= high));
  cacheSize = sizeBetween 16777216 null "16 MiB at least";
  wholeSize = sizeBetween 0 1048576 "1 MiB at most";
  tmpfsSize = checked "tmpfsSize" "size of a tmpfs, like \"50%\" of the memory, or \"2G\"" (matches "[0-9]+[kmgKMG%]?");
  anySize = sizeBetween 0 null "no unit means bytes";

  secondsBetween = low: high: checked "seconds" "number of seconds, from ${builtins.toJSON low} to ${builtins.toJSON high}"
    (value: (isInt value || isFloat value) && low <= value && value <= high);

  # What a unit refers to is written into unit files and into options of mount(8), where other characters mean something.
  place = checked "place" "absolute path, as a string of letters, digits and . _ - + @ / alone"
    (value: matches pathPattern value && builtins.match ".*/\\.\\.?(/.*)?" value == null);

  secretFile = checked "secretFile"
    "absolute path outside the Nix store, written as a string (a path without quotes would be copied into the store, where everybody may read it)"
    (value: place.check value && !lib.hasPrefix "/nix/store/" value);

  name = checked "name" "name of letters, digits, dots, dashes and underscores, other than \"none\""
    (value: matches "[A-Za-z0-9._-]+" value && value != "none");

  storePath = checked "storePath" "store path, like \"/nix/store/…-hello-2.12\" (or a package)"
    (value: lib.isDerivation value || matches "/nix/store/[0-9a-df-np-sv-z]{32}-[0-9a-zA-Z+._?=-]+" value);

  sourceAddress = checked "sourceAddress"
    "address of a store: \"memory:\", \"local:\", \"local:///dir\", \"grpc+http(s)://host:port\", \"grpc+unix:///socket\", \"objectstore+s3://bucket/prefix\" (or gs, az, file, http, https), \"bigtable://instance\" or \"nix+http(s)://host/prefix\""
    (matches "memory:|local:|local:///.*|grpc\\+(https?://[^/@ ]+/?|unix:///[^ ]*)([?].*)?|objectstore\\+(s3|gs|az|file|https?)://.*|bigtable:.+|(nix\\+https?://[^/@ ]+[^@# ]* ?)+");

  listenAddress = checked "listenAddress"
    "place to listen: an absolute path for a unix socket, or an address with a port like \"127.0.0.1:8000\", \"[::1]:8000\" or \"name.example.org:8000\""
    (value: (place.check value && builtins.stringLength value <= 100) || matches "([0-9a-zA-Z.-]+|\\[[0-9a-fA-F:.]+]):[0-9]{1,5}" value);

  mode = checked "mode" "mode of a file, like \"0660\"" (matches "0?[0-7]{3}");

  publicKey = checked "publicKey" "public key of a binary cache, like \"cache.nixos.org-1:6NCHdD59X431o0gWypbMrAURkbJ16ZPMQFGspcDShjY=\""
    (matches "[^: ]+:[A-Za-z0-9+/]{43}=");
}
