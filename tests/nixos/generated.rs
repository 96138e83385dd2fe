//! Files of the tree that are made from the module: the reference of its options, and units for other distributions.

use std::{collections::BTreeSet, fs, path::Path, process::Command};

use serde_json::Value;

use super::{
    evaluation::{Place, can_evaluate, module, nix, settings, text},
    units::{bound_exposure, units_in, verify},
};
use crate::support::{PROGRAM, have_program};

fn generated() -> Vec<(String, String)> {
    let file = module().join("tests/generated.nix");
    let output = nix(&[file.to_str().expect("UTF-8")]);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let files: Value = serde_json::from_slice(&output.stdout).expect("Nix writes JSON");
    let files = files.as_object().expect("a set").iter();
    files.map(|(name, content)| (name.clone(), text(content).to_owned())).collect()
}

#[test]
fn generated_files_are_up_to_date() {
    if !can_evaluate() {
        return;
    }
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let files = generated();
    if std::env::var_os("LAZYSTORE_WRITE").is_some() {
        for (name, content) in &files {
            let file = root.join(name);
            fs::create_dir_all(file.parent().expect("it is in a folder")).expect("it is ours");
            fs::write(file, content).expect("it is ours");
        }
    }
    for (name, content) in &files {
        let is = fs::read_to_string(root.join(name)).unwrap_or_default();
        assert!(
            is == *content,
            "{name} is not what the module says: LAZYSTORE_WRITE=1 cargo nextest run --test nixos generated"
        );
    }
    let made: BTreeSet<_> = files.iter().map(|(name, _)| root.join(name)).collect();
    let mut there = units_in(&module().join("systemd"));
    there.retain(|path| path.is_file());
    assert!(there.iter().all(|file| made.contains(file)), "somebody put files beside: {there:?}");
}

/// The units with a place for the program that is there.
fn installed(place: &Place) -> Vec<std::path::PathBuf> {
    let dir = place.path().join("installed");
    fs::create_dir(&dir).expect("it is ours");
    let package = place.path().join("package");
    for (name, content) in generated() {
        let name = name.rsplit('/').next().expect("a name").to_owned();
        if name.starts_with("lazystore-") {
            let content =
                content.replace("/usr/local/bin", &package.join("bin").display().to_string());
            fs::write(dir.join(name), content).expect("it is ours");
        }
    }
    units_in(&dir)
}

#[test]
fn systemd_understands_the_units_for_other_distributions() {
    if !can_evaluate() || !have_program("systemd-analyze") {
        return;
    }
    let place = Place::new();
    let units = installed(&place);
    assert_eq!(units.len(), 7, "{units:?}");
    // Templates are read as an instance.
    let instances = place.path().join("instances");
    fs::create_dir(&instances).expect("it is ours");
    for unit in &units {
        let name = unit.file_name().and_then(|name| name.to_str()).expect("UTF-8");
        fs::copy(unit, instances.join(name.replace("@.", "@mnt-store."))).expect("it is ours");
    }
    verify(&units_in(&instances));
    bound_exposure(&units);
    let mount = fs::read_to_string(&units[4]).expect("it is there");
    assert!(settings(&mount, "ExecStart")[0].contains("lazystore mount %f "), "{mount}");
}

/// Users, directories and configuration, as the programs read them that do so on such a machine.
#[test]
fn the_rest_of_an_installation_is_understood() {
    if !can_evaluate() || !have_program("systemd-sysusers") || !have_program("systemd-tmpfiles") {
        return;
    }
    let (place, dir) = (Place::new(), module().join("systemd"));
    let root = place.path().join("root");
    fs::create_dir_all(root.join("etc")).expect("it is ours");
    let run = |program: &str, arguments: &[&str], file: &str| {
        let mut command = Command::new(program);
        command.arg(format!("--root={}", root.display())).args(arguments).arg(dir.join(file));
        let output = command.output().expect("it can be run");
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(output.status.success(), "{program}: {said}");
        said
    };
    run("systemd-sysusers", &[], "sysusers.d/lazystore.conf");
    let groups = fs::read_to_string(root.join("etc/group")).expect("it was made");
    assert!(groups.lines().any(|line| line.starts_with("lazystore:")), "{groups}");
    run("systemd-tmpfiles", &["--create"], "tmpfiles.d/lazystore.conf");
    assert!(root.join("etc/lazystore").is_dir() && root.join("run/lazystore").is_dir());

    let output = Command::new(PROGRAM)
        .args(["config", "check", "--offline", "--store-dir"])
        .arg(place.path().join("store"))
        .arg(dir.join("config.toml"))
        .output()
        .expect("the program can be run");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}
