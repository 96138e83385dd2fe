//! What tells a store from a cache: a cache may be emptied at any time, a store never.
//!
//! A cache holds a file `CACHEDIR.TAG` (<https://bford.info/cachedir/>), so that programs that make backups leave it
//! out, and so that a mistaken `--cache-dir` cannot make a store forget what was imported.

use std::{
    fs,
    io::{self, Read as _},
    path::Path,
};

use rustix::{
    fs::{FlockOperation, flock},
    io::retry_on_intr,
};

use super::OpenError;

/// What a directory is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Keeps everything for ever.
    Store,
    /// Keeps what can be fetched again, for as long as there is room.
    Cache,
}

const TAG_NAME: &str = "CACHEDIR.TAG";

/// What it is called before it is whole.
const TAG_NEW: &str = "CACHEDIR.TAG.new";

const TAG: &str = "\
Signature: 8a477f597d28d172789f06886806bc55
# A cache of lazystore: what it fetched from remote stores. It may be deleted while no lazystore runs.
";

impl Kind {
    /// Checks that `dir` is of this kind, or may become so since there is nothing in it yet. Then a cache is tagged: it
    /// is known as one before anything else is in it.
    pub(super) fn claim(self, dir: &Path) -> Result<(), OpenError> {
        let failed = |source| OpenError::from_io(dir, source);
        // One process at a time looks, and may begin a cache. The lock goes with the descriptor.
        let folder = fs::File::open(dir).map_err(failed)?;
        retry_on_intr(|| flock(&folder, FlockOperation::LockExclusive))
            .map_err(|errno| failed(errno.into()))?;
        let refused = |what, next| Err(OpenError::OtherKind { dir: dir.to_owned(), what, next });
        match (self, tag(dir).map_err(failed)?) {
            (Kind::Store, None) | (Kind::Cache, Some(Tag::Ours)) => Ok(()),
            (Kind::Store, Some(Tag::Ours)) => refused(
                "a cache, which forgets what is in it",
                "name another directory with --store-dir, or use this one as --cache-dir",
            ),
            (_, Some(Tag::Foreign)) => {
                refused("the cache of another program", "name a directory of its own")
            }
            (Kind::Cache, None) if dir.join("version").exists() => refused(
                "a store, of which nothing may be forgotten",
                "name another directory with --cache-dir, or use this one as --store-dir",
            ),
            (Kind::Cache, None) if !is_free(dir).map_err(failed)? => {
                refused("not empty, and no cache", "name a new or empty directory with --cache-dir")
            }
            (Kind::Cache, None) => {
                let new = dir.join(TAG_NEW);
                fs::write(&new, TAG).map_err(failed)?;
                fs::rename(new, dir.join(TAG_NAME)).map_err(failed)
            }
        }
    }
}

/// Whether there is nothing in the directory but what a new file system has, or a process that died while it tagged.
fn is_free(dir: &Path) -> io::Result<bool> {
    for entry in fs::read_dir(dir)? {
        let name = entry?.file_name();
        if name != TAG_NEW && name != "lost+found" {
            return Ok(false);
        }
    }
    Ok(true)
}

/// Whose cache a tag says that a directory is.
enum Tag {
    Ours,
    Foreign,
}

fn tag(dir: &Path) -> io::Result<Option<Tag>> {
    let mut begin = Vec::new();
    match fs::File::open(dir.join(TAG_NAME)) {
        Ok(file) => file.take(TAG.len() as u64).read_to_end(&mut begin)?,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error),
    };
    // Its words may change between versions.
    let text = String::from_utf8_lossy(&begin);
    Ok(Some(match text.contains("lazystore") {
        true => Tag::Ours,
        false => Tag::Foreign,
    }))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn claim(kind: Kind, dir: &Path) -> Result<(), String> {
        kind.claim(dir).map_err(|error| error.to_string())
    }

    #[test]
    fn a_new_directory_becomes_a_cache_and_stays_one() {
        let dir = tempfile::tempdir().expect("a folder");
        fs::create_dir(dir.path().join("lost+found")).expect("new");
        fs::write(dir.path().join(TAG_NEW), "Sig").expect("what a dead process left");
        for _ in 0..2 {
            assert_eq!(claim(Kind::Cache, dir.path()), Ok(()));
        }
        let tag = fs::read_to_string(dir.path().join("CACHEDIR.TAG")).expect("there");
        assert!(tag.starts_with("Signature: 8a477f597d28d172789f06886806bc55\n"), "{tag}");
        let error = claim(Kind::Store, dir.path()).expect_err("refused");
        assert!(error.contains("is a cache") && error.contains("--store-dir"), "{error}");
    }

    #[test]
    fn nothing_else_becomes_a_cache() {
        let dir = tempfile::tempdir().expect("a folder");
        fs::write(dir.path().join("file"), "").expect("new");
        let error = claim(Kind::Cache, dir.path()).expect_err("refused");
        assert!(error.contains("is not empty, and no cache"), "{error}");
        fs::write(dir.path().join("version"), "1\n").expect("new");
        let error = claim(Kind::Cache, dir.path()).expect_err("refused");
        assert!(error.contains("is a store") && error.contains("--cache-dir"), "{error}");
        assert_eq!(claim(Kind::Store, dir.path()), Ok(()));
        fs::write(dir.path().join(TAG_NAME), "Signature: of another program").expect("new");
        for kind in [Kind::Cache, Kind::Store] {
            let error = claim(kind, dir.path()).expect_err("refused");
            assert!(error.contains("the cache of another program"), "{error}");
        }
    }
}
