# Tests for virtual machines of NixOS: `nix-build nixos-module/vm-tests -A sandbox`. They need nixpkgs, which could not be had
# where they were written, so nobody has started them. What of them is held by tests of this project: the settings of the
# machines are evaluated with a stand-in, and the scripts are compiled by Python.
{ pkgs ? import <nixpkgs> { } }:
let
  test = file: pkgs.testers.runNixOSTest (import file { inherit pkgs; inherit (pkgs) lib; });
in
{
  boot = test ./boot.nix;
  killed = test ./killed.nix;
  network = test ./network.nix;
  sandbox = test ./sandbox.nix;
}
