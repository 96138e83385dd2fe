//! The documents: every relative link in them leads somewhere, what they quote is said, and the picture is one.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

/// Folders of the repository that hold no documents of ours.
const SKIPPED: [&str; 4] = ["target", ".git", ".ci", "corpus"];

#[test]
fn every_relative_link_leads_to_a_file_and_to_a_heading_in_it() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let documents = documents_below(root);
    assert!(documents.iter().any(|path| path.ends_with("docs/semantics.md")), "{documents:?}");
    let mut dead = Vec::new();
    let mut links = 0;
    for document in &documents {
        let text = std::fs::read_to_string(document).expect("a document");
        for link in links_of(&text).iter().filter(|link| !link.contains("://")) {
            links += 1;
            if let Err(why) = follow(document, link) {
                dead.push(format!("{}: {link}: {why}", document.display()));
            }
        }
    }
    assert!(links > 15, "only {links} links were found");
    assert_eq!(dead, [""; 0], "dead links");
}

#[test]
fn dead_links_are_noticed() {
    let document = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/stores.md");
    assert_eq!(follow(&document, "formats.md#a-bucket"), Ok(()));
    assert!(follow(&document, "formats.md#no-such-heading").is_err());
    assert!(follow(&document, "no-such-file.md").is_err());
    assert_eq!(
        links_of("a [b](c.md#d) and ![e](f.svg), `[no](link)`\n```\n[no](code)\n```\n"),
        ["c.md#d", "f.svg"]
    );
    assert_eq!(anchor("A directory: `local:`, and *more*"), "a-directory-local-and-more");
}

#[test]
fn the_picture_is_small_and_stands_alone() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/architecture.svg");
    let picture = std::fs::read_to_string(path).expect("the picture");
    assert!(picture.len() < 15_000, "{} bytes", picture.len());
    assert!(picture.contains("prefers-color-scheme: dark") && picture.contains("<title"));
    for foreign in ["<script", "<image", "href=", "@import", "<foreignObject"] {
        assert!(!picture.contains(foreign), "{foreign}");
    }
}

#[test]
fn every_message_and_every_metric_that_operations_md_tells_is_the_programs_own() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let text = std::fs::read_to_string(root.join("docs/operations.md")).expect("the document");
    let source = source_below(&root.join("src"));
    let symptoms = text.split("\n## Symptoms\n").nth(1).expect("the symptoms");
    let rows: Vec<_> = symptoms.lines().filter(|line| line.starts_with("| `")).collect();
    assert!(rows.len() >= 20, "{} rows", rows.len());
    let unknown: Vec<_> = rows.iter().flat_map(|row| unknown_messages(row, &source)).collect();
    assert_eq!(unknown, [""; 0], "these are not in src/");

    let names = text.split(|c: char| !c.is_ascii_alphanumeric() && c != '_');
    let metrics = names.filter(|name| name.starts_with("lazystore_"));
    let unknown: BTreeSet<_> = metrics.filter(|name| !source.contains(&quoted(name))).collect();
    assert_eq!(unknown, BTreeSet::new(), "these metrics are not in src/observe/names.rs");
}

/// The messages of a row's symptom that are not the program's, unless the row says that they are the system's.
fn unknown_messages(row: &str, source: &str) -> Vec<String> {
    let symptom = row.split(" | ").next().unwrap_or_default();
    let mut unknown = Vec::new();
    let spans = symptom.split('`').enumerate().filter(|(number, _)| number % 2 == 1);
    for (number, message) in spans {
        let behind = symptom.split('`').nth(number + 1).unwrap_or_default();
        let pieces = message.split('…').map(|piece| piece.trim_matches([' ', ':', ';', ',']));
        let strange = pieces.filter(|piece| !source.contains(piece));
        if !behind.trim_start().starts_with("*(system)*") {
            unknown.extend(strange.map(str::to_owned));
        }
    }
    unknown
}

/// How a metric's name stands in the source. A histogram's counters have endings of their own.
fn quoted(metric: &str) -> String {
    let endings = ["_bucket", "_count", "_sum"];
    let name = endings.iter().find_map(|ending| metric.strip_suffix(ending)).unwrap_or(metric);
    format!("\"{name}\"")
}

/// All source below a folder, with the strings that go over several lines put together.
fn source_below(folder: &Path) -> String {
    let mut source = String::new();
    for entry in std::fs::read_dir(folder).expect("a folder") {
        let path = entry.expect("an entry").path();
        if path.is_dir() {
            source += &source_below(&path);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            let text = std::fs::read_to_string(path).expect("a source");
            let mut lines = text.split("\\\n");
            source += lines.next().unwrap_or_default();
            lines.for_each(|line| source += line.trim_start());
        }
    }
    source
}

fn documents_below(folder: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(folder).expect("a folder") {
        let path = entry.expect("an entry").path();
        let skipped = path.file_name().is_some_and(|name| SKIPPED.iter().any(|skip| name == *skip));
        if path.is_dir() && !path.is_symlink() && !skipped {
            found.extend(documents_below(&path));
        } else if path.extension().is_some_and(|extension| extension == "md") {
            found.push(path);
        }
    }
    found
}

/// What is between `](` and `)`, outside of code.
fn links_of(text: &str) -> Vec<String> {
    let mut links = Vec::new();
    for (number, part) in text.split("```").enumerate() {
        let prose = part.split('`').step_by(2).collect::<Vec<_>>().join("`");
        if number % 2 == 0 {
            let targets = prose.split("](").skip(1).filter_map(|rest| rest.split_once(')'));
            links.extend(targets.map(|(target, _)| target.to_owned()));
        }
    }
    links
}

fn follow(document: &Path, link: &str) -> Result<(), String> {
    let (file, heading) = link.split_once('#').unwrap_or((link, ""));
    let folder = document.parent().ok_or("no folder")?;
    let target = if file.is_empty() { document.to_owned() } else { folder.join(file) };
    if heading.is_empty() {
        return target.exists().then_some(()).ok_or_else(|| "no such file".to_owned());
    }
    let text = std::fs::read_to_string(&target).map_err(|error| error.to_string())?;
    let headings = text.lines().filter(|line| line.starts_with('#'));
    let anchors: BTreeSet<_> = headings.map(|line| anchor(line.trim_start_matches('#'))).collect();
    anchors.contains(heading).then_some(()).ok_or_else(|| format!("headings are {anchors:?}"))
}

/// The anchor that a heading gets: in lower case, hyphens for spaces, without punctuation.
fn anchor(heading: &str) -> String {
    let lower = heading.trim().to_lowercase().replace(' ', "-");
    lower.chars().filter(|c| c.is_alphanumeric() || "-_".contains(*c)).collect()
}
