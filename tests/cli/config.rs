//! Configuration files, from outside.

use std::{fs, path::Path, process::Output};

use crate::{
    commands::{failed, text},
    support::{Running, import, lazystore, noise, run, write},
};

/// Runs a command with a configuration file.
fn with(file: &Path, args: &[&str]) -> Output {
    let mut command = lazystore(Path::new("/nonexistent"));
    command.env("LAZYSTORE_CONFIG", file).env_remove("LAZYSTORE_CACHE_DIR");
    command.args(args).output().expect("it runs")
}

fn good(output: Output) -> String {
    assert!(output.status.success(), "{}", text(&output.stderr));
    text(&output.stdout)
}

/// A daemon over a store, and its address.
fn daemon(store: &Path) -> (Running, String) {
    let mut command = lazystore(store);
    let mut daemon = Running::start(command.args(["daemon", "--listen=127.0.0.1:0"]));
    let line = daemon.wait_for_line("listening");
    let address = line.split("address=").nth(1).and_then(|rest| rest.split(' ').next());
    let address = format!("grpc+http://{}", address.expect("it says where").trim_matches('"'));
    (daemon, address)
}

#[test]
fn several_sources_are_one_store_and_survive_the_death_of_one() {
    let dir = tempfile::tempdir().expect("a folder");
    let path = |name: &str| dir.path().join(name);
    for name in ["near", "far", "new"] {
        write(path(&format!("{name}.txt")), noise(name.len() as u64, 300_000), 0o644);
    }
    let near = import(&path("near-store"), &path("near.txt"));
    let far = import(&path("far-store"), &path("far.txt"));
    let (_near, near_address) = daemon(&path("near-store"));
    let (far_daemon, far_address) = daemon(&path("far-store"));
    let root = dir.path().display();
    write(path("token"), "a-token-that-nobody-may-see", 0o600);
    let file = path("config.toml");
    let config = format!(
        "[source.near]\naddress = '{near_address}'\ncompress = 'zstd'\n\
         [source.far]\naddress = '{far_address}'\ntimeout = 5\ntoken-file = '{root}/token'\n\
         [cache.disk]\ndir = '{root}/cache'\nsize = '64M'\n\
         [store.default]\nread = ['near', 'far']\nwrite = 'near'\n"
    );
    write(&file, config, 0o644);

    let shown = good(with(&file, &["config", "show"]));
    for part in ["store default", "read 1: near", "read 2: far", "written: near", "64.00 MiB"] {
        assert!(shown.contains(part), "{shown}");
    }
    let checked = good(with(&file, &["config", "check"]));
    assert!(checked.matches("answers, dialect tvix").count() == 2, "{checked}");
    for name in [&near, &far] {
        good(with(&file, &["stat", &format!("/nix/store/{name}")]));
    }
    // A source alone is a store as well.
    let alone =
        with(&file, &["--store=near", "--cache-dir=none", "stat", &format!("/nix/store/{far}")]);
    failed(&alone, 3);
    let absent = format!("/nix/store/{}-absent", "0".repeat(32));
    failed(&with(&file, &["stat", &absent]), 3);

    drop(far_daemon);
    // What was not read yet: that it is absent is not said, as the dead one may have it.
    let said = failed(&with(&file, &["stat", &absent]), 4);
    assert!(said.contains("unavailable"), "{said}");
    good(with(&file, &["stat", &format!("/nix/store/{near}")]));
    // Adding needs only what is written.
    let new = path("new.txt").display().to_string();
    let imported = good(with(&file, &["import", &new]));
    let printed = good(with(&file, &["cat", imported.trim()]));
    assert_eq!(printed, text(&noise(3, 300_000)));
    run(lazystore(&path("near-store")).args(["stat", imported.trim()]));

    let output = with(&file, &["config", "check"]);
    let said = failed(&output, 1) + &text(&output.stdout);
    assert!(said.contains("far: ") && said.contains("is it running"), "{said}");
    assert!(!said.contains("nobody-may-see"), "{said}");
    good(with(&file, &["--offline", "config", "check"]));
}

#[test]
fn a_file_that_is_wrong_is_told_with_its_line() {
    let dir = tempfile::tempdir().expect("a folder");
    let file = dir.path().join("config.toml");
    write(&file, "[source.a]\naddress = 'memory:'\n\n[store.default]\nread = ['a', 'b']\n", 0o644);
    for args in [&["config", "check"][..], &["config", "show"], &["stat", "/nix/store/x"]] {
        let said = failed(&with(&file, args), 78);
        assert!(said.contains(&format!("{}:5:14: ", file.display())), "{said}");
    }
    write(&file, "[source.a]\naddress = 'memory:'\n", 0o644);
    let path = format!("/nix/store/{}-x", "0".repeat(32));
    let said = failed(&with(&file, &["stat", &path]), 78);
    assert!(said.contains("has no [store.default]: it has a"), "{said}");
    failed(&with(&file, &["--store=a", "stat", &path]), 3);
    failed(&with(&file, &["--store=memory:", "stat", &path]), 3);
    let checked = good(with(Path::new("none"), &["config", "check", file.to_str().expect("text")]));
    assert!(checked.contains("1 sources"), "{checked}");
    fs::remove_file(&file).expect("it is there");
    assert!(failed(&with(&file, &["config", "check"]), 78).contains("cannot read"));
}
