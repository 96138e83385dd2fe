//! The units, as the real systemd reads them.

use std::{
    path::{Path, PathBuf},
    process::{Command, Output},
};

use super::evaluation::{Place, can_evaluate, settings, text};
use crate::support::have_program;

/// One of each, with secrets, an overlay in memory, and several of a kind.
pub const ALL: &str = r#"
    sources.lan = {
      address = "grpc+https://store:8000"; tokenFile = "/etc/lazystore/token"; ca = "/etc/lazystore/ca.pem";
    };
    sources.public = {
      address = "nix+https://cache.nixos.org";
      trustedPublicKeys = [ "cache.nixos.org-1:6NCHdD59X431o0gWypbMrAURkbJ16ZPMQFGspcDShjY=" ];
    };
    caches.disk.size = "64GiB";
    stores.default = { read = [ "lan" "public" ]; write = "lan"; };
    daemon = { enable = true; listen = [ "/run/lazystore/daemon.sock" "[::1]:8000" ]; };
    binaryCache = { enable = true; signKeyFiles = [ "/etc/lazystore/key" ]; };
    mounts.team = { mountPoint = "/mnt/team"; neededBy = [ "getty@tty1.service" ]; loadCredentials = true; };
    mounts.store = { mountPoint = "/nix/.lazystore"; overlay.enable = true; overlay.tmpfs.enable = true; };
    virtiofs.guests = { socketGroup = "root"; accessLog = true; };
    virtiofs.other = { };
"#;

/// The most that `systemd-analyze security` may find exposed, from 0 to 10, in tenths. A mount can have no mount namespace of its
/// own, and has to have CAP_SYS_ADMIN.
const EXPOSURE_MAX: &[(&str, &str)] =
    &[("daemon", "14"), ("binary-cache", "14"), ("virtiofs", "14"), ("mount", "41")];

fn analyze(arguments: &[&str], units: &[PathBuf]) -> Output {
    let mut command = Command::new("systemd-analyze");
    command.args(arguments).args(units).env("SYSTEMD_COLORS", "0").env("SYSTEMD_EMOJI", "0");
    command.output().expect("systemd-analyze can be run")
}

/// The units in a directory, in the order of their names.
pub fn units_in(dir: &Path) -> Vec<PathBuf> {
    let mut units: Vec<_> =
        dir.read_dir().expect("it is there").map(|entry| entry.expect("readable").path()).collect();
    units.sort();
    units
}

/// Has the real systemd read units; what it does not understand, or cannot find, fails.
pub fn verify(units: &[PathBuf]) {
    let output = analyze(&["verify", "--man=no", "--recursive-errors=yes"], units);
    let said = String::from_utf8_lossy(&output.stderr);
    let ours: Vec<_> = said.lines().filter(|line| line.contains("lazystore")).collect();
    assert!(output.status.success() && ours.is_empty(), "{said}");
}

/// Has the real systemd look at what services may do.
pub fn bound_exposure(units: &[PathBuf]) {
    for unit in units.iter().filter(|unit| unit.extension().is_some_and(|kind| kind == "service")) {
        let name = unit.file_name().and_then(|name| name.to_str()).expect("UTF-8");
        let kind =
            EXPOSURE_MAX.iter().find(|(kind, _)| name.starts_with(&format!("lazystore-{kind}")));
        let (_, max) = kind.unwrap_or_else(|| panic!("no bound for {name}"));
        let threshold = format!("--threshold={max}");
        let arguments = ["security", "--no-pager", "--offline=yes", &threshold];
        let output = analyze(&arguments, std::slice::from_ref(unit));
        let told = String::from_utf8_lossy(&output.stdout).into_owned();
        let told = format!("{told}{}", String::from_utf8_lossy(&output.stderr));
        assert!(
            output.status.success() && told.contains("Overall exposure level"),
            "{name}:\n{told}"
        );
    }
}

#[test]
fn systemd_understands_all_units() {
    if !can_evaluate() || !have_program("systemd-analyze") {
        return;
    }
    let place = Place::new();
    let machine = place.machine(ALL);
    let units = units_in(&place.write_units(&machine["units"]));
    assert_eq!(units.len(), 12, "{units:?}");
    verify(&units);
    bound_exposure(&units);
}

#[test]
fn what_systemd_does_not_understand_would_be_seen() {
    if !can_evaluate() || !have_program("systemd-analyze") {
        return;
    }
    let place = Place::new();
    let machine = place.machine("daemon.enable = true;");
    let unit = text(&machine["units"]["lazystore-daemon.service"]);
    for (from, to) in [
        ("ProtectSystem=strict", "ProtectSystem=somewhat"),
        ("ExecStart=/", "ExecStart=/no/such/place/"),
        ("Type=notify", "Type=tell"),
        ("DynamicUser=", "DynamicUsers="),
    ] {
        let dir = place.path().join(to.replace('/', "-"));
        std::fs::create_dir(&dir).expect("it is ours");
        let socket = text(&machine["units"]["lazystore-daemon.socket"]);
        std::fs::write(dir.join("lazystore-daemon.socket"), socket).expect("it is ours");
        std::fs::write(dir.join("lazystore-daemon.service"), unit.replacen(from, to, 1))
            .expect("it is ours");
        let refused = std::panic::catch_unwind(|| verify(&units_in(&dir)));
        assert!(refused.is_err(), "{to} was not noticed");
    }
}

