# All that the parts of the module share, for one configuration.
{ lib, pkgs, cfg }:
let
  types' = import ./types.nix { inherit lib; };
  toml = import ./toml.nix { inherit lib; };
  command = import ./command.nix { inherit lib; };
  hardening = import ./hardening.nix { inherit lib; };
  resolve = import ./resolve.nix { inherit lib types' toml cfg; };
in
{
  inherit types' command resolve hardening;
  unit = import ./unit.nix { inherit lib pkgs cfg resolve command hardening; };
}
