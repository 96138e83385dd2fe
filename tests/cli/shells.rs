//! What shells complete, and the manual pages.

use std::{
    collections::BTreeSet,
    fs,
    io::Write as _,
    path::Path,
    process::{Command, Stdio},
};

use crate::{
    commands::text,
    support::{have_program, lazystore, run},
};

fn printed(args: &[&str]) -> String {
    text(&run(lazystore(Path::new("/nonexistent")).args(args)).stdout)
}

/// The commands of the help of `args`, which hidden ones are not among.
fn commands(args: &[&str]) -> BTreeSet<String> {
    let help = printed(&[args, &["--help"]].concat());
    let listed = help.split("Commands:\n").nth(1).unwrap_or_default();
    let lines = listed.lines().take_while(|line| line.starts_with("  "));
    // Those that are wrapped begin further to the right.
    let names = lines.filter_map(|line| line[2..].split(' ').next());
    names.filter(|name| !name.is_empty() && *name != "help").map(str::to_owned).collect()
}

/// Runs a script with arguments in a bash that has read no start-up file. Returns what it printed.
fn bash(script: &str, args: &[&str]) -> String {
    let mut command = Command::new("bash");
    text(&run(command.args(["--norc", "--noprofile", "-euc", script, "bash"]).args(args)).stdout)
}

#[test]
fn bash_completes_commands_options_and_values() {
    if !have_program("bash") {
        return;
    }
    let dir = tempfile::tempdir().expect("a folder");
    let file = dir.path().join("lazystore.bash");
    fs::write(&file, printed(&["completions", "bash"])).expect("it writes");
    let file = file.to_str().expect("text");
    bash("bash -n \"$1\"", &[file]);
    let completed = |words: &[&str]| -> BTreeSet<String> {
        // As bash itself calls it: the command, the word, and the one before it.
        let script = "file=$1; shift; set +u; source \"$file\"; COMP_WORDS=(\"$@\"); COMP_CWORD=$(($# - 1)); \
                      _lazystore lazystore \"${COMP_WORDS[COMP_CWORD]}\" \"${COMP_WORDS[COMP_CWORD-1]}\"; \
                      printf '%s\\n' \"${COMPREPLY[@]}\"";
        bash(script, &[&[file], words].concat()).lines().map(str::to_owned).collect()
    };
    let all = completed(&["lazystore", ""]);
    let told = commands(&[]);
    assert!(told.contains("mount") && told.contains("completions"), "{told:?}");
    assert!(told.is_subset(&all), "{all:?}");
    assert_eq!(completed(&["lazystore", "mou"]), BTreeSet::from(["mount".to_owned()]));
    let pins: BTreeSet<_> = ["pin", "prune"].map(str::to_owned).into();
    assert_eq!(completed(&["lazystore", "cache", "p"]), pins);
    assert!(completed(&["lazystore", "daemon", "--tls"]).contains("--tls-cert"));
    assert!(completed(&["lazystore", "mount", "--io-mode", ""]).contains("passthrough"));
}

#[test]
fn there_is_a_script_for_each_shell() {
    for shell in ["bash", "elvish", "fish", "powershell", "zsh"] {
        let script = printed(&["completions", shell]);
        for word in ["lazystore", "path-info", "io-mode"] {
            assert!(script.contains(word), "{shell} does not know {word}");
        }
    }
    let mut wrong = lazystore(Path::new("/nonexistent"));
    let output = wrong.args(["completions", "tcsh"]).output().expect("it runs");
    assert_eq!(output.status.code(), Some(2));
}

/// The page as a terminal shows it, without bold and underlined letters. The formatter must have nothing to say of it.
fn rendered(page: &[u8]) -> String {
    let mut groff = Command::new("groff")
        .args([
            "-man",
            "-Tutf8",
            "-Kutf8",
            "-ww",
            "-rLL=100n",
            "-rHY=0",
            "-P-c",
            "-P-b",
            "-P-u",
            "-P-o",
        ])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("it can be run");
    let mut stdin = groff.stdin.take().expect("a pipe");
    let page = page.to_owned();
    let writer = std::thread::spawn(move || stdin.write_all(&page));
    let output = groff.wait_with_output().expect("it ends");
    writer.join().expect("no panic").expect("it reads");
    assert!(output.status.success());
    assert_eq!(text(&output.stderr), "");
    text(&output.stdout)
}

#[test]
fn each_command_has_a_page_that_renders_and_hidden_ones_have_none() {
    if !have_program("groff") {
        return;
    }
    let dir = tempfile::tempdir().expect("a folder");
    let pages = dir.path().join("man/man1");
    run(lazystore(Path::new("/nonexistent")).args(["man", "--dir"]).arg(&pages));
    let mut expected = BTreeSet::from(["lazystore.1".to_owned()]);
    for command in commands(&[]) {
        for below in commands(&[&command]) {
            expected.insert(format!("lazystore-{command}-{below}.1"));
        }
        expected.insert(format!("lazystore-{command}.1"));
    }
    assert!(expected.contains("lazystore-cache-prune.1"), "{expected:?}");
    let names = fs::read_dir(&pages).expect("it is there").flatten();
    let names: BTreeSet<_> =
        names.map(|entry| text(entry.file_name().as_encoded_bytes())).collect();
    assert_eq!(names, expected);
    for name in names {
        let shown = rendered(&fs::read(pages.join(&name)).expect("it reads"));
        for section in ["NAME", "SYNOPSIS", "OPTIONS"] {
            assert!(shown.lines().any(|line| line == section), "{name}: {shown}");
        }
    }
    let whole = rendered(printed(&["man"]).as_bytes());
    assert!(whole.contains("lazystore-mount(1)") && !whole.contains("orphaned"), "{whole}");
    let mount = rendered(&fs::read(pages.join("lazystore-mount.1")).expect("it reads"));
    for part in ["--io-mode", "--store", "LAZYSTORE_STORE", "lazystore mount --closure-of"] {
        assert!(mount.contains(part), "{part}: {mount}");
    }
}
