//! The module, evaluated for configurations.

use std::{
    fs,
    os::unix::fs::symlink,
    path::{Path, PathBuf},
    process::{Command, Output},
};

use serde_json::Value;

use crate::support::{PROGRAM, have_program};

/// Where the module is.
pub fn module() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("nixos-module")
}

/// Whether the module can be evaluated here.
pub fn can_evaluate() -> bool {
    have_program("nix-instantiate")
}

/// A place for the files that a configuration writes, and for the program as a package has it.
pub struct Place {
    dir: tempfile::TempDir,
}

impl Place {
    pub fn new() -> Self {
        let dir = tempfile::tempdir().expect("a temporary directory");
        fs::create_dir_all(dir.path().join("package/bin")).expect("it is ours");
        symlink(PROGRAM, dir.path().join("package/bin/lazystore")).expect("it is ours");
        Place { dir }
    }

    pub fn path(&self) -> &Path {
        self.dir.path()
    }

    /// Evaluates an expression in which `s` is the stand-in of NixOS.
    pub fn evaluate(&self, expression: &str) -> Value {
        let output = self.try_evaluate(expression);
        let stderr = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{expression}\n{stderr}");
        serde_json::from_slice(&output.stdout).expect("Nix writes JSON")
    }

    pub fn try_evaluate(&self, expression: &str) -> Output {
        let expression = format!(
            "let s = import {}/tests/standin {{ root = \"{root}\"; program = \"{root}/package\"; }}; in {expression}",
            module().display(),
            root = self.path().display(),
        );
        nix(&["--expr", &expression])
    }

    /// Evaluates settings of `services.lazystore` for one machine.
    pub fn machine(&self, settings: &str) -> Value {
        self.evaluate(&machine(settings))
    }

    /// Writes what the configuration writes, and returns the configuration file of a unit.
    pub fn write_files(&self, machine: &Value) {
        for file in machine["files"].as_object().expect("a set").values() {
            fs::write(text(&file["path"]), text(&file["text"])).expect("it is ours");
        }
    }

    /// Writes all units into a directory.
    pub fn write_units(&self, units: &Value) -> PathBuf {
        let dir = self.path().join("units");
        fs::create_dir_all(&dir).expect("it is ours");
        for (name, unit) in units.as_object().expect("a set") {
            fs::write(dir.join(name), text(unit)).expect("it is ours");
        }
        dir
    }
}

/// The expression for one machine with these settings of `services.lazystore`.
pub fn machine(settings: &str) -> String {
    format!(
        "s.machine [
           ({{ pkgs, lib, ... }}: {{ services.lazystore = {{ {settings} }}; }})
           {{ boot.initrd.systemd = {{ enable = true; network.enable = true; }}; }}
         ]"
    )
}

/// Evaluates a file of the module, or an expression. No store is needed.
pub fn nix(arguments: &[&str]) -> Output {
    Command::new("nix-instantiate")
        .args(["--store", "dummy://", "--eval", "--strict", "--json"])
        .args(arguments)
        .env_remove("NIX_PATH")
        .output()
        .expect("nix-instantiate can be run")
}

/// A string of what was evaluated.
pub fn text(value: &Value) -> &str {
    value.as_str().unwrap_or_else(|| panic!("{value} is no string"))
}

/// All values of a setting of a unit, in order.
pub fn settings<'u>(unit: &'u str, name: &str) -> Vec<&'u str> {
    let value = |line: &'u str| line.strip_prefix(name)?.strip_prefix('=');
    unit.lines().filter_map(value).collect()
}
