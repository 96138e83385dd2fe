//! What a store holds, told from a part of it.

use rustix::fs::Dir;

use super::{BlobFiles, Packs};
use crate::{castore::Digest, service::Result};

/// With fewer blobs than this in the sample, all are looked at.
const COUNT_MIN: u64 = 64;

/// How many of the 256 values that a digest can begin with make the sample.
const SHARDS: u16 = 4;

/// How many blobs there are among some, and how long they are together. Digests are spread evenly, so those that begin
/// with certain bytes stand for all.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Sample {
    count: u64,
    len: u64,
}

impl Sample {
    /// What cannot be read is left out: nothing but speed depends on it.
    pub(super) fn take(blobs: &BlobFiles, packs: &Packs) -> Self {
        let some = Self::of_shards(blobs, packs, SHARDS);
        match some.count < COUNT_MIN {
            true => Self::of_shards(blobs, packs, 256),
            false => some,
        }
    }

    fn of_shards(blobs: &BlobFiles, packs: &Packs, shards: u16) -> Self {
        let mut sample = Sample::default();
        if let Ok((count, len)) = packs.count(shards) {
            sample.add(count, len);
        }
        for shard in 0..shards {
            let _ = blobs.lens(shard as u8, |len| sample.add(1, len));
        }
        sample
    }

    fn add(&mut self, count: u64, len: u64) {
        self.count += count;
        self.len += len;
    }

    /// In bytes; `None` of none.
    pub fn mean_len(&self) -> Option<u64> {
        self.len.checked_div(self.count)
    }
}

impl BlobFiles {
    /// Tells the length of every blob in `blobs/` whose digest begins with `shard`.
    fn lens(&self, shard: u8, mut tell: impl FnMut(u64)) -> rustix::io::Result<()> {
        let flags = super::blob_files::READ_FLAGS.union(rustix::fs::OFlags::DIRECTORY);
        let name = format!("{shard:02x}");
        let folder = rustix::fs::openat(&self.blobs, name, flags, rustix::fs::Mode::empty())?;
        for entry in Dir::read_from(&folder)? {
            let entry = entry?;
            let is_blob =
                entry.file_name().to_str().is_ok_and(|name| name.parse::<Digest>().is_ok());
            if is_blob {
                let flags = rustix::fs::AtFlags::SYMLINK_NOFOLLOW;
                let stat = rustix::fs::statat(&folder, entry.file_name(), flags)?;
                tell(stat.st_size as u64);
            }
        }
        Ok(())
    }
}

impl Packs {
    /// How many packed blobs begin with one of the first `shards` bytes, and how long they are together.
    fn count(&self, shards: u16) -> Result<(u64, u64)> {
        let end = match u8::try_from(shards) {
            Ok(shard) => vec![shard],
            // Above all digests.
            Err(_) => vec![u8::MAX; 33],
        };
        self.database.read(|connection| {
            let query = "SELECT count(*), coalesce(sum(len), 0) FROM packed_blobs WHERE digest < ?";
            connection.query_row(query, [end], |row| {
                let (count, len): (i64, i64) = (row.get(0)?, row.get(1)?);
                Ok((count as u64, len as u64))
            })
        })
    }
}

#[cfg(test)]
mod tests {
    use super::super::LocalStore;
    use super::*;

    #[test]
    fn few_blobs_are_all_counted_and_many_by_a_part() {
        let dir = tempfile::tempdir().expect("a folder");
        let store = LocalStore::open(dir.path()).expect("new");
        assert_eq!(store.sample().mean_len(), None);
        let put = |range: std::ops::Range<u32>, len: usize| {
            let contents: Vec<Vec<u8>> = range
                .map(|number| {
                    let mut contents = vec![0; len];
                    contents[..4].copy_from_slice(&number.to_le_bytes());
                    contents
                })
                .collect();
            let blobs = contents.iter().map(|contents| (Digest::of(contents), &contents[..]));
            store.packs().put_all(blobs).expect("room");
            store.packs().sync().expect("room");
        };
        put(0..10, 100);
        let long = vec![1; 1_000_000];
        store.blobs().put(&Digest::of(&long), &long).expect("room");
        store.blobs().sync().expect("room");
        assert_eq!(store.sample(), Sample { count: 11, len: 1_001_000 });
        put(10..20_000, 100);
        let sample = store.sample();
        // 312 of 20,000, give or take five standard deviations.
        assert!((224..=400).contains(&sample.count), "{sample:?}");
    }
}
