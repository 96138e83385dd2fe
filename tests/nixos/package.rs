//! The package expression, as far as it can be looked at without nixpkgs.

use std::{fs, path::Path, process::Command};

use serde_json::Value;

use super::evaluation::module;
use crate::support::run;

/// What the package is built from is enough for cargo to find everything that the manifest names, and for the program to be
/// compiled: what it includes besides its sources is there.
#[test]
fn what_the_package_is_built_from_is_whole() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let expression = fs::read_to_string(module().join("package.nix")).expect("it is there");
    let named = expression.lines().filter_map(|line| line.trim().strip_prefix("../"));
    let parts: Vec<_> = named.filter(|part| !part.contains(' ')).collect();
    assert!(parts.contains(&"src") && parts.contains(&"Cargo.lock"), "{parts:?}");
    let dir = tempfile::tempdir().expect("a temporary directory");
    for part in &parts {
        run(Command::new("cp").arg("-r").arg(root.join(part)).arg(dir.path()));
    }
    let mut cargo = Command::new(env!("CARGO"));
    let arguments = ["metadata", "--no-deps", "--offline", "--format-version=1"];
    let metadata = run(cargo.args(arguments).current_dir(dir.path())).stdout;
    let metadata: Value = serde_json::from_slice(&metadata).expect("cargo writes JSON");
    let targets = metadata["packages"][0]["targets"].as_array().expect("a list");
    // Cargo leaves out what it does not find, or fails, depending on its version.
    let manifest = fs::read_to_string(dir.path().join("Cargo.toml")).expect("it is there");
    let manifest: toml::Table = manifest.parse().expect("it is TOML");
    for kind in ["bench", "test"] {
        for target in manifest[kind].as_array().expect("a list") {
            let name = target["name"].as_str().expect("a name");
            assert!(targets.iter().any(|found| found["name"] == name), "there is no {kind} {name}");
        }
    }

    let mut folders = vec![dir.path().join("src")];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).expect("it is ours").flatten() {
            let path = entry.path();
            if path.is_dir() {
                folders.push(path);
                continue;
            }
            let source = fs::read_to_string(&path).expect("it is ours");
            for include in ["include_str!(\"", "include_bytes!(\""] {
                for rest in source.split(include).skip(1) {
                    let file = rest.split('"').next().expect("one at least");
                    let file = path.parent().expect("it is in a folder").join(file);
                    assert!(file.exists(), "{} includes {}", path.display(), file.display());
                }
            }
        }
    }
}
