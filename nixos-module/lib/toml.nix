# Sets as TOML: the two levels of tables that a configuration file of lazystore has, and what stands in them.
{ lib }:
let
  # The escapes of JSON are those of TOML, but for DEL, which JSON leaves as it is.
  string = text: builtins.replaceStrings [ (builtins.fromJSON "\"\\u007f\"") ] [ "\\u007F" ] (builtins.toJSON text);
  key = name: if builtins.match "[A-Za-z0-9_-]+" name != null then name else string name;
  isTable = value: builtins.isAttrs value && !lib.isDerivation value;

  value = value:
    if builtins.isList value then "[${lib.concatMapStringsSep ", " toml value}]"
    else if isTable value then "{ ${lib.concatStringsSep ", " (lib.mapAttrsToList (name: inner: "${key name} = ${toml inner}") value)} }"
    else if builtins.isBool value then lib.boolToString value
    else if builtins.isInt value || builtins.isFloat value then builtins.toJSON value
    else string "${value}";
  toml = value;

  # A table with its header; null and what is empty are left out.
  table = header: set:
    let
      present = lib.filterAttrs (_: value: value != null && value != [ ] && value != { }) set;
    in
    "[${header}]\n" + lib.concatStrings (lib.mapAttrsToList (name: inner: "${key name} = ${toml inner}\n") present);
in
{
  # `{ source = { lan = { address = …; }; }; }` as `[source.lan]` and so on, in the order of names.
  render = set: lib.concatStringsSep "\n" (lib.concatMap
    (kind: lib.mapAttrsToList (name: table "${kind}.${key name}") set.${kind})
    (lib.filter (kind: set ? ${kind}) [ "source" "cache" "store" ]));
}
