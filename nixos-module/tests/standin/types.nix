# The types of options.
lib:
let
  inherit (builtins) all any concatMap elem filter head isAttrs isBool isFloat isInt isList isPath isString length listToAttrs map match;
  inherit (lib) attrNames concatMapStringsSep genAttrs isFunction mergeEqualOption mergeOneOption mkOptionType showOption unique;

  simple = name: description: check: mkOptionType { inherit name description check; merge = mergeEqualOption; };
  isStringLike = value: isString value || isPath value || (isAttrs value && value ? outPath);

  # A value in a list or a set may carry conditions and priorities of its own.
  evalElement = loc: type: definitions: lib.evalOption loc { inherit type; } definitions;
in
rec {
  unspecified = mkOptionType { name = "unspecified"; description = "unspecified value"; };
  raw = mkOptionType { name = "raw"; description = "raw value"; };
  bool = simple "bool" "boolean" isBool;
  int = simple "int" "signed integer" isInt;
  float = simple "float" "floating point number" isFloat;
  number = either int float;
  str = simple "str" "string" isString;
  nonEmptyStr = simple "nonEmptyStr" "non-empty string" (value: isString value && match "[ \t\n]*" value == null);
  path = simple "path" "absolute path" (value: isStringLike value && builtins.substring 0 1 (toString value) == "/");
  package = mkOptionType { name = "package"; description = "package"; check = lib.isDerivation; };
  lines = mkOptionType {
    name = "separatedString";
    description = "strings concatenated with \"\\n\"";
    check = isString;
    merge = _: definitions: concatMapStringsSep "\n" (one: one.value) definitions;
  };
  strMatching = pattern:
    simple "strMatching" "string matching the pattern ${pattern}" (value: isString value && match pattern value != null);
  enum = words: simple "enum"
    "one of ${concatMapStringsSep ", " (word: if isString word then "\"${word}\"" else toString word) words}"
    (value: elem value words);
  ints = {
    between = low: high: simple "intBetween" "integer between ${toString low} and ${toString high} (both inclusive)"
      (value: isInt value && low <= value && value <= high);
    positive = simple "positiveInt" "positive integer, meaning >0" (value: isInt value && value > 0);
    unsigned = simple "unsignedInt" "unsigned integer, meaning >=0" (value: isInt value && value >= 0);
  };

  nullOr = type: mkOptionType {
    name = "nullOr";
    description = "null or ${bracketed type}";
    check = value: value == null || type.check value;
    merge = loc: definitions:
      if all (one: one.value == null) definitions then null
      else if any (one: one.value == null) definitions then
        throw "The option `${showOption loc}' is defined both null and not null."
      else type.merge loc definitions;
    inherit (type) getSubOptions;
  };

  either = first: second: mkOptionType {
    name = "either";
    description = "${bracketed first} or ${bracketed second}";
    check = value: first.check value || second.check value;
    merge = loc: definitions:
      if all (one: first.check one.value) definitions then first.merge loc definitions
      else if all (one: second.check one.value) definitions then second.merge loc definitions
      else mergeOneOption loc definitions;
    getSubOptions = _: { };
  };
  oneOf = types: lib.foldl' either (head types) (builtins.tail types);

  listOf = element: mkOptionType {
    name = "listOf";
    description = "list of ${bracketed element}";
    check = isList;
    merge = loc: definitions: concatMap
      ({ file, value, ... }:
        concatMap
          (at:
            let evaluated = evalElement (loc ++ [ "[definition ${toString (at + 1)}]" ]) element
              [{ inherit file; value = builtins.elemAt value at; }];
            in if evaluated.isDefined then [ evaluated.value ] else [ ])
          (builtins.genList (at: at) (length value)))
      definitions;
    getSubOptions = prefix: element.getSubOptions (prefix ++ [ "*" ]);
  };

  attrsOf = element: mkOptionType {
    name = "attrsOf";
    description = "attribute set of ${bracketed element}";
    check = isAttrs;
    merge = loc: definitions:
      let
        pushed = lib.pushDownAll definitions;
        names = unique (concatMap (one: attrNames one.value) pushed);
        evaluated = genAttrs names (name:
          evalElement (loc ++ [ name ]) element
            (concatMap ({ file, value, ... }: if value ? ${name} then [{ inherit file; value = value.${name}; }] else [ ]) pushed));
      in
      builtins.mapAttrs (_: one: one.value) (lib.filterAttrs (_: one: one.isDefined) evaluated);
    getSubOptions = prefix: element.getSubOptions (prefix ++ [ "<name>" ]);
  };
  attrs = attrsOf anything;

  # Whatever it is: sets are merged, lists appended, all else has to be the same.
  anything = mkOptionType {
    name = "anything";
    description = "anything";
    merge = loc: definitions:
      let first = (head definitions).value; in
      if isAttrs first && !(lib.isDerivation first) && all (one: isAttrs one.value) definitions then
        (attrsOf anything).merge loc definitions
      else if isList first then concatMap (one: one.value) definitions
      else mergeEqualOption loc definitions;
  };

  submodule = module: mkOptionType {
    name = "submodule";
    description = "submodule";
    check = value: isAttrs value || isFunction value || isPath value;
    merge = loc: definitions: (lib.evalModules {
      modules = [ module ] ++ map ({ file, value, ... }: asModule file value) definitions;
      specialArgs.name = lib.last loc;
      prefix = loc;
    }).config;
    getSubOptions = prefix: (lib.evalModules {
      modules = [ module ];
      specialArgs.name = "‹name›";
      inherit prefix;
    }).options;
  };

  # Sentences stay readable when types are nested.
  bracketed = type: if match ".* or .*" type.description == null then type.description else "(${type.description})";

  asModule = file: value: if isFunction value || isPath value then value else { _file = file; config = value; };
}
