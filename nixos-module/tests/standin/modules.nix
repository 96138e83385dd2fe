# The module system: options, definitions with priorities and conditions, and their evaluation. An option that nobody
# declared, and a value that is not of its type, end the evaluation, as in nixpkgs.
lib:
let
  inherit (builtins) attrNames concatLists concatMap elem filter functionArgs head intersectAttrs isAttrs isList isPath isString length map;
  inherit (lib) concatStringsSep foldl' genAttrs isFunction mapAttrs nameValuePair optional unique;

  priorityOfDefaults = 1500;
  showOption = concatStringsSep ".";
  isOption = value: isAttrs value && (value._type or null) == "option";

  shown = value:
    let
      plain = value:
        if builtins.isFunction value then "<function>"
        else if lib.isDerivation value then "<derivation>"
        else if isPath value then toString value
        else if isAttrs value then mapAttrs (_: plain) value
        else if isList value then map plain value
        else value;
    in
    builtins.toJSON (plain value);

  showDefs = definitions: lib.concatMapStrings ({ file, value, ... }: "\n- In `${file}': ${shown value}") definitions;

  # A module as a set of imports, options and config.
  unfold = args: file: module:
    let
      name = if isPath module || isString module then toString module else file;
      given = if isPath module || isString module then import module else module;
      passed = if isFunction given then given (args // intersectAttrs (functionArgs given) args) else given;
      structured = passed ? options || passed ? config;
      extra = removeAttrs passed [ "imports" "options" "config" "_file" "key" "meta" ];
    in
    if structured && extra != { } then
      throw "Module `${name}' has an unsupported attribute `${head (attrNames extra)}': move it into `config'"
    else {
      file = passed._file or name;
      imports = passed.imports or [ ];
      options = passed.options or { };
      config = if structured then passed.config or { } else extra;
    };

  unfoldAll = args: modules:
    concatMap
      ({ file, module }:
        let one = unfold args file module;
        in [ one ] ++ unfoldAll args (map (module: { inherit (one) file; inherit module; }) one.imports))
      modules;

  mergeOptions = loc: sets:
    let
      names = unique (concatMap ({ value, ... }: attrNames value) sets);
      at = name:
        let
          here = filter ({ value, ... }: value ? ${name}) sets;
          values = map ({ file, value }: { inherit file; value = value.${name}; }) here;
        in
        if isOption (head values).value then
          if length values == 1 then (head values).value
          else throw "The option `${showOption (loc ++ [ name ])}' is declared twice: in ${concatStringsSep " and " (map (v: v.file) values)}"
        else mergeOptions (loc ++ [ name ]) values;
    in
    genAttrs names at;

  # Conditions and priorities above an attribute set hold for what is in it.
  pushDown = { file, value, ... }:
    let kind = if isAttrs value then value._type or "" else ""; in
    if kind == "merge" then concatMap (value: pushDown { inherit file value; }) value.contents
    else if kind == "if" then
      map (inner: { inherit file; value = mapAttrs (_: content: lib.mkIf value.condition content) inner.value; })
        (pushDown { inherit file; value = value.content; })
    else if kind == "override" then
      map (inner: { inherit file; value = mapAttrs (_: content: lib.mkOverride value.priority content) inner.value; })
        (pushDown { inherit file; value = value.content; })
    else [{ inherit file value; }];

  # What an option is given: conditions that hold and highest priorities only.
  discharge = { file, value, priority ? 100 }:
    let kind = if isAttrs value then value._type or "" else ""; in
    if kind == "merge" then concatMap (value: discharge { inherit file value priority; }) value.contents
    else if kind == "if" then
      (if !builtins.isBool value.condition then throw "`mkIf' in `${file}' needs a boolean"
      else if value.condition then discharge { inherit file priority; value = value.content; } else [ ])
    else if kind == "override" then discharge { inherit file; inherit (value) priority; value = value.content; }
    else [{ inherit file value priority; }];

  evalOption = loc: option: definitions:
    let
      name = showOption loc;
      inherit (option) type;
      defaults = lib.optional (option ? default) { file = "its default"; value = option.default; priority = priorityOfDefaults; };
      all = concatMap discharge definitions ++ concatMap discharge defaults;
      best = foldl' (low: one: if one.priority < low then one.priority else low) (priorityOfDefaults + 1) all;
      chosen = filter (one: one.priority == best) all;
      wrong = filter (one: !type.check one.value) chosen;
      written = filter (one: one.priority < priorityOfDefaults) all;
      merged =
        if chosen == [ ] then
          throw "The option `${name}' was accessed but has no value defined. Try setting the option."
        else if wrong != [ ] then
          throw "A definition for option `${name}' is not of type `${type.description}'. Definition values:${showDefs wrong}"
        else if (option.readOnly or false) && length written > 1 then
          throw "The option `${name}' is read-only, but it's set multiple times. Definition values:${showDefs written}"
        else type.merge loc chosen;
    in
    option // { inherit loc; isDefined = chosen != [ ]; value = (option.apply or (value: value)) merged; };

  evalTree = loc: tree: definitions:
    let
      pushed = concatMap pushDown definitions;
      notSets = filter ({ value, ... }: !isAttrs value) pushed;
      unknown = concatMap
        ({ file, value }: map (name: { inherit file name; value = value.${name}; }) (filter (name: !(tree ? ${name})) (attrNames value)))
        pushed;
      # A set whose conditions are all false defines nothing.
      reallyUnknown = filter (one: discharge { inherit (one) file value; } != [ ]) unknown;
      at = name:
        let
          own = concatMap ({ file, value }: if value ? ${name} then [{ inherit file; value = value.${name}; }] else [ ]) pushed;
          here = loc ++ [ name ];
        in
        if isOption tree.${name} then evalOption here tree.${name} own else evalTree here tree.${name} own;
    in
    if notSets != [ ] then
      throw "`${showOption loc}' is a set of options, not a value:${showDefs notSets}"
    else if reallyUnknown != [ ] then
      throw "The option `${showOption (loc ++ [ (head reallyUnknown).name ])}' does not exist. Definition values:${showDefs reallyUnknown}"
    else genAttrs (attrNames tree) at;

  values = mapAttrs (_: node: if isOption node then node.value else values node);
in
rec {
  inherit showOption isOption evalOption;
  pushDownAll = concatMap pushDown;

  mkOption = declaration: { _type = "option"; type = lib.types.unspecified; } // declaration;
  mkEnableOption = what: mkOption {
    type = lib.types.bool;
    default = false;
    example = true;
    description = "Whether to enable ${what}.";
  };

  mkIf = condition: content: { _type = "if"; inherit condition content; };
  mkMerge = contents: { _type = "merge"; inherit contents; };
  mkOverride = priority: content: { _type = "override"; inherit priority content; };
  mkDefault = mkOverride 1000;
  mkForce = mkOverride 50;

  # Merging of several definitions
  mergeOneOption = loc: definitions:
    if length definitions == 1 then (head definitions).value
    else throw "The option `${showOption loc}' is defined multiple times while it's expected to be unique. Definition values:${showDefs definitions}";
  mergeEqualOption = loc: definitions:
    if lib.all (one: one.value == (head definitions).value) definitions then (head definitions).value
    else throw "The option `${showOption loc}' has conflicting definition values:${showDefs definitions}";

  mkOptionType =
    { name, description ? name, check ? (_: true), merge ? mergeOneOption, getSubOptions ? (_: { }), ... }@type:
    { inherit name description check merge getSubOptions; } // type // { _type = "option-type"; };

  evalModules = { modules, specialArgs ? { }, prefix ? [ ] }:
    let
      args = specialArgs // { inherit lib config options; };
      all = unfoldAll args (map (module: { file = "<the test>"; inherit module; }) modules);
      tree = mergeOptions prefix (map (one: { inherit (one) file; value = one.options; }) all);
      options = evalTree prefix tree (map (one: { inherit (one) file; value = one.config; }) all);
      config = values options;
    in
    { inherit config options; };
}
