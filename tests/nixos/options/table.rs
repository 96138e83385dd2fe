//! For each option a value that nothing else has, and where it shows.

/// One option.
pub struct Row {
    /// What it is called, below `services.lazystore`.
    pub option: String,
    /// A value, in Nix.
    pub value: &'static str,
    /// What else has to be set, in Nix.
    pub beside: &'static str,
    /// Where it shows: a file that the configuration writes.
    pub place: String,
    /// What shows there.
    pub shows: &'static str,
}

const KEY: &str = r#"[ "k-1:6NCHdD59X431o0gWypbMrAURkbJ16ZPMQFGspcDShjY=" ]"#;
const HELLO: &str = "/nix/store/00000000000000000000000000000000-hello-2.12/bin/lazystore daemon";
const OVERLAY: &str = "overlay.enable = true;";
const NIX: &str = r#"address = "nix+https://c"; trustedPublicKeys = [ "k-1:6NCHdD59X431o0gWypbMrAURkbJ16ZPMQFGspcDShjY=" ];"#;

type Cells = (&'static str, &'static str, &'static str);

/// Rows of options below `prefix`, which show in `place`.
fn rows(prefix: &str, place: &str, beside: &'static str, cells: &[Cells]) -> Vec<Row> {
    let row = |&(option, value, shows): &Cells| Row {
        option: format!("{prefix}{option}"),
        value,
        beside,
        place: place.to_owned(),
        shows,
    };
    cells.iter().map(row).collect()
}

/// All rows.
pub fn all() -> Vec<Row> {
    [sources(), caches(), stores(), daemon(), binary_cache(), mounts(), virtiofs()]
        .into_iter()
        .flatten()
        .collect()
}

fn sources() -> Vec<Row> {
    let file = "files/lazystore-mount-m/text";
    let grpc = r#"address = "grpc+https://h:1";"#;
    let source = |beside, cells: &[Cells]| rows("sources.<name>.", file, beside, cells);
    [
        source(
            "",
            &[(
                "address",
                r#""grpc+http://elsewhere:7""#,
                r#"address = "grpc+http://elsewhere:7""#,
            )],
        ),
        source(
            grpc,
            &[
                ("verify", r#""strict""#, r#"verify = "strict""#),
                ("timeout", "7.5", "timeout = 7.5"),
                ("attempts", "9", "attempts = 9"),
                ("dialect", r#""snix""#, r#"dialect = "snix""#),
                ("sizes", r#""doubled""#, r#"sizes = "doubled""#),
                ("compress", r#""zstd""#, r#"compress = "zstd""#),
                ("ca", r#""/s/ca""#, r#"ca = "/s/ca""#),
                ("tokenFile", r#""/s/other""#, r#"token-file = "/s/other""#),
                ("insecure", "true", "insecure = true"),
            ],
        ),
        source(
            r#"address = "grpc+https://h:1"; key = "/s/key";"#,
            &[("cert", r#""/s/cert""#, r#"cert = "/s/cert""#)],
        ),
        source(
            r#"address = "grpc+https://h:1"; cert = "/s/cert";"#,
            &[("key", r#""/s/key""#, r#"key = "/s/key""#)],
        ),
        source(
            r#"address = "nix+https://c";"#,
            &[
                ("trustedPublicKeys", KEY, "trusted-public-keys = [\"k-1:6NCHdD"),
                ("requireSigs", "false", "require-sigs = false"),
            ],
        ),
        source(
            NIX,
            &[
                ("foreignUrls", "true", "foreign-urls = true"),
                ("priority", "17", "priority = 17"),
                ("netrc", r#""/s/netrc""#, r#"netrc = "/s/netrc""#),
            ],
        ),
        source(
            r#"address = "objectstore+s3://b";"#,
            &[(
                "options",
                r#"{ region = "eu"; allow_http = true; }"#,
                r#"options = { allow_http = true, region = "eu" }"#,
            )],
        ),
    ]
    .into_iter()
    .flatten()
    .collect()
}

fn caches() -> Vec<Row> {
    let file = "files/lazystore-mount-m/text";
    rows(
        "caches.<name>.",
        file,
        "",
        &[
            ("dir", r#""/srv/cache""#, r#"dir = "/srv/cache""#),
            ("size", r#""77MiB""#, r#"size = "77MiB""#),
        ],
    )
}

fn stores() -> Vec<Row> {
    let file = "files/lazystore-mount-m/text";
    let mut all = rows(
        "stores.<name>.",
        file,
        "",
        &[
            ("read", r#"[ "y" "x" ]"#, r#"read = ["y", "x"]"#),
            ("write", r#""none""#, r#"write = "none""#),
            ("blobs.read", r#"[ "y" ]"#, r#"blobs = { read = ["y"] }"#),
            ("blobs.write", r#""y""#, r#"blobs = { write = "y" }"#),
            ("directories.read", r#"[ "y" ]"#, r#"directories = { read = ["y"] }"#),
            ("directories.write", r#""y""#, r#"directories = { write = "y" }"#),
            ("pathInfos.read", r#"[ "y" ]"#, r#"path-infos = { read = ["y"] }"#),
            ("pathInfos.write", r#""y""#, r#"path-infos = { write = "y" }"#),
            ("cache", r#""none""#, r#"cache = "none""#),
            ("signKeyFiles", r#"[ "/s/k" ]"#, r#"sign-key-files = ["/s/k"]"#),
            ("fetchWholeUpTo", r#""99K""#, r#"fetch-whole-up-to = "99K""#),
            ("absentTtl", "0.5", "absent-ttl = 0.5"),
        ],
    );
    all.extend(rows("", "units/lazystore-daemon.service", "", &[("package", "pkgs.hello", HELLO)]));
    all.extend(rows(
        "",
        "files/lazystore-daemon",
        "",
        &[("checkConfig", "false", r#""checkPhase":"""#)],
    ));
    all
}

/// Options that each service has.
fn service(prefix: &str, unit: &str, beside: &'static str) -> Vec<Row> {
    rows(
        prefix,
        unit,
        beside,
        &[
            ("store", r#""s""#, "--store=s "),
            ("offline", "true", "--offline"),
            ("verify", r#""strict""#, "--verify=strict"),
            ("logLevel", r#""debug""#, "--log-level=debug"),
            ("logFormat", r#""json""#, "--log-format=json"),
            ("metrics", r#"[ "[::1]:9100" ]"#, "--metrics=[::1]:9100"),
            ("watchdog", "77", "WatchdogSec=77"),
            ("slowLog", "7.5", "--slow-log=7.5"),
            ("otlpEndpoint", r#""http://c:4317""#, "--otlp-endpoint=http://c:4317"),
            ("drain", "77.5", "--drain=77.5"),
            ("openFilesMax", "4321", "LimitNOFILE=4321"),
            ("environment", r#"{ COLOUR = "a b"; }"#, r#"Environment="COLOUR=a b""#),
            ("environmentFiles", r#"[ "/s/env" ]"#, "EnvironmentFile=/s/env"),
            ("extraArgs", r#"[ "--absent-ttl=3" "50% $x" ]"#, r#"--absent-ttl=3 "50%% $$x""#),
        ],
    )
}

/// Options of what runs as a user of its own.
fn user(prefix: &str, unit: &str, beside: &'static str) -> Vec<Row> {
    rows(prefix, unit, beside, &[("user", r#""lazystore""#, "User=lazystore")])
}

/// Options of what shows a tree.
fn view(prefix: &str, unit: &str) -> Vec<Row> {
    rows(
        prefix,
        unit,
        "",
        &[
            ("listRoot", "true", "--list-root"),
            ("showXattr", "false", "--show-xattr=false"),
            (
                "only",
                "[ pkgs.hello ]",
                "--only=/nix/store/00000000000000000000000000000000-hello-2.12",
            ),
            (
                "closureOf",
                r#"[ "/nix/store/11111111111111111111111111111111-x" ]"#,
                "--closure-of=/nix/store/11111111111111111111111111111111-x",
            ),
            ("onlyFrom", r#""/s/names""#, "--only-from=/s/names"),
        ],
    )
}

/// Options of sockets for clients.
fn listen(prefix: &str, socket: &str, beside: &'static str) -> Vec<Row> {
    rows(
        prefix,
        socket,
        beside,
        &[
            (
                "listen",
                r#"[ "/run/there" "[::1]:81" ]"#,
                "ListenStream=/run/there\nListenStream=[::1]:81",
            ),
            ("socketMode", r#""0666""#, "SocketMode=0666"),
            ("socketGroup", r#""wheel""#, "SocketGroup=wheel"),
        ],
    )
}

fn daemon_tls(unit: &str) -> Vec<Row> {
    let row = |beside, cells: &[Cells]| rows("daemon.", unit, beside, cells);
    [
        row(
            r#"daemon.enable = true; daemon.tlsKey = "/s/k";"#,
            &[(
                "tlsCert",
                r#""/s/c""#,
                "--tls-cert=/run/credentials/lazystore-daemon.service/tls-cert",
            )],
        ),
        row(
            r#"daemon.enable = true; daemon.tlsCert = "/s/c";"#,
            &[(
                "tlsKey",
                r#""/s/k""#,
                "--tls-key=/run/credentials/lazystore-daemon.service/tls-key",
            )],
        ),
        row(
            r#"daemon.enable = true; daemon.tlsCert = "/s/c"; daemon.tlsKey = "/s/k";"#,
            &[(
                "tlsClientCa",
                r#""/s/ca""#,
                "--tls-client-ca=/run/credentials/lazystore-daemon.service/tls-client-ca",
            )],
        ),
    ]
    .into_iter()
    .flatten()
    .collect()
}

fn daemon() -> Vec<Row> {
    let (unit, on) = ("units/lazystore-daemon.service", "daemon.enable = true;");
    let row = |place, beside, cells: &[Cells]| rows("daemon.", place, beside, cells);
    [
        service("daemon.", unit, on),
        user("daemon.", unit, on),
        listen("daemon.", "units/lazystore-daemon.socket", on),
        row(
            unit,
            "",
            &[("enable", "true", "lazystore daemon --config=/etc/lazystore/lazystore-daemon.toml")],
        ),
        row(
            unit,
            r#"daemon.enable = true; daemon.user = "lazystore";"#,
            &[("socketActivation", "false", "--listen=unix:/run/lazystore/daemon.sock")],
        ),
        row(
            "ports",
            r#"daemon.enable = true; daemon.listen = [ "0.0.0.0:8099" ]; daemon.insecure = true;"#,
            &[("openFirewall", "true", "[8099]")],
        ),
        row("files/lazystore-daemon/text", on, &[("loadCredentials", "false", r#""/s/token""#)]),
        daemon_tls(unit),
        row(
            unit,
            on,
            &[
                (
                    "tokenFile",
                    r#""/s/t""#,
                    "--auth-token-file=/run/credentials/lazystore-daemon.service/auth-token-file",
                ),
                (
                    "readTokenFile",
                    r#""/s/t""#,
                    "--read-token-file=/run/credentials/lazystore-daemon.service/read-token-file",
                ),
                ("insecure", "true", "--insecure"),
            ],
        ),
    ]
    .into_iter()
    .flatten()
    .collect()
}

fn binary_cache() -> Vec<Row> {
    let (unit, on) = ("units/lazystore-binary-cache.service", "binaryCache.enable = true;");
    let row = |place, beside, cells: &[Cells]| rows("binaryCache.", place, beside, cells);
    [
        service("binaryCache.", unit, on),
        user("binaryCache.", unit, on),
        listen("binaryCache.", "units/lazystore-binary-cache.socket", on),
        row(
            unit,
            "",
            &[("enable", "true", "lazystore serve --config=/etc/lazystore/lazystore-binary-cache.toml")],
        ),
        row(
            "ports",
            r#"binaryCache.enable = true; binaryCache.listen = [ "0.0.0.0:8098" ];"#,
            &[("openFirewall", "true", "[8098]")],
        ),
        row(
            "files/lazystore-binary-cache/text",
            on,
            &[("loadCredentials", "false", r#""/s/token""#)],
        ),
        row(
            unit,
            on,
            &[
                ("socketActivation", "false", "--listen=[::1]:8080"),
                ("priority", "11", "--priority=11"),
                ("signKeyFiles", r#"[ "/s/a" "/s/b" ]"#, "--sign-key=/run/credentials/lazystore-binary-cache.service/sign-key-1"),
                ("logDir", r#""/s/logs""#, "--log-dir=/s/logs"),
                ("allowUpload", "true", "--allow-upload"),
                ("uploadSizeMax", r#""9G""#, "--upload-size-max=9G"),
            ],
        ),
        row(
            unit,
            "binaryCache.enable = true; binaryCache.allowUpload = true;",
            &[(
                "uploadTokenFile",
                r#""/s/t""#,
                "--upload-token-file=/run/credentials/lazystore-binary-cache.service/upload-token-file",
            )],
        ),
    ]
    .into_iter()
    .flatten()
    .collect()
}

fn mounts() -> Vec<Row> {
    let (prefix, unit) = ("mounts.<name>.", "units/lazystore-mount-m.service");
    let row = |place, beside, cells: &[Cells]| rows(prefix, place, beside, cells);
    [
        service(prefix, unit, ""),
        view(prefix, unit),
        row("units", "", &[("enable", "false", "{}")]),
        row(
            unit,
            "",
            &[
                ("accessLog", "true", "--access-log=/var/log/lazystore-mount-m/access.log"),
                ("mountPoint", r#""/there""#, "lazystore mount /there --config"),
                ("import", r#"[ "/s/tree" ]"#, "--import=/s/tree"),
                // That it is not there: it would be between these.
                ("allowOther", "false", "--store-dir=/var/lib/lazystore --io-mode"),
                ("ioMode", r#""no-open""#, "--io-mode=no-open"),
                ("threads", "33", "--threads=33"),
                ("wantedBy", r#"[ "there.target" ]"#, "WantedBy=there.target"),
                ("neededBy", r#"[ "job.service" ]"#, "Before=job.service"),
                ("loadCredentials", "true", "LoadCredential=source-x-token-file:/s/token"),
            ],
        ),
        overlays(),
    ]
    .into_iter()
    .flatten()
    .collect()
}

fn overlays() -> Vec<Row> {
    let row = |place, beside, cells: &[Cells]| rows("mounts.<name>.", place, beside, cells);
    let overlay = "units/nix-store.mount";
    [
        row(
            overlay,
            "",
            &[(
                "overlay.enable",
                "true",
                "lowerdir=/nix/store:/mnt,upperdir=/nix/.rw-store/store,workdir=/nix/.rw-store/work",
            )],
        ),
        row(
            overlay,
            OVERLAY,
            &[
                ("overlay.upperDir", r#""/nix/.rw-store/u""#, "upperdir=/nix/.rw-store/u"),
                ("overlay.workDir", r#""/nix/.rw-store/w""#, "workdir=/nix/.rw-store/w"),
            ],
        ),
        row("units/both.mount", OVERLAY, &[("overlay.mountPoint", r#""/both""#, "Where=/both")]),
        row(
            "units/both.mount",
            r#"overlay.enable = true; overlay.mountPoint = "/both";"#,
            &[("overlay.keepLocal", "false", "lowerdir=/mnt,")],
        ),
        row(
            "units/nix-.rw\\x2dstore.mount",
            OVERLAY,
            &[("overlay.tmpfs.enable", "true", "Options=mode=0755,size=50%")],
        ),
        row(
            "units/nix-.rw\\x2dstore.mount",
            "overlay.enable = true; overlay.tmpfs.enable = true;",
            &[("overlay.tmpfs.size", r#""12%""#, "size=12%")],
        ),
        row(
            "initrd/sysroot-nix-store.mount",
            OVERLAY,
            &[("initrd.enable", "true", "lowerdir=/sysroot/mnt,upperdir=/sysroot/nix/.rw-store/store")],
        ),
        row(
            "initrd/lazystore-mount-m.service",
            "overlay.enable = true; initrd.enable = true;",
            // That nothing is waited for: it would be between these.
            &[("initrd.network", "false", "boots from\nBefore=initrd-fs.target")],
        ),
    ]
    .into_iter()
    .flatten()
    .collect()
}

fn virtiofs() -> Vec<Row> {
    let (prefix, unit) = ("virtiofs.<name>.", "units/lazystore-virtiofs-v.service");
    let row = |place, beside, cells: &[Cells]| rows(prefix, place, beside, cells);
    [
        service(prefix, unit, ""),
        user(prefix, unit, ""),
        view(prefix, unit),
        row("units", "", &[("enable", "false", "{}")]),
        row(
            unit,
            "",
            &[
                ("accessLog", "true", "--access-log=/var/log/lazystore-virtiofs-v/access.log"),
                ("queues", "5", "--queues=5"),
            ],
        ),
        row(
            "files/lazystore-virtiofs-v/text",
            "",
            &[("loadCredentials", "false", r#"token-file = "/s/token""#)],
        ),
        row(
            "units/lazystore-virtiofs-v.socket",
            "",
            &[
                ("socket", r#""/run/v.sock""#, "ListenStream=/run/v.sock"),
                ("socketMode", r#""0600""#, "SocketMode=0600"),
                ("socketUser", r#""microvm""#, "SocketUser=microvm"),
                ("socketGroup", r#""kvm""#, "SocketGroup=kvm"),
            ],
        ),
    ]
    .into_iter()
    .flatten()
    .collect()
}
