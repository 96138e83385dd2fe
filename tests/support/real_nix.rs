//! The real Nix, and inputs for it.

use std::{
    ffi::OsStr,
    fs,
    os::unix::{ffi::OsStrExt as _, fs::symlink},
    path::{Path, PathBuf},
    process::Command,
};

use crate::support::{noise, write};

/// Nobody else may be here, and nothing is built.
const NIX_CONFIG: &str = "build-users-group =\nsandbox = false\nexperimental-features = nix-command\n\
                          substituters =";

/// Nix with a store of its own that is still called /nix/store, so that nothing outside is touched.
pub fn nix(program: &str, root: &Path) -> Command {
    // What Nix remembers of caches must not outlive a test.
    let home = root.with_extension("home");
    nix_at(program, root.to_str().expect("UTF-8"), &home)
}

/// Nix that works on the store at an address, and remembers of caches what is in the folder `home`.
pub fn nix_at(program: &str, store: &str, home: &Path) -> Command {
    let mut command = Command::new(program);
    command.env("NIX_CONFIG", NIX_CONFIG).env("XDG_CACHE_HOME", home);
    command.args(["--store", store]);
    command
}

/// Some fifty inputs of all shapes.
pub fn shapes(dir: &Path) -> Vec<PathBuf> {
    let mut shapes = Vec::new();
    let mut add = |name: &str| {
        shapes.push(dir.join(name));
        dir.join(name)
    };
    for len in [
        0,
        1,
        2,
        3,
        7,
        8,
        9,
        15,
        16,
        31,
        63,
        64,
        65,
        4095,
        4096,
        4097,
        1 << 20,
        (1 << 20) + 1,
        2_500_001,
    ] {
        write(add(&format!("file-{len}")), noise(len as u64, len), 0o644);
    }
    for mode in [0o400, 0o444, 0o500, 0o555, 0o600, 0o644, 0o654, 0o700, 0o711, 0o744, 0o755, 0o777]
    {
        write(add(&format!("mode-{mode:o}")), "#!/bin/sh\n", mode);
    }
    for (name, target) in
        [("link-short", "x"), ("link-absolute", "/nix/store"), ("link-up", "../../x")]
    {
        symlink(target, add(name)).expect("new");
    }
    symlink(OsStr::from_bytes(&[b'l'; 4095]), add("link-long")).expect("new");
    symlink(OsStr::from_bytes(b"\xff\xfe"), add("link-odd")).expect("new");
    for name in ["a", "A", "name+with.all_the?legal=characters-0", "n".repeat(200).as_str()] {
        write(add(name), name, 0o644);
    }
    fs::create_dir(add("empty-directory")).expect("new");
    fs::create_dir_all(add("only-empty").join("a/b/c")).expect("new");
    for count in [1, 2, 100] {
        let dir = add(&format!("entries-{count}"));
        fs::create_dir(&dir).expect("new");
        for number in 0..count {
            write(dir.join(number.to_string()), number.to_string(), 0o644);
        }
    }
    // Names whose order as bytes is not that of a locale.
    let sorted = add("order");
    fs::create_dir(&sorted).expect("new");
    for name in ["a", "B", "a.b", "a-b", "ab", "a b", "Z", "_", "~", "\u{e9}", "e", "10", "9"] {
        write(sorted.join(name), name, 0o644);
    }
    fs::create_dir(sorted.join("a.d")).expect("new");
    symlink("a", sorted.join("a.l")).expect("new");
    let deep: PathBuf = (0..60).map(|level| level.to_string()).collect();
    fs::create_dir_all(add("deep").join(deep)).expect("new");
    let twins = add("twins");
    for place in ["x", "y"] {
        fs::create_dir_all(twins.join(place)).expect("new");
        write(twins.join(place).join("same"), "same", 0o755);
    }
    for round in 0..4 {
        let mixed = add(&format!("mixed-{round}"));
        fs::create_dir(&mixed).expect("new");
        for number in 0..20 {
            let name = mixed.join(format!("{}-{number}", number % 3));
            match (round + number) % 4 {
                0 => symlink(format!("{number}"), name).expect("new"),
                1 => fs::create_dir(name).expect("new"),
                kind => write(
                    name,
                    noise(number, 37 * number as usize),
                    [0o644, 0o755][kind as usize - 2],
                ),
            }
        }
    }
    shapes
}
