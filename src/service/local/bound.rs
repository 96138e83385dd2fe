//! The bound on what a cache takes of the disk.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use super::usage::{SharedCount, measure};

/// The files of the database, which SQLite makes longer and shorter as it likes.
const DATABASE_FILES: [&str; 2] = ["meta.sqlite", "meta.sqlite-wal"];

/// Keeps count of what a cache takes, together with all processes that use it. Whoever is about to write asks here
/// first: so what arrives counts before it is there. The database is looked at instead, since nobody knows beforehand
/// what a row takes.
#[derive(Debug)]
pub struct Bound {
    dir: PathBuf,
    /// In bytes.
    size_max: u64,
    /// What everything but the database takes, in bytes.
    count: SharedCount,
}

/// There is no room left in a cache.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("{used} of at most {size_max} bytes are taken, and {wanted} more are wanted")]
pub struct Full {
    /// What is taken, in bytes.
    pub used: u64,
    /// What may be taken, in bytes.
    pub size_max: u64,
    /// What was wanted, in bytes.
    pub wanted: u64,
}

/// Why a reservation failed.
#[derive(Debug, thiserror::Error)]
pub enum ReserveError {
    /// There is no room.
    #[error(transparent)]
    Full(#[from] Full),
    /// What is taken cannot be told.
    #[error("cannot tell how much is taken: {0}")]
    Io(#[from] io::Error),
}

impl Bound {
    /// The bound of the cache in `dir`, in bytes.
    pub(super) fn open(dir: &Path, size_max: u64) -> io::Result<Self> {
        let (count, counts) = SharedCount::open(&dir.join("usage"))?;
        let bound = Bound { dir: dir.to_owned(), size_max, count };
        if !counts {
            bound.measure()?;
        }
        Ok(bound)
    }

    /// The most that the cache may take, in bytes.
    pub fn size_max(&self) -> u64 {
        self.size_max
    }

    /// What is taken or about to be, in bytes.
    pub fn used(&self) -> io::Result<u64> {
        Ok(self.count.get()? + self.database_len()?)
    }

    /// Takes `bytes` for what is to be written. Whoever does not write them in the end gives them back.
    pub(super) fn reserve(&self, bytes: u64) -> Result<(), ReserveError> {
        let used = self.count.add(signed(bytes))? + self.database_len()?;
        if used > self.size_max {
            self.count.add(-signed(bytes))?;
            let used = used.saturating_sub(bytes);
            return Err(Full { used, size_max: self.size_max, wanted: bytes }.into());
        }
        Ok(())
    }

    /// Gives back what was reserved and not written, or written and is gone. If that fails it is counted until the next
    /// measuring.
    pub(super) fn release(&self, bytes: u64) {
        if let Err(error) = self.count.add(-signed(bytes)) {
            tracing::debug!(%error, bytes, "what is free again is not counted as free");
        }
    }

    /// Measures what is there, and corrects the count. What is written meanwhile may count twice, until the next
    /// time.
    pub(super) fn measure(&self) -> io::Result<()> {
        let before = self.count.get()?;
        let measured = measure(&self.dir)?.saturating_sub(self.database_len()?);
        // Written also if it is right, as then it counts.
        self.count.add(signed(measured) - signed(before))?;
        Ok(())
    }

    fn database_len(&self) -> io::Result<u64> {
        let mut len = 0;
        for file in DATABASE_FILES {
            match fs::metadata(self.dir.join(file)) {
                Ok(metadata) => len += metadata.len(),
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(error) => return Err(error),
            }
        }
        Ok(len)
    }
}

fn signed(bytes: u64) -> i64 {
    i64::try_from(bytes).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_reserved_is_taken_until_it_is_given_back() {
        let dir = tempfile::tempdir().expect("a folder");
        fs::write(dir.path().join("meta.sqlite"), [1; 10_000]).expect("written");
        fs::write(dir.path().join("blob"), [1; 8192]).expect("written");
        let bound = Bound::open(dir.path(), 100_000).expect("it opens");
        let used = bound.used().expect("it works");
        assert!((18_192..30_000).contains(&used), "{used}");
        let other = Bound::open(dir.path(), 100_000).expect("it opens");
        other.reserve(60_000).expect("there is room");
        let error = bound.reserve(60_000).expect_err("there is none");
        assert!(matches!(error, ReserveError::Full(full) if full.used == used + 60_000), "{error}");
        other.release(60_000);
        bound.reserve(60_000).expect("there is room");
        // Nothing was written.
        bound.measure().expect("it works");
        assert!(bound.used().expect("it works") <= used + 8192);
    }
}
