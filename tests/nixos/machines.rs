//! The tests for virtual machines of NixOS, as far as they can be looked at without nixpkgs: nobody starts them here.

use std::{
    collections::BTreeSet,
    io::Write as _,
    process::{Command, Stdio},
};

use serde_json::Value;

use super::evaluation::{Place, can_evaluate, module, nix, text};
use crate::support::have_program;

/// Reads a script, and prints the names of machines that it speaks to.
const COMPILE: &str = r#"
import ast, sys
tree = ast.parse(sys.stdin.read())
own = {n.id for n in ast.walk(tree) if isinstance(n, ast.Name) and isinstance(n.ctx, ast.Store)}
asked = {n.value.id for n in ast.walk(tree) if isinstance(n, ast.Attribute) and isinstance(n.value, ast.Name)}
print(*(asked - own))
"#;

#[test]
fn machines_can_be_evaluated_and_their_scripts_compiled() {
    if !can_evaluate() || !have_program("python3") {
        return;
    }
    let file = module().join("tests/machines.nix");
    let output = nix(&[file.to_str().expect("UTF-8")]);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let tests: Value = serde_json::from_slice(&output.stdout).expect("Nix writes JSON");
    let tests = tests.as_object().expect("a set");
    assert_eq!(tests.keys().collect::<Vec<_>>(), ["boot", "killed", "network", "sandbox"]);
    for (name, test) in tests {
        assert_eq!(text(&test["name"]), format!("lazystore-{name}"));
        let mut python = Command::new("python3")
            .args(["-c", COMPILE])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("Python can be run");
        let mut input = python.stdin.take().expect("it is a pipe");
        input.write_all(text(&test["script"]).as_bytes()).expect("it reads");
        drop(input);
        let output = python.wait_with_output().expect("it ends");
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{name}: {said}");
        let spoken = String::from_utf8_lossy(&output.stdout).into_owned();
        let spoken: BTreeSet<_> = spoken.split_whitespace().collect();
        let nodes = test["nodes"].as_object().expect("a set");
        assert_eq!(spoken, nodes.keys().map(String::as_str).collect(), "{name}");
        // Each script waits for units that its machines have.
        let units =
            nodes.values().flat_map(|node| node["units"].as_object().expect("a set").keys());
        let units: BTreeSet<_> = units.map(String::as_str).collect();
        for word in text(&test["script"]).split(['"', '\'', ' ']) {
            if word.starts_with("lazystore-") && word.ends_with(".service") {
                assert!(units.contains(word), "{name}: there is no {word}");
            }
        }
    }
}

/// What `docs/nixos.md` shows is what works.
#[test]
fn the_examples_of_the_documents_can_be_evaluated() {
    if !can_evaluate() {
        return;
    }
    let document = std::fs::read_to_string(module().join("../docs/nixos.md")).expect("it is there");
    let examples: Vec<_> = document.split("```nix\n").skip(1).collect();
    assert!(examples.len() >= 4, "{}", examples.len());
    for example in examples {
        let example = example.split("```").next().expect("one at least").trim();
        let example = example.replace("imports = [ ./lazystore/nixos-module ];", "");
        // Lines of a module, or a whole one.
        let example = if example.starts_with('{') { example } else { format!("{{ {example} }}") };
        // An overlay is put on a mount of a source that other examples name.
        let source =
            "{ services.lazystore.sources = s.lib.mkDefault { team.address = \"memory:\"; }; }";
        let machine = Place::new().evaluate(&format!("s.machine [ ({example}) {source} ]"));
        assert!(!machine["units"].as_object().expect("a set").is_empty(), "{example}");
    }
}
