//! How much of the disk a directory takes, and a count of it that processes share.

use std::{
    fs, io,
    os::unix::fs::{FileExt as _, MetadataExt as _},
    path::{Path, PathBuf},
};

use parking_lot::Mutex;
use rustix::{
    fs::{FlockOperation, flock},
    io::retry_on_intr,
};

/// A block of `st_blocks`, in bytes.
pub(super) const STAT_BLOCK_LEN: u64 = 512;

/// The bytes of disk that the files below `dir` take. What disappears meanwhile does not count; a sparse file counts as
/// far as it is filled, also what is in memory only.
pub fn measure(dir: &Path) -> io::Result<u64> {
    let mut total = 0;
    let mut todo: Vec<PathBuf> = vec![dir.to_owned()];
    while let Some(dir) = todo.pop() {
        let Some(entries) = unless_gone(fs::read_dir(&dir))? else { continue };
        for entry in entries {
            let entry = entry?;
            let Some(metadata) = unless_gone(entry.metadata())? else { continue };
            match metadata.is_dir() {
                true => todo.push(entry.path()),
                false => total += metadata.blocks() * STAT_BLOCK_LEN,
            }
        }
    }
    Ok(total)
}

fn unless_gone<T>(result: io::Result<T>) -> io::Result<Option<T>> {
    match result {
        Ok(value) => Ok(Some(value)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

/// How much a cache in `dir` may take unless its user says: a tenth of the disk, but no less than 1 GiB.
pub fn default_size_max(dir: &Path) -> io::Result<u64> {
    const SIZE_MAX_MIN: u64 = 1 << 30;
    let disk = rustix::fs::statvfs(dir)?;
    Ok((disk.f_blocks.saturating_mul(disk.f_frsize) / 10).max(SIZE_MAX_MIN))
}

/// The bytes that `len` take on a disk, as far as that can be told: file systems allocate blocks of 4 KiB.
pub fn on_disk(len: u64) -> u64 {
    len.next_multiple_of(4096)
}

/// A count of bytes in a file (8 bytes, little endian) that any number of processes add to and take from, each under
/// a lock on the file. What a process that is killed has added stays added until somebody measures again.
#[derive(Debug)]
pub struct SharedCount {
    /// The lock on the file is that of the open file: threads need one of their own.
    file: Mutex<fs::File>,
}

impl SharedCount {
    /// Opens the count in the file at `path`, which is made if it is not there. Says, too, whether it counts already.
    pub fn open(path: &Path) -> io::Result<(Self, bool)> {
        let file =
            fs::File::options().read(true).write(true).create(true).truncate(false).open(path)?;
        let counts = file.metadata()?.len() == size_of::<i64>() as u64;
        Ok((SharedCount { file: Mutex::new(file) }, counts))
    }

    /// Adds `bytes`, which may be negative, and returns the sum; one below zero is told as 0.
    pub fn add(&self, bytes: i64) -> io::Result<u64> {
        let file = self.file.lock();
        retry_on_intr(|| flock(&*file, FlockOperation::LockExclusive))?;
        let added = add(&file, bytes);
        retry_on_intr(|| flock(&*file, FlockOperation::Unlock))?;
        Ok(u64::try_from(added?).unwrap_or(0))
    }

    /// The sum.
    pub fn get(&self) -> io::Result<u64> {
        self.add(0)
    }
}

fn add(file: &fs::File, bytes: i64) -> io::Result<i64> {
    let mut count = [0; size_of::<i64>()];
    match file.read_exact_at(&mut count, 0) {
        Ok(()) => {}
        // It is new.
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => {}
        Err(error) => return Err(error),
    }
    let before = i64::from_le_bytes(count);
    let sum = before.saturating_add(bytes);
    if sum != before {
        file.write_all_at(&sum.to_le_bytes(), 0)?;
    }
    Ok(sum)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn those_who_share_a_count_lose_nothing() {
        let dir = tempfile::tempdir().expect("a folder");
        let path = dir.path().join("usage");
        assert!(!SharedCount::open(&path).expect("it opens").1, "it is new");
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    let (count, _) = SharedCount::open(&path).expect("it opens");
                    for bytes in 0..1000 {
                        count.add(bytes).expect("it works");
                        count.add(-bytes / 2).expect("it works");
                    }
                });
            }
        });
        let (count, counts) = SharedCount::open(&path).expect("it opens");
        let each: i64 = (0..1000).map(|bytes| bytes - bytes / 2).sum();
        assert_eq!((count.get().expect("it works"), counts), (4 * each as u64, true));
        assert_eq!(count.add(-5 * each).expect("it works"), 0);
        assert_eq!(count.add(2 * each).expect("it works"), each as u64, "it went below zero");
    }

    #[test]
    fn what_is_filled_counts_wherever_it_lies() {
        let dir = tempfile::tempdir().expect("a folder");
        fs::create_dir_all(dir.path().join("a/b")).expect("new");
        fs::write(dir.path().join("a/b/file"), vec![1; 100_000]).expect("written");
        let sparse = fs::File::create(dir.path().join("sparse")).expect("new");
        sparse.write_all_at(&[1; 4096], 1 << 30).expect("written");
        let measured = measure(dir.path()).expect("it works");
        assert!((104_096..200_000).contains(&measured), "{measured}");
    }

    #[test]
    fn a_cache_may_have_a_gibibyte_at_least() {
        let dir = tempfile::tempdir().expect("a folder");
        assert!(default_size_max(dir.path()).expect("it works") >= 1 << 30);
    }
}
