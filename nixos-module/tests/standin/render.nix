# Units as systemd reads them, from what is set of them.
{ lib }:
let
  entry = name: value:
    if value == null then [ ]
    else if builtins.isList value then lib.concatMap (entry name) value
    else [ "${name}=${if builtins.isBool value then lib.boolToString value else toString value}" ];
  section = header: entries: if entries == [ ] then [ ] else [ "[${header}]" ] ++ entries ++ [ "" ];
  settings = set: lib.concatLists (lib.mapAttrsToList entry set);
  names = key: list: lib.optional (list != [ ]) "${key}=${lib.concatStringsSep " " list}";

  unit = one: section "Unit" (
    lib.optional (one.description != "") "Description=${one.description}"
    ++ names "Documentation" one.documentation
    ++ names "Requires" one.requires
    ++ names "BindsTo" one.bindsTo
    ++ names "PartOf" one.partOf
    ++ names "Wants" one.wants
    ++ names "Conflicts" one.conflicts
    ++ names "After" one.after
    ++ names "Before" one.before
    ++ settings one.unitConfig
  );
  install = one: section "Install" (names "WantedBy" one.wantedBy ++ names "RequiredBy" one.requiredBy);
  text = parts: lib.concatStringsSep "\n" (lib.concatLists parts);

  environment = lib.mapAttrsToList (name: value: "Environment=${builtins.toJSON "${name}=${value}"}");
  escapePath = path: lib.replaceStrings [ "-" "/" ] [ "\\x2d" "-" ] (lib.removePrefix "/" path);
in
{
  inherit escapePath;
  service = one: text [ (unit one) (section "Service" (environment one.environment ++ settings one.serviceConfig)) (install one) ];
  socket = one: text [ (unit one) (section "Socket" (entry "ListenStream" one.listenStreams ++ settings one.socketConfig)) (install one) ];
  mount = one: text [
    (unit one)
    (section "Mount" (settings ({ What = one.what; Where = one.where; Type = one.type; Options = one.options; } // one.mountConfig)))
    (install one)
  ];
}
