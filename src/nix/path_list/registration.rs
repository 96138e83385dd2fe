//! Lists of store paths as Nix registers them: for each path, lines with the path, the SHA-256 and the size of its
//! archive, its deriver or nothing, how many references it has, and these.

use super::{EntryProblem, ListedPath, PathListError, derivation, sha256};
use crate::nix::{HashAlgorithm, NarHash, NarInfo, NixHash, StorePath};

type Problem<T> = Result<T, EntryProblem>;

/// Lines, and where among them we are.
struct Lines<'a> {
    lines: std::slice::Split<'a, u8, fn(&u8) -> bool>,
    /// The number of the line that came last, from 1.
    number: usize,
}

/// Reads a registration.
pub(super) fn read(text: &[u8]) -> Result<Vec<ListedPath>, PathListError> {
    let lines = text.trim_ascii().split((|byte| *byte == b'\n') as fn(&u8) -> bool);
    let mut lines = Lines { lines, number: 0 };
    let mut listed = Vec::new();
    while let Some(path) = lines.lines.next() {
        lines.number += 1;
        let entry = entry(path, &mut lines);
        listed.push(entry.map_err(|problem| PathListError::Line { line: lines.number, problem })?);
    }
    Ok(listed)
}

/// Writes one store path, its references sorted, each once.
pub fn to_registration(path: &ListedPath) -> String {
    let info = &path.info;
    let mut references: Vec<_> = info.references.iter().map(StorePath::absolute).collect();
    references.sort_unstable();
    references.dedup();
    let hash: String = info.nar.sha256.iter().map(|byte| format!("{byte:02x}")).collect();
    let deriver = info.deriver.as_ref().map(StorePath::absolute).unwrap_or_default();
    let path = path.store_path.absolute();
    let mut text = format!("{path}\n{hash}\n{}\n{deriver}\n{}\n", info.nar.size, references.len());
    for reference in references {
        text.push_str(&reference);
        text.push('\n');
    }
    text
}

fn entry(path: &[u8], lines: &mut Lines<'_>) -> Problem<ListedPath> {
    let store_path = absolute("path", path)?;
    let sha256 = sha256(match lines.next("the hash")? {
        "" => return Err(EntryProblem::NoHash),
        text => hash(text).map_err(|source| EntryProblem::Hash { field: "the hash", source })?,
    })?;
    let size = lines.number("the size", 1)?;
    let deriver = match lines.next("the deriver")? {
        "" => None,
        deriver => Some(derivation("the deriver", deriver)?),
    };
    let count = lines.number("the number of references", 0)?;
    // Not allocated before they are there.
    let mut references = Vec::new();
    for _ in 0..count {
        references.push(absolute("a reference", lines.next("a reference")?.as_bytes())?);
    }
    let nar = NarHash { size, sha256 };
    let info = NarInfo { nar, references, signatures: Vec::new(), deriver, ca: None };
    Ok(ListedPath { store_path, info })
}

fn absolute(field: &'static str, path: &[u8]) -> Problem<StorePath> {
    StorePath::from_absolute(path).map_err(|source| EntryProblem::StorePath { field, source })
}

/// In hexadecimal, as Nix writes it, or in any form that tells its algorithm.
fn hash(text: &str) -> Result<NixHash, crate::nix::HashError> {
    match text.contains([':', '-']) {
        true => text.parse(),
        false => NixHash::from_unprefixed(HashAlgorithm::Sha256, text),
    }
}

impl<'a> Lines<'a> {
    fn next(&mut self, what: &'static str) -> Problem<&'a str> {
        let line = self.lines.next().ok_or(EntryProblem::Missing(what))?;
        self.number += 1;
        str::from_utf8(line).map_err(|_| EntryProblem::Kind(what, "text"))
    }

    fn number(&mut self, what: &'static str, min: u64) -> Problem<u64> {
        let line = self.next(what)?;
        let digits = line.bytes().all(|byte| byte.is_ascii_digit());
        let number = line.parse().ok().filter(|number| digits && *number >= min);
        number.ok_or(EntryProblem::Number(what, min))
    }
}