#[test]
fn every_service_is_notified_watched_restarted_and_reloaded() {
    if !can_evaluate() {
        return;
    }
    let machine = Place::new().machine(ALL);
    for (name, unit) in machine["units"].as_object().expect("a set") {
        if !name.ends_with(".service") {
            continue;
        }
        let unit = text(unit);
        let all = |setting| settings(unit, setting).join(" ");
        assert_eq!(all("Type"), "notify", "{name}");
        assert_eq!(all("NotifyAccess"), "main", "{name}");
        assert_eq!(all("WatchdogSec"), "60", "{name}");
        assert!(all("ExecReload").ends_with(" -c 'kill -HUP $MAINPID'"), "{name}");
        assert_eq!(all("LimitNOFILE"), "1048576", "{name}");
        assert!(["always", "on-failure"].contains(&&*all("Restart")), "{name}");
        assert_eq!(all("NoNewPrivileges"), "true", "{name}");
        let is_mount = name.contains("mount");
        assert_eq!(all("DynamicUser"), if is_mount { "" } else { "true" }, "{name}");
        assert_eq!(all("ProtectSystem"), if is_mount { "" } else { "strict" }, "{name}");
        assert_eq!(
            all("CapabilityBoundingSet"),
            if is_mount { "CAP_SYS_ADMIN" } else { "" },
            "{name}"
        );
    }
}

/// A mount that only its service sees is of no use: none of these, which make a mount namespace, may be in its unit.
#[test]
fn a_mount_is_seen_by_all() {
    if !can_evaluate() {
        return;
    }
    let machine = Place::new().machine(ALL);
    let unit = text(&machine["units"]["lazystore-mount-team.service"]);
    for setting in [
        "BindPaths",
        "DynamicUser",
        "InaccessiblePaths",
        "MountFlags",
        "PrivateDevices",
        "PrivateIPC",
        "PrivateMounts",
        "PrivateTmp",
        "ProcSubset",
        "ProtectControlGroups",
        "ProtectHome",
        "ProtectKernelLogs",
        "ProtectKernelModules",
        "ProtectKernelTunables",
        "ProtectProc",
        "ProtectSystem",
        "ReadOnlyPaths",
        "ReadWritePaths",
        "TemporaryFileSystem",
    ] {
        assert!(settings(unit, setting).is_empty(), "{setting}");
    }
}

#[test]
fn secrets_go_to_those_who_need_them_alone() {
    if !can_evaluate() {
        return;
    }
    let machine = Place::new().machine(
        r#"sources.a = { address = "grpc+https://a:1"; tokenFile = "/s/a"; };
           sources.b = { address = "grpc+https://b:1"; tokenFile = "/s/b"; };
           stores.default = { read = [ "a" "b" ]; signKeyFiles = [ "/s/sign" ]; };
           daemon.enable = true;
           daemon.tokenFile = "/s/clients";
           virtiofs.v.store = "b";"#,
    );
    let loaded = |unit: &str| settings(text(&machine["units"][unit]), "LoadCredential").join(" ");
    assert_eq!(
        loaded("lazystore-daemon.service"),
        "auth-token-file:/s/clients source-a-token-file:/s/a source-b-token-file:/s/b store-default-sign-key-0:/s/sign"
    );
    assert_eq!(loaded("lazystore-virtiofs-v.service"), "source-b-token-file:/s/b");
    let files = machine["files"].as_object().expect("a set");
    let v = text(&files["lazystore-virtiofs-v"]["text"]);
    assert!(v.contains("/run/credentials/lazystore-virtiofs-v.service/source-b-token-file"), "{v}");
    assert!(!v.contains("/s/") && !v.contains("source.a"), "{v}");
    // What people read has them where they are.
    assert!(text(&machine["people"]).contains(r#"token-file = "/s/a""#));
}

/// What a reload can take up reloads; a cache that is in use cannot be moved or resized.
#[test]
fn a_change_of_the_configuration_reloads_and_one_of_a_cache_restarts() {
    if !can_evaluate() {
        return;
    }
    let machine = |size: &str, timeout: u32| {
        Place::new().machine(&format!(
            "sources.x = {{ address = \"grpc+https://h:1\"; timeout = {timeout}; }};
             caches.c.size = \"{size}\"; mounts.m.mountPoint = \"/mnt\";"
        ))
    };
    let (a, b, c) = (machine("1G", 5), machine("1G", 6), machine("2G", 5));
    let unit = "lazystore-mount-m";
    let file = text(&a["reload"][unit][0]);
    assert!(file.ends_with("/lazystore-mount-m.toml"), "{file}");
    assert_ne!(a["files"][unit]["text"], b["files"][unit]["text"]);
    assert_eq!(a["restart"][unit], b["restart"][unit]);
    assert_ne!(a["restart"][unit], c["restart"][unit]);
    // Nothing else of the unit changes with either.
    let service = |machine: &serde_json::Value| machine["units"][format!("{unit}.service")].clone();
    let root = |machine: &serde_json::Value| {
        text(&machine["reload"][unit][0]).replace("/lazystore-mount-m.toml", "")
    };
    let plain = |machine: &serde_json::Value| text(&service(machine)).replace(&root(machine), "");
    assert!(plain(&a) == plain(&b) && plain(&a) == plain(&c));
}
