# Command lines for unit files. An argument is a string, which comes through as it is, or `{ specifier = …; }`, in which
# systemd replaces what begins with a percent sign.
{ lib }:
let
  quote = text:
    if builtins.match "[A-Za-z0-9_./:,=+@%$~-]+" text != null then text else builtins.toJSON text;
  argument = one:
    if builtins.isAttrs one && one ? specifier then quote one.specifier
    else quote (builtins.replaceStrings [ "%" "$" ] [ "%%" "$$" ] (toString one));
in
{
  line = arguments: lib.concatMapStringsSep " " argument arguments;

  # `--name=value` for each that is given. One argument each, so that no value is taken for an option, nor the next one.
  flags = set: lib.concatLists (lib.mapAttrsToList
    (name: value:
      let
        # `toString` would give 0.5 as 0.500000.
        text = value: if builtins.isFloat value then builtins.toJSON value else toString value;
        one = value:
          if builtins.isAttrs value && value ? specifier then { specifier = "--${name}=${value.specifier}"; }
          else "--${name}=${text value}";
      in
      if value == null || value == false then [ ]
      else if value == true then [ "--${name}" ]
      else map one (lib.toList value))
    set);
}
