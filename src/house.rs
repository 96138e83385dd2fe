//! Holds the rooms to the order that `docs/architecture.md` promises, by reading the source.

use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
};

/// A room, and the rooms it may use.
const MAY_USE: &[(&str, &[&str])] = &[
    ("castore", &[]),
    ("nix", &["castore"]),
    ("proto", &["castore", "nix"]),
    ("service", &["castore", "nix", "observe"]),
    ("ingest", &["castore", "nix", "service", "observe"]),
    ("render", &["castore", "nix", "service", "observe"]),
    ("transfer", &["castore", "nix", "service", "ingest"]),
    ("audit", &["castore", "nix", "service", "render"]),
    ("substitute", &["castore", "nix", "service", "ingest", "render", "observe"]),
    ("vfs", &["castore", "nix", "service", "observe"]),
    ("mount", &["vfs", "observe"]),
    ("access", &["vfs", "observe"]),
    ("serve", &["castore", "nix", "proto", "service", "ingest", "render", "observe"]),
    ("compose", &["castore", "nix", "service", "render", "substitute", "observe"]),
    ("observe", &[]),
];

/// Who may use `proto` besides: whatever speaks or keeps messages.
const MAY_USE_PROTO: &[&str] = &[
    "service/grpc/",
    "service/local/",
    "service/blob/backend/",
    "service/directory/backend/",
    "service/pathinfo/backend/",
];

fn sources(dir: &Path, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(dir).expect("src can be read") {
        let path = entry.expect("src can be read").path();
        if path.is_dir() {
            sources(&path, found);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            found.push(path);
        }
    }
}

/// The rooms that `source` names behind `crate::`, its tests and comments left out.
fn rooms_used(source: &str) -> BTreeSet<String> {
    let code = source.split("#[cfg(test)]").next().unwrap_or_default();
    let code: String = code
        .lines()
        .filter(|line| !line.trim_start().starts_with("//"))
        .collect::<Vec<_>>()
        .join("\n");
    let mut rooms = BTreeSet::new();
    for rest in code.split("crate::").skip(1) {
        if !rest.starts_with('{') {
            rooms.insert(identifier(rest));
            continue;
        }
        let mut depth = 0;
        let mut at_start = false;
        for (index, character) in rest.char_indices() {
            match character {
                '{' => depth += 1,
                '}' => depth -= 1,
                _ => {}
            }
            if depth == 0 {
                break;
            }
            if depth == 1 && matches!(character, '{' | ',') {
                at_start = true;
            } else if at_start && character.is_alphabetic() {
                rooms.insert(identifier(&rest[index..]));
                at_start = false;
            }
        }
    }
    rooms
}

fn identifier(text: &str) -> String {
    text.chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect()
}

#[test]
fn the_use_lines_of_a_file_are_understood() {
    let source = "use crate::{\n  castore::{Digest, Node},\n  nix,\n};\nuse crate::vfs::Ino;\n// crate::cli\n\
                  fn f() { crate::observe::g() }\n#[cfg(test)] mod tests { use crate::cli; }";
    let rooms: Vec<_> = rooms_used(source).into_iter().collect();
    assert_eq!(rooms, ["castore", "nix", "observe", "vfs"]);
}

#[test]
fn each_room_uses_only_what_lies_below_it() {
    let src = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut files = Vec::new();
    sources(&src, &mut files);
    let mut wrong = Vec::new();
    for file in files {
        let name = file.strip_prefix(&src).expect("below src").to_string_lossy().into_owned();
        let Some((room, _)) = name.split_once('/') else { continue };
        if room == "cli" || name.ends_with("tests.rs") {
            continue;
        }
        let (_, allowed) =
            MAY_USE.iter().find(|(name, _)| *name == room).expect("every room stands in the table");
        for used in rooms_used(&fs::read_to_string(&file).expect("a source can be read")) {
            let proto = used == "proto" && MAY_USE_PROTO.iter().any(|dir| name.starts_with(dir));
            if used != room && !allowed.contains(&used.as_str()) && !proto {
                wrong.push(format!("{name} uses {used}"));
            }
        }
    }
    assert_eq!(wrong, [""; 0], "see the table of rooms in docs/architecture.md");
}
