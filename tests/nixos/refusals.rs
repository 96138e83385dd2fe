//! What cannot work ends the evaluation, with a sentence that says what to do.

use std::{process::Output, sync::Mutex, thread};

use super::evaluation::{Place, can_evaluate, machine};

/// Settings, and what has to be in the message.
type Case = (&'static str, &'static [&'static str]);

const REMOTE: &str = r#"sources.x.address = "grpc+https://h:1"; "#;

/// Evaluates all cases behind `before`, some at once, and looks at what is said.
fn refused(before: &str, cases: &[Case], begins: &str) {
    if !can_evaluate() {
        return;
    }
    let place = Place::new();
    let (next, failures) = (Mutex::new(cases.iter()), Mutex::new(Vec::new()));
    thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                while let Some((settings, words)) = { next.lock().expect("no panic").next() } {
                    let Output { status, stderr, .. } =
                        place.try_evaluate(&machine(&format!("{before}{settings}")));
                    let said = String::from_utf8_lossy(&stderr).into_owned();
                    let is_told =
                        said.contains(begins) && words.iter().all(|word| said.contains(word));
                    if status.success() || !is_told {
                        failures
                            .lock()
                            .expect("no panic")
                            .push(format!("{settings}\n  {words:?}\n{said}"));
                    }
                }
            });
        }
    });
    let failures = failures.into_inner().expect("no panic");
    assert!(failures.is_empty(), "{}", failures.join("\n\n"));
}

#[test]
fn a_value_of_the_wrong_type_is_refused_with_what_is_expected() {
    let cases: &[Case] = &[
        ("sources.x.timeout = 0;", &["sources.x.timeout", "number of seconds, from 0.1 to 3600"]),
        ("sources.x.timeout = \"30s\";", &["number of seconds"]),
        ("sources.x.attempts = 101;", &["sources.x.attempts", "between 1 and 100"]),
        ("sources.x.verify = \"maybe\";", &["one of \"source\", \"strict\""]),
        ("sources.x.address = \"ftp://h\";", &["address of a store: \"memory:\""]),
        ("sources.x.address = \"grpc+http://user@h:1\";", &["grpc+http(s)://host:port"]),
        ("sources.x.address = [ \"nix+https://a\" \"htp://b\" ];", &["nix+http(s)://host/prefix"]),
        (
            "sources.x.tokenFile = ./Cargo.toml;",
            &["sources.x.tokenFile", "outside the Nix store, written as a string"],
        ),
        ("sources.x.tokenFile = \"/nix/store/x-token\";", &["everybody may read it"]),
        ("sources.x.ca = \"relative\";", &["absolute path outside the Nix store"]),
        (
            "sources.x.address = \"nix+https://c\"; sources.x.trustedPublicKeys = [ \"cache.example.org-1\" ];",
            &["public key of a binary cache, like"],
        ),
        ("caches.c.size = \"15M\";", &["caches.c.size", "16 MiB at least", "\"64GiB\""]),
        ("caches.c.size = \"64 gigs\";", &["number of bytes, or a string like \"64GiB\""]),
        ("caches.c.dir = \"/var/cache/../x\";", &["caches.c.dir", "absolute path"]),
        (
            "stores.s.read = [ \"o\" ]; stores.s.fetchWholeUpTo = \"2M\";",
            &["stores.s.fetchWholeUpTo", "1 MiB at most"],
        ),
        (
            "stores.s.read = [ \"o\" ]; stores.s.absentTtl = -1;",
            &["number of seconds, from 0 to 86400"],
        ),
        ("stores.s.read = \"x\";", &["stores.s.read", "list of"]),
        ("stores.s.cache = \"no such\";", &["name of letters, digits"]),
        (
            "daemon.listen = [ \"8000\" ];",
            &["daemon.listen", "an address with a port like \"127.0.0.1:8000\""],
        ),
        ("daemon.socketMode = \"rw\";", &["mode of a file, like \"0660\""]),
        ("daemon.logLevel = \"loud\";", &["one of \"error\", \"warn\""]),
        ("daemon.watchdog = 1;", &["between 5 and 3600"]),
        ("daemon.environmentFiles = [ /etc/env ];", &["written as a string"]),
        (
            "binaryCache.enable = true; binaryCache.priority = -1;",
            &["binaryCache.priority", "unsigned integer"],
        ),
        ("binaryCache.enable = true; binaryCache.uploadSizeMax = \"much\";", &["number of bytes"]),
        ("mounts.m.mountPoint = \"mnt\";", &["mounts.m.mountPoint", "absolute path, as a string"]),
        ("mounts.m = { mountPoint = \"/mnt\"; threads = 0; };", &["between 1 and 256"]),
        (
            "mounts.m = { mountPoint = \"/mnt\"; ioMode = \"fast\"; };",
            &["\"auto\", \"no-open\", \"passthrough\""],
        ),
        (
            "mounts.m = { mountPoint = \"/mnt\"; only = [ \"/nix/store/x\" ]; };",
            &["store path, like"],
        ),
        (
            "mounts.m = { mountPoint = \"/mnt\"; overlay.enable = true; overlay.upperDir = \"/a:b\"; };",
            &["overlay.upperDir", "letters, digits and"],
        ),
        (
            "mounts.m = { mountPoint = \"/mnt\"; overlay = { enable = true; tmpfs = { enable = true; size = \"all\"; }; }; };",
            &["size of a tmpfs"],
        ),
        ("virtiofs.v.queues = 33;", &["virtiofs.v.queues", "between 1 and 32"]),
    ];
    let before = "sources.o.address = \"memory:\"; daemon.enable = true; daemon.store = \"o\"; ";
    refused(before, cases, "A definition for option `services.lazystore.");
}

