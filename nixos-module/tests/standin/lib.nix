# The smallest part of nixpkgs' `lib` that evaluates the module: functions of the same names and meanings, written for
# this project. It knows less than the original and is not lenient where that is strict.
let
  inherit (builtins)
    all any attrNames attrValues concatLists concatMap elem elemAt filter foldl' genList hasAttr head isAttrs isBool
    isFloat isInt isList isPath isString length listToAttrs map mapAttrs match replaceStrings split stringLength
    substring tail toString;

  self = rec {
    inherit (builtins)
      all any attrNames attrValues concatLists concatMap elem elemAt filter foldl' genList hasAttr head isAttrs isBool
      isFloat isInt isList isString length listToAttrs map mapAttrs replaceStrings stringLength substring tail
      concatStringsSep toJSON;
    isFunction = f: builtins.isFunction f || (isAttrs f && f ? __functor);

    # Attribute sets
    nameValuePair = name: value: { inherit name value; };
    mapAttrs' = f: set: listToAttrs (mapAttrsToList f set);
    mapAttrsToList = f: set: map (name: f name set.${name}) (attrNames set);
    filterAttrs = keep: set:
      listToAttrs (concatMap (name: if keep name set.${name} then [ (nameValuePair name set.${name}) ] else [ ]) (attrNames set));
    genAttrs = names: f: listToAttrs (map (name: nameValuePair name (f name)) names);
    optionalAttrs = condition: set: if condition then set else { };
    concatMapAttrs = f: set: foldl' (sum: next: sum // next) { } (mapAttrsToList f set);

    # Lists
    optional = condition: one: if condition then [ one ] else [ ];
    optionals = condition: list: if condition then list else [ ];
    flatten = value: if isList value then concatMap flatten value else [ value ];
    unique = foldl' (seen: one: if elem one seen then seen else seen ++ [ one ]) [ ];
    imap0 = f: list: genList (at: f at (elemAt list at)) (length list);
    last = list: elemAt list (length list - 1);
    init = list: genList (elemAt list) (length list - 1);
    findFirst = found: otherwise: list: let hits = filter found list; in if hits == [ ] then otherwise else head hits;
    count = counted: list: length (filter counted list);
    toList = value: if isList value then value else [ value ];

    # Strings
    optionalString = condition: text: if condition then text else "";
    concatMapStringsSep = separator: f: list: concatStringsSep separator (map f list);
    concatMapStrings = concatMapStringsSep "";
    concatStrings = concatStringsSep "";
    hasPrefix = prefix: text: substring 0 (stringLength prefix) text == prefix;
    hasSuffix = suffix: text:
      stringLength text >= stringLength suffix
      && substring (stringLength text - stringLength suffix) (stringLength suffix) text == suffix;
    hasInfix = infix: text: length (splitString infix text) > 1;
    removePrefix = prefix: text:
      if hasPrefix prefix text then substring (stringLength prefix) (0 - 1) text else text;
    removeSuffix = suffix: text:
      if hasSuffix suffix text then substring 0 (stringLength text - stringLength suffix) text else text;
    escapeRegex = replaceStrings
      [ "\\" "^" "$" "." "+" "*" "?" "|" "(" ")" "[" "{" "}" ]
      [ "\\\\" "\\^" "\\$" "\\." "\\+" "\\*" "\\?" "\\|" "\\(" "\\)" "\\[" "\\{" "\\}" ];
    splitString = separator: text: filter isString (split (escapeRegex separator) text);
    toInt = text:
      let number = builtins.fromJSON text; in
      if isInt number then number else throw "toInt: could not convert ${text} to int.";
    boolToString = value: if value then "true" else "false";
    escapeShellArg = value:
      let text = toString value; in
      if match "[[:alnum:],._+:@%/-]+" text != null then text else "'${replaceStrings [ "'" ] [ "'\\''" ] text}'";
    escapeShellArgs = concatMapStringsSep " " escapeShellArg;

    # Derivations, which here are sets with an `outPath`
    isDerivation = value: isAttrs value && (value.type or null) == "derivation";
    getExe = package: "${package}/bin/${package.meta.mainProgram or package.pname or package.name}";
    literalExpression = text: { _type = "literalExpression"; inherit text; };
    literalMD = text: { _type = "literalMD"; inherit text; };

    types = import ./types.nix self;
  } // import ./modules.nix self;
in
self
