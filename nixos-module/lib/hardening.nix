# What units may do. A mount has to be seen by everybody, so its unit cannot have a mount namespace of its own, and with
# it none of the settings that make one (ProtectSystem=, PrivateTmp=, ProtectKernelTunables=, …): those are for the others.
{ lib }:
rec {
  # For each unit.
  common = {
    NoNewPrivileges = true;
    LockPersonality = true;
    MemoryDenyWriteExecute = true;
    ProtectHostname = true;
    RestrictNamespaces = true;
    RestrictRealtime = true;
    RestrictSUIDSGID = true;
    RestrictAddressFamilies = [ "AF_UNIX" "AF_INET" "AF_INET6" ];
    SystemCallArchitectures = "native";
    SystemCallErrorNumber = "EPERM";
    UMask = "0077";
  };

  # For what listens: no privileges, and nothing to write but its own directories.
  server = common // {
    CapabilityBoundingSet = "";
    PrivateDevices = true;
    PrivateIPC = true;
    PrivateTmp = true;
    PrivateUsers = true;
    ProcSubset = "pid";
    ProtectClock = true;
    ProtectControlGroups = true;
    ProtectHome = true;
    ProtectKernelLogs = true;
    ProtectKernelModules = true;
    ProtectKernelTunables = true;
    ProtectProc = "invisible";
    ProtectSystem = "strict";
    RemoveIPC = true;
    SystemCallFilter = [ "@system-service" "~@privileged" ];
  };

  # For what mounts, as root with one capability. Reading a store that belongs to another user takes two more.
  mount = { readsLocal }: common // {
    CapabilityBoundingSet = [ "CAP_SYS_ADMIN" ] ++ lib.optionals readsLocal [ "CAP_CHOWN" "CAP_DAC_OVERRIDE" ];
    DeviceAllow = [ "/dev/fuse rw" ];
    DevicePolicy = "closed";
    ProtectClock = true;
    SystemCallFilter = [ "@system-service" "@mount" ];
  };
}
