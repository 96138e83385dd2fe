# `services.lazystore.mounts.<name>.initrd`: the mount from which the machine boots, for systemd in the initrd.
#
# The process that serves has to outlive the initrd. So it runs with the later root directory as its own (RootDirectory=),
# where all its paths stay what they are when that becomes /, and under a name that begins with @, which systemd spares
# when it leaves the initrd and at shutdown (https://systemd.io/ROOT_STORAGE_DAEMONS/). The program and what it needs are
# copied into the writable layer, so that they are there afterwards, too.
{ config, lib, pkgs, utils, ... }:
let
  inherit (lib) mkIf;
  cfg = config.services.lazystore;
  inherit (import ./lib { inherit lib pkgs cfg; }) unit;

  enabled = lib.filterAttrs (_: options: options.enable && options.initrd.enable) cfg.mounts;
  unitOf = name: "lazystore-mount-${name}";
  own = name: cfg.services.${unitOf name};
  mkdir = "${pkgs.coreutils}/bin/mkdir -p";
  cp = "${pkgs.coreutils}/bin/cp";
  mount = "${pkgs.util-linux}/bin/mount";
  certificates = "${pkgs.cacert}/etc/ssl/certs/ca-bundle.crt";

  # Paths of the store that the program needs, with all that they refer to.
  needed = name: [ cfg.package pkgs.cacert (own name).configFile ];
  closure = name: pkgs.closureInfo { rootPaths = needed name; };
  secretFiles = name: lib.attrValues (own name).resolved.secretFiles;
  parent = options: builtins.dirOf options.overlay.upperDir;

  # What is there before the program can run in the later root.
  prepare = name: options:
    let
      upper = "/sysroot${options.overlay.upperDir}";
      store = "/sysroot${options.overlay.mountPoint}";
    in
    [
      "${mkdir} /sysroot/dev /sysroot/proc /sysroot/sys /sysroot/run /sysroot/etc ${store} ${upper} /sysroot${options.overlay.workDir} /sysroot${options.mountPoint}"
      "${pkgs.runtimeShell} -c \"exec ${cp} -a -n $$(${pkgs.coreutils}/bin/cat ${closure name}/store-paths) ${upper}/\""
      # Until the overlay covers it, the program is found here.
      "${mount} --bind ${upper} ${store}"
    ]
    ++ map (dir: "${mount} --rbind ${dir} /sysroot${dir}") [ "/dev" "/proc" "/sys" "/run" ]
    # Names are looked up, and secrets read, where they will be.
    ++ map (file: "-${cp} -L --parents -n ${file} /sysroot/") ([ "/etc/resolv.conf" "/etc/hosts" ] ++ secretFiles name);

  survives = {
    DefaultDependencies = false;
    IgnoreOnIsolate = true;
  };

  inInitrd = name: options: {
    description = "lazystore ${name}: the Nix store that this machine boots from";
    wantedBy = [ "initrd-fs.target" ];
    before = [ "initrd-fs.target" ];
    wants = lib.optional options.initrd.network "network-online.target";
    after = lib.optional options.initrd.network "network-online.target";
    environment = { SSL_CERT_FILE = certificates; } // options.environment;
    unitConfig = survives // {
      StartLimitIntervalSec = 0;
      RequiresMountsFor = [ "/sysroot${options.mountPoint}" "/sysroot${parent options}" ];
    };
    serviceConfig = serving name options // {
      RootDirectory = "/sysroot";
      RootDirectoryStartOnly = true;
      ExecStartPre = prepare name options;
    };
  };

  # The same process, after the initrd: systemd goes on looking after it under the same name.
  afterwards = name: options: {
    unitConfig = survives // {
      RefuseManualStop = true;
      RequiresMountsFor = lib.mkForce [ ];
    };
    wantedBy = lib.mkForce [ ];
    restartIfChanged = false;
    environment.SSL_CERT_FILE = certificates;
    serviceConfig = {
      ExecStart = lib.mkForce (serving name options).ExecStart;
      ExecReload = lib.mkForce [ ];
      OOMScoreAdjust = lib.mkForce (-1000);
    };
  };

  serving = name: options: {
    Type = "notify";
    NotifyAccess = "main";
    # The configuration file is taken from the store, since /etc comes later.
    ExecStart = unit.asSurvivor (unit.mountCommand ((own name) // { configPath = "${(own name).configFile}"; }));
    Restart = "on-failure";
    RestartSec = 1;
    LimitNOFILE = options.openFilesMax;
    OOMScoreAdjust = -1000;
  };

  overlay = name: options:
    let service = "${unitOf name}.service"; in
    [{
      description = "Writable layer on the lazystore ${name}";
      what = "overlay";
      where = "/sysroot${options.overlay.mountPoint}";
      type = "overlay";
      options = lib.concatStringsSep "," [
        "lowerdir=/sysroot${options.mountPoint}"
        "upperdir=/sysroot${options.overlay.upperDir}"
        "workdir=/sysroot${options.overlay.workDir}"
        # Directories keep their inode numbers.
        "xino=on"
      ];
      requires = [ service ];
      after = [ service ];
      requiredBy = [ "initrd-fs.target" ];
      before = [ "initrd-fs.target" "initrd-find-nixos-closure.service" ];
      unitConfig.DefaultDependencies = false;
    }]
    ++ lib.optional options.overlay.tmpfs.enable {
      description = "What is written to the lazystore ${name}, in memory";
      what = "tmpfs";
      where = "/sysroot${parent options}";
      type = "tmpfs";
      options = "mode=0755,size=${options.overlay.tmpfs.size}";
      requiredBy = [ service ];
      before = [ service ];
      unitConfig.DefaultDependencies = false;
    };
in
{
  config = mkIf (enabled != { }) {
    boot.initrd.kernelModules = [ "fuse" "overlay" ];
    boot.initrd.systemd = {
      storePaths = lib.concatLists (lib.mapAttrsToList (name: _: needed name ++ [ (closure name) ]) enabled)
        ++ [ pkgs.coreutils pkgs.runtimeShell "${pkgs.util-linux}/bin/mount" ];
      services = lib.mapAttrs' (name: options: lib.nameValuePair (unitOf name) (inInitrd name options)) enabled;
      mounts = lib.concatLists (lib.mapAttrsToList overlay enabled);
    };
    systemd.services = lib.mapAttrs' (name: options: lib.nameValuePair (unitOf name) (afterwards name options)) enabled;
  };
}
