//! Every option of the module reaches the program: its configuration file, its command line, or its unit.

use std::{collections::BTreeSet, process::Command};

use serde_json::Value;

use super::evaluation::{Place, can_evaluate, machine, module, nix, text};

use crate::support::PROGRAM;

mod table;

use table::Row;

/// A source that all rows have.
const SOURCE: &str = r#"address = "grpc+https://h:1"; tokenFile = "/s/token";"#;

/// The rest of a machine around the option of a row.
fn settings(row: &Row) -> String {
    let Row { option, value, beside, .. } = row;
    let source = format!("sources.x = {{ {SOURCE} }};");
    let store = "stores.s.read = [ \"x\" ];";
    let path: Vec<_> = option.splitn(3, '.').collect();
    match path[..] {
        ["sources", _, key] => {
            format!("sources.x = {{ {beside} {key} = {value}; }}; mounts.m.mountPoint = \"/mnt\";")
        }
        ["caches", _, key] => {
            format!("{source} caches.c.{key} = {value}; mounts.m.mountPoint = \"/mnt\";")
        }
        ["stores", _, key] => {
            let read = if key == "read" { "" } else { "read = [ \"x\" ];" };
            format!(
                "{source} sources.y.address = \"grpc+https://y:1\"; mounts.m.mountPoint = \"/mnt\";
                 stores.default = {{ {read} {key} = {value}; }};"
            )
        }
        ["mounts", _, key] => {
            let place = if key == "mountPoint" { "" } else { "mountPoint = \"/mnt\";" };
            format!("{source} {store} mounts.m = {{ {place} {beside} {key} = {value}; }};")
        }
        ["virtiofs", _, key] => {
            format!("{source} {store} virtiofs.v = {{ {beside} {key} = {value}; }};")
        }
        ["daemon" | "binaryCache", ..] => {
            format!("{source} {store} {beside} {option} = {value};")
        }
        _ => format!("{source} {store} daemon.enable = true; {option} = {value};"),
    }
}

/// What is at a row's place.
fn found(machine: &Value, row: &Row) -> String {
    let found = row.place.split('/').fold(machine, |value, key| &value[key]);
    found.as_str().map_or_else(|| found.to_string(), str::to_owned)
}

#[test]
fn every_option_reaches_the_program() {
    if !can_evaluate() {
        return;
    }
    let (place, rows) = (Place::new(), table::all());
    let machines: Vec<_> =
        rows.iter().map(|row| format!("({})", machine(&settings(row)))).collect();
    let machines = place.evaluate(&format!("[ {} ]", machines.join("\n")));
    for (row, machine) in rows.iter().zip(machines.as_array().expect("a list")) {
        let Row { option, value, place, shows, .. } = row;
        let found = found(machine, row);
        assert!(found.contains(shows), "{option} = {value}: {shows:?} is not in {place}:\n{found}");
    }
}

#[test]
fn what_an_option_shows_is_not_there_without_it() {
    if !can_evaluate() {
        return;
    }
    let plain = Place::new().machine(&format!(
        "sources.x = {{ {SOURCE} }}; daemon.enable = true; binaryCache.enable = true;
         mounts.m = {{ mountPoint = \"/other\"; store = \"x\"; }}; virtiofs.v.store = \"x\";"
    ));
    for row in table::all().iter().filter(|row| !row.option.ends_with("enable")) {
        let found = found(&plain, row);
        assert!(
            !found.contains(row.shows),
            "{} is not set, and {:?} is there:\n{found}",
            row.option,
            row.shows
        );
    }
}

/// Options of the program that the module has no option for, and why.
const LEFT_OUT: &[&str] = &[
    // Where the services of a store are, its cache and how it is read are in the configuration file.
    "--absent-ttl",
    "--blob-service-addr",
    "--cache-dir",
    "--cache-size",
    "--directory-service-addr",
    "--fetch-whole-up-to",
    "--path-info-service-addr",
    // Named in the file for each source; for a daemon, `tokenFile`.
    "--auth-token-file",
    "--help",
    "--version",
];

/// What the program can be told on its command line can be told through the module, now and later.
#[test]
fn no_option_of_the_program_is_out_of_reach() {
    if !can_evaluate() {
        return;
    }
    let shown: BTreeSet<_> = table::all().iter().map(|row| row.shows.to_owned()).collect();
    let always = Place::new().machine(
        "daemon.enable = true; binaryCache.enable = true; mounts.m.mountPoint = \"/m\"; virtiofs.v = { };",
    );
    for (command, unit) in [
        ("daemon", "daemon"),
        ("serve", "binary-cache"),
        ("mount", "mount-m"),
        ("virtiofs", "virtiofs-v"),
    ] {
        let help = Command::new(PROGRAM).args([command, "--help"]).output().expect("it runs");
        let help = String::from_utf8(help.stdout).expect("UTF-8");
        // What an option means is further in.
        let lines =
            help.lines().filter(|line| line.starts_with("      --") || line.starts_with("  -"));
        let options = lines.filter_map(|line| {
            let words = line.trim_start().split([' ', '=', '[']);
            words.take(2).find(|word| word.starts_with("--"))
        });
        let options: BTreeSet<_> = options.collect();
        assert!(options.len() > 20, "{help}");
        let unit = text(&always["units"][format!("lazystore-{unit}.service")]);
        for option in options.iter().filter(|option| !LEFT_OUT.contains(option)) {
            let is_reached =
                unit.contains(option) || shown.iter().any(|shows| shows.contains(option));
            assert!(is_reached, "{command} {option}: add it to the module, or to LEFT_OUT");
        }
    }
}

#[test]
fn no_option_is_left_out_here() {
    if !can_evaluate() {
        return;
    }
    let file = module().join("tests/options.nix");
    let output = nix(&[file.to_str().expect("UTF-8")]);
    let options: Value = serde_json::from_slice(&output.stdout).expect("Nix writes JSON");
    let options = options.as_array().expect("a list");
    // They hold options, or cannot be set.
    let is_none = |name: &&str| {
        ["sources", "caches", "stores", "mounts", "virtiofs", "configFiles"].contains(name)
            || ["blobs", "directories", "pathInfos"].iter().any(|part| name.ends_with(part))
    };
    let names = options.iter().map(|option| text(&option["name"]));
    let names = names.map(|name| name.trim_start_matches("services.lazystore."));
    let declared: BTreeSet<_> = names.filter(|name| !is_none(name)).collect();
    let rows = table::all();
    let tested: BTreeSet<_> = rows.iter().map(|row| row.option.as_str()).collect();
    let only = |a: &BTreeSet<&str>, b: &BTreeSet<&str>| {
        a.difference(b).copied().collect::<Vec<_>>().join(", ")
    };
    assert_eq!(only(&declared, &tested), "", "these are not tested");
    assert_eq!(only(&tested, &declared), "", "these are no options");
    for option in options {
        let sentence = option["description"].as_str().unwrap_or_default();
        assert!(sentence.ends_with('.') && sentence.len() > 8, "{}: {sentence:?}", option["name"]);
    }
}
