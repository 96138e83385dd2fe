# All options of the module, as a list in the order of their names.
let
  inherit (import ./standin { }) lib evaluate;
  shown = value:
    if builtins.isAttrs value && (value._type or "") == "literalExpression" then value.text
    else if builtins.isAttrs value && (value._type or "") == "literalMD" then value.text
    else if builtins.isAttrs value && value == { } then "{ }"
    else if builtins.isAttrs value then "{ ${lib.concatStrings (lib.mapAttrsToList (name: inner: "${name} = ${shown inner}; ") value)}}"
    else if builtins.isList value then if value == [ ] then "[ ]" else "[ ${lib.concatMapStringsSep " " shown value} ]"
    else builtins.toJSON value;
  flatten = node:
    if lib.isOption node then
      (if node.internal or false then [ ] else [ node ])
      ++ lib.concatMap flatten (lib.attrValues (removeAttrs (node.type.getSubOptions node.loc) [ "_module" ]))
    else lib.concatMap flatten (lib.attrValues node);
  described = option: {
    name = lib.showOption option.loc;
    type = option.type.description;
    default = if option ? defaultText then shown option.defaultText else if option ? default then shown option.default else null;
    example = if option ? example then shown option.example else null;
    description = option.description or null;
  };
in
map described (flatten (evaluate [ ]).options.services.lazystore)