#[test]
fn an_option_that_does_not_exist_is_refused() {
    let cases: &[Case] = &[
        ("daemon.enabled = true;", &["services.lazystore.daemon.enabled"]),
        ("sources.x.token-file = \"/t\";", &["services.lazystore.sources.x.token-file"]),
        (
            "mounts.m = { mountPoint = \"/mnt\"; user = \"me\"; };",
            &["services.lazystore.mounts.m.user"],
        ),
    ];
    refused("", cases, "does not exist");
    refused(
        "",
        &[("mounts.m = { };", &["services.lazystore.mounts.m.mountPoint"])],
        "has no value defined",
    );
    refused(
        "",
        &[("sources.x.timeout = 3; mounts.m.mountPoint = \"/mnt\";", &["sources.x.address"])],
        "has no value defined",
    );
}

#[test]
fn sources_that_cannot_work_are_refused() {
    let cases: &[Case] = &[
        (r#"sources.c.address = "nix+https://c";"#, &["no key is known", "trustedPublicKeys"]),
        (
            r#"sources.c = { address = "grpc+http://h:1"; netrc = "/s"; priority = 3; };"#,
            &["netrc, priority means nothing to grpc"],
        ),
        (
            r#"sources.c = { address = "local:"; timeout = 3; };"#,
            &["timeout means nothing to local"],
        ),
        (
            r#"sources.c.address = [ "grpc+http://a:1" "grpc+http://b:1" ];"#,
            &["only binary caches", "a store that reads them"],
        ),
        (
            r#"sources.c = { address = "grpc+https://h:1"; cert = "/s"; };"#,
            &["cert and key belong together"],
        ),
        (
            r#"sources.c = { address = "grpc+http://h:1"; tokenFile = "/s"; };"#,
            &["readable on its way", "insecure = true"],
        ),
        (r#"sources.c = { address = "grpc+http://h:1"; ca = "/s"; };"#, &["grpc+https"]),
        (r#"sources."a b".address = "memory:";"#, &["\"a b\" is no name"]),
        (r#"caches.none = { };"#, &["caches: \"none\" is no name"]),
    ];
    refused("", cases, "Failed assertions");
}

#[test]
fn stores_that_cannot_work_are_refused() {
    let cases: &[Case] = &[
        ("stores.s.read = [ \"y\" ];", &["no source or store called y", "There are s, x"]),
        ("stores.s = { };", &["nowhere to read from", "Set read"]),
        ("stores.s.blobs.read = [ \"x\" ];", &["nowhere to read from"]),
        ("stores.a.read = [ \"b\" ]; stores.b.read = [ \"a\" ];", &["stores.a contains itself"]),
        ("stores.x.read = [ \"x\" ];", &["both called x"]),
        (
            "stores.s.read = [ \"x\" ]; caches = { a = { }; b = { }; };",
            &["several caches. Set cache to one of a, b"],
        ),
        (
            "stores.s = { read = [ \"x\" ]; cache = \"fast\"; };",
            &["no cache called fast", "There are disk"],
        ),
        (
            r#"sources.c = { address = "nix+https://c"; requireSigs = false; }; stores.s = { read = [ "c" ]; cache = "none"; };"#,
            &["needs a cache"],
        ),
    ];
    refused(REMOTE, cases, "Failed assertions");
}

#[test]
fn services_that_cannot_work_are_refused() {
    let cases: &[Case] = &[
        (
            "daemon.enable = true; daemon.store = \"y\";",
            &["daemon.store: there is no store or source called y"],
        ),
        (
            r#"sources.y.address = "memory:"; daemon.enable = true;"#,
            &["several sources and no store called default"],
        ),
        ("daemon.enable = true; daemon.store = \"daemon\";", &["would read from itself"]),
        (
            r#"daemon.enable = true; daemon.listen = [ "0.0.0.0:8000" ];"#,
            &["others can connect to 0.0.0.0:8000", "tlsCert"],
        ),
        (
            r#"daemon.enable = true; daemon.tlsCert = "/s";"#,
            &["tlsCert and tlsKey belong together"],
        ),
        (r#"daemon.enable = true; daemon.tlsClientCa = "/s";"#, &["needs TLS"]),
        ("daemon.enable = true; daemon.listen = [ ];", &["listen is empty"]),
        (
            r#"daemon.enable = true; daemon.listen = [ "localhost:8000" ];"#,
            &["cannot listen on names", "socketActivation = false"],
        ),
        (
            "daemon.enable = true; daemon.socketActivation = false;",
            &["cannot create the socket", "Set user"],
        ),
        (
            r#"binaryCache.enable = true; binaryCache.uploadTokenFile = "/s";"#,
            &["Set allowUpload = true"],
        ),
        (
            r#"binaryCache = { enable = true; allowUpload = true; listen = [ "0.0.0.0:80" ]; };"#,
            &["Set uploadTokenFile"],
        ),
        (
            r#"sources.l.address = "local:"; binaryCache = { enable = true; store = "l"; };"#,
            &["belongs to the daemon", "store = \"daemon\""],
        ),
        (
            r#"sources.l.address = "local:///srv/store"; daemon = { enable = true; store = "l"; };"#,
            &["cannot write to local:///srv/store", "set user"],
        ),
        (
            r#"caches.c.dir = "/srv/cache"; daemon.enable = true;"#,
            &["cannot have a cache in /srv/cache", "directory in /var/cache"],
        ),
        (
            r#"caches.c.dir = "/var/cache/c"; daemon.enable = true; virtiofs.v.store = "x";"#,
            &["would be written by lazystore-daemon, lazystore-virtiofs-v", "a cache of its own"],
        ),
        (
            "caches = { a = { }; b = { }; }; daemon.enable = true;",
            &["Make a store that reads it and names its cache"],
        ),
        (r#"virtiofs."a/b" = { };"#, &["virtiofs: \"a/b\" is no name"]),
    ];
    refused(REMOTE, cases, "Failed assertions");
}

#[test]
fn mounts_that_cannot_work_are_refused() {
    let cases: &[Case] = &[
        (
            r#"mounts = { a.mountPoint = "/mnt"; b.mountPoint = "/mnt/b"; };"#,
            &["mounts.b.mountPoint: /mnt/b is at or in the mount a"],
        ),
        (
            r#"mounts.m.mountPoint = "/nix/store";"#,
            &["would hide the store", "overlay.enable = true"],
        ),
        (r#"mounts.m.mountPoint = "/mnt/";"#, &["Leave out the slash"]),
        (
            r#"mounts.m = { mountPoint = "/nix/store"; overlay.enable = true; };"#,
            &["would be in each other", "/nix/.lazystore"],
        ),
        (
            r#"mounts.m = { mountPoint = "/l"; overlay = { enable = true; upperDir = "/l/u"; workDir = "/l/w"; }; };"#,
            &["must be outside of /l"],
        ),
        (
            r#"mounts.m = { mountPoint = "/l"; overlay = { enable = true; upperDir = "/a/u"; workDir = "/b/w"; }; };"#,
            &["two directories of the same one"],
        ),
        (
            r#"mounts.m = { mountPoint = "/l"; overlay.enable = true; allowOther = false; };"#,
            &["Set allowOther = true"],
        ),
        (
            r#"mounts.m = { mountPoint = "/l"; overlay = { enable = true; keepLocal = false; }; };"#,
            &["Set keepLocal = true, or initrd.enable = true"],
        ),
        (
            r#"mounts.m = { mountPoint = "/l"; initrd.enable = true; };"#,
            &["cannot write to", "overlay.enable = true"],
        ),
        (
            r#"mounts.m = { mountPoint = "/l"; initrd.enable = true; overlay.enable = true; loadCredentials = true; };"#,
            &["Set loadCredentials = false"],
        ),
        (
            r#"mounts = { a = { mountPoint = "/a"; overlay.enable = true; }; b = { mountPoint = "/b"; overlay.enable = true; }; };"#,
            &["overlays at the same place", "Read both sources in one store"],
        ),
    ];
    refused(REMOTE, cases, "Failed assertions");
}

#[test]
fn an_initrd_without_systemd_or_network_is_refused() {
    if !can_evaluate() {
        return;
    }
    let boots = r#"{ services.lazystore = { sources.x.address = "grpc+https://h:1";
        mounts.m = { mountPoint = "/l"; overlay.enable = true; initrd.enable = true; }; }; }"#;
    for (rest, words) in [
        ("{ }", "Set boot.initrd.systemd.enable = true"),
        ("{ boot.initrd.systemd.enable = true; }", "waits for the network"),
    ] {
        let output = Place::new().try_evaluate(&format!("s.machine [ {boots} {rest} ]"));
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(!output.status.success() && said.contains(words), "{rest}: {said}");
    }
}
