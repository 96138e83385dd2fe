# Options that each service has, whatever it serves.
{ lib, types' }:
{ loadCredentials, hasUser ? true }:
let
  inherit (lib) mkOption types;
  optional = type: description: mkOption { type = types.nullOr type; default = null; inherit description; };
in
{
  store = optional types'.name "Which of `stores` or `sources` is served. Without it: `default` if there is one, else the daemon of this machine, else the only source.";
  offline = mkOption {
    type = types.bool;
    default = false;
    description = "Whether nothing that is remote is asked: what is in the cache is there, anything else fails at once.";
  };
  verify = optional (types.enum [ "source" "strict" ]) "`strict` believes no source anything without proof, whatever the sources say.";
  logLevel = optional (types.enum [ "error" "warn" "info" "debug" "trace" ]) "How much is logged. Without it, `info`.";
  logFormat = optional (types.enum [ "text" "json" "journal" ]) "How it is logged. Without it, `journal`: with priorities for journald.";
  metrics = mkOption {
    type = types.listOf types'.listenAddress;
    default = [ ];
    example = [ "[::1]:9100" ];
    description = "Where numbers for Prometheus are told, at `/metrics`: `HOST:PORT`, or the path of a unix socket in the folder of `/run` that has the name of the unit. Who can connect there sees how much is read.";
  };
  otlpEndpoint = optional (types.strMatching "https?://[^/?#@[:space:]]+") "The OpenTelemetry collector that is sent traces and metrics, by OTLP over gRPC: `http://HOST:PORT` or `https://HOST:PORT`. Without it nothing is sent, unless `environment` says so.";
  slowLog = mkOption {
    type = types'.secondsBetween 0 86400;
    default = 1;
    description = "Operations that take so many seconds or longer are logged, with where the time went; 0 for none.";
  };
  watchdog = mkOption {
    type = types.nullOr (types.ints.between 5 3600);
    default = 60;
    description = "For how many seconds it may say nothing to systemd before it is taken for hung and started again, or null for never.";
  };
  drain = mkOption {
    type = types'.secondsBetween 0 3600;
    default = 10;
    description = "How many seconds what is under way may take to end when the service is stopped; then it is cut off.";
  };
  openFilesMax = mkOption {
    type = types.ints.between 1024 16777216;
    default = 1048576;
    description = "How many files it may have open.";
  };
  environment = mkOption {
    type = types.attrsOf types.str;
    default = { };
    example = { HTTPS_PROXY = "http://proxy.example.org:3128"; };
    description = "Environment variables. They can be read by everybody on this machine.";
  };
  environmentFiles = mkOption {
    type = types.listOf types'.secretFile;
    default = [ ];
    example = [ "/etc/lazystore/s3.env" ];
    description = "Files with environment variables, like the keys of a bucket.";
  };
  extraArgs = mkOption {
    type = types.listOf types.str;
    default = [ ];
    description = "More arguments, behind all others.";
  };
  loadCredentials = mkOption {
    type = types.bool;
    default = loadCredentials;
    description = "Whether systemd hands over keys, tokens and certificates (`LoadCredential=`), which then stay as they are until a restart. Otherwise their files have to be readable to the service, and are read again at a reload.";
  };
} // lib.optionalAttrs hasUser {
  user = mkOption {
    type = types.nullOr types'.name;
    default = null;
    description = "A user of this machine that it runs as. Without it, systemd makes up one (`DynamicUser=`).";
  };
}
