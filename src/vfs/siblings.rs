//! Reading ahead from file to file.
//!
//! Whoever reads a tree from one end to the other reads its files in the order in which they are listed, and of a store
//! that is far away waits once for each. So what follows in the same directory is fetched while the reader is still busy,
//! more the longer that goes on, as the kernel does within a file. One file here and there brings nothing else along.

use std::{
    collections::{HashMap, VecDeque},
    sync::Arc,
};

use futures::StreamExt as _;
use parking_lot::Mutex;
use tokio::{runtime::Handle, sync::Semaphore};

use crate::{
    castore::{Digest, Directory, NodeRef},
    observe::tally::ahead,
    service::{Result, blob::BlobService},
};

/// Longer files are not fetched ahead, in bytes: reading them takes long enough to wait for the next.
const LEN_MAX: u64 = 64 << 10;

/// How many files are fetched ahead at most, and how many are on their way at once.
const AHEAD_MAX: u32 = 64;

/// How far apart, in files, the reads of several readers of one directory may come in.
const NEAR: u32 = 16;

/// Of how many files it is remembered where they stand: some 6 MB.
const FILES_MAX: usize = 65_536;

/// What is fetched ahead, and after which reads.
pub(super) struct Siblings {
    blobs: Arc<dyn BlobService>,
    state: Mutex<State>,
    on_the_way: Arc<Semaphore>,
}

#[derive(Default)]
struct State {
    listed: HashMap<Digest, Listed>,
    /// The directories in `listed`, the one listed first in front.
    order: VecDeque<Digest>,
    /// In which directory a file stands, and as the how manieth of its short files.
    places: HashMap<Digest, (Digest, u32)>,
    /// How many reads in a row were of files that follow each other.
    run: u32,
}

/// The short files of a directory.
struct Listed {
    files: Vec<(Digest, u64)>,
    /// The furthest that was read since reading began here.
    last: Option<u32>,
    /// Up to where files were fetched ahead.
    ahead: u32,
}

impl Siblings {
    /// Over a store that keeps what it fetches; `None` for others, where nothing can be fetched ahead.
    pub(super) fn new(blobs: &Arc<dyn BlobService>) -> Option<Self> {
        let on_the_way = Arc::new(Semaphore::new(AHEAD_MAX as usize));
        let state = Mutex::default();
        blobs.keeps_what_is_read().then(|| Siblings { blobs: blobs.clone(), state, on_the_way })
    }

    /// The directory was listed.
    pub(super) fn listed(&self, digest: &Digest, directory: &Directory) {
        let mut state = self.state.lock();
        if state.listed.contains_key(digest) {
            return;
        }
        let short = |node| match node {
            NodeRef::File { digest, size, .. } if (1..=LEN_MAX).contains(&size) => {
                Some((digest, size))
            }
            _ => None,
        };
        let entries = (0..).map_while(|index| directory.get(index));
        let files: Vec<_> = entries.filter_map(|entry| short(entry.node)).collect();
        if files.len() < 2 {
            return;
        }
        for (index, (file, _)) in files.iter().enumerate() {
            state.places.insert(*file, (*digest, index as u32));
        }
        state.listed.insert(*digest, Listed { files, last: None, ahead: 0 });
        state.order.push_back(*digest);
        state.forget_oldest();
    }

    /// A file is read from its beginning.
    pub(super) fn read(self: &Arc<Self>, digest: &Digest) {
        let next = self.state.lock().read(digest);
        if next.is_empty() {
            return;
        }
        // Without a runtime there is nobody to do it.
        let Ok(runtime) = Handle::try_current() else { return };
        let siblings = self.clone();
        runtime.spawn(async move {
            for (digest, size) in next {
                let Ok(permit) = siblings.on_the_way.clone().acquire_owned().await else { return };
                let siblings = siblings.clone();
                tokio::spawn(async move {
                    if let Err(error) = ahead(siblings.fetch(&digest, size)).await {
                        // Whoever reads it will hear of it.
                        tracing::debug!(%digest, %error, "not fetched ahead");
                        siblings.state.lock().run = 0;
                    }
                    drop(permit);
                });
            }
        });
    }

    async fn fetch(&self, digest: &Digest, size: u64) -> Result<()> {
        if self.blobs.open_local(digest)?.is_some() {
            return Ok(());
        }
        let Some(mut pieces) = self.blobs.read_sized(digest, size, 0..size).await? else {
            return Ok(());
        };
        while let Some(piece) = pieces.next().await {
            piece?;
        }
        Ok(())
    }
}

impl State {
    /// Takes note of a read. Returns what is worth fetching ahead.
    fn read(&mut self, digest: &Digest) -> Vec<(Digest, u64)> {
        let Some((directory, index)) = self.places.get(digest).copied() else { return Vec::new() };
        let Some(listed) = self.listed.get_mut(&directory) else { return Vec::new() };
        let next = listed.last.map_or(0, |last| last + 1);
        let is_near = index + NEAR >= next && index < next + NEAR;
        if !is_near {
            // Reading goes on from here.
            (listed.last, listed.ahead) = (Some(index), 0);
            self.run = 0;
        } else if index >= next && (listed.last.is_some() || self.run > 0) {
            // A directory that is begun continues a run; it does not make one.
            self.run = (self.run + 1).min(AHEAD_MAX.ilog2());
        }
        listed.last = listed.last.max(Some(index));
        let window = if self.run == 0 { 0 } else { 1 << self.run };
        let begin = listed.ahead.max(index + 1);
        let end = (index + 1 + window).min(listed.files.len() as u32);
        // In portions: not one more after every file.
        if end <= begin || (begin - index > window / 2 && end < listed.files.len() as u32) {
            return Vec::new();
        }
        listed.ahead = end;
        listed.files[begin as usize..end as usize].to_vec()
    }

    fn forget_oldest(&mut self) {
        while self.places.len() > FILES_MAX
            && let Some(oldest) = self.order.pop_front()
        {
            for (file, _) in self.listed.remove(&oldest).into_iter().flat_map(|listed| listed.files)
            {
                if self.places.get(&file).is_some_and(|(directory, _)| *directory == oldest) {
                    self.places.remove(&file);
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn state(directories: &[u32]) -> State {
        let mut state = State::default();
        for (number, count) in directories.iter().enumerate() {
            let directory = Digest::of(&[number as u8]);
            let files: Vec<_> = (0..*count).map(|index| (file(number, index), 10)).collect();
            for (index, (file, _)) in files.iter().enumerate() {
                state.places.insert(*file, (directory, index as u32));
            }
            state.listed.insert(directory, Listed { files, last: None, ahead: 0 });
            state.order.push_back(directory);
        }
        state
    }

    fn file(directory: usize, index: u32) -> Digest {
        Digest::of(format!("{directory} {index}").as_bytes())
    }

    #[test]
    fn reading_in_order_fetches_more_and_more_and_everything_once() {
        let mut state = state(&[1000]);
        let mut ahead = Vec::new();
        let mut most = 0;
        for index in 0..1000 {
            let more = state.read(&file(0, index));
            most = most.max(more.len());
            ahead.extend(more);
            assert!(index < 2 || ahead.len() as u32 + 2 > index, "{index}: {}", ahead.len());
        }
        let expected: Vec<_> = (2..1000).map(|index| (file(0, index), 10)).collect();
        assert_eq!(ahead, expected);
        assert!((16..=64).contains(&most), "{most}");
    }

    #[test]
    fn the_next_directory_goes_on_where_the_last_ended() {
        let mut state = state(&[100, 100]);
        (0..100).for_each(|index| drop(state.read(&file(0, index))));
        assert_eq!(state.read(&file(1, 0)).len(), 64);
    }

    #[test]
    fn one_here_and_there_fetches_nothing() {
        let mut state = state(&[1000, 1000, 3]);
        for index in [500, 100, 900, 300, 700] {
            for directory in 0..2 {
                assert_eq!(state.read(&file(directory, index)), []);
            }
        }
        assert_eq!(state.read(&file(2, 1)), []);
        assert_eq!(state.read(&Digest::of(b"not listed")), []);
    }

    #[test]
    fn several_readers_of_one_directory_are_a_run() {
        let mut state = state(&[200]);
        let mut ahead = Vec::new();
        for begin in (0..200).step_by(8) {
            for index in [3, 0, 1, 7, 2, 5, 4, 6] {
                ahead.extend(state.read(&file(0, begin + index)));
            }
        }
        assert!(ahead.len() > 180, "{}", ahead.len());
    }

    #[test]
    fn what_is_remembered_is_bounded() {
        let directories: Vec<u32> = vec![10_000; 9];
        let mut state = state(&directories);
        state.forget_oldest();
        assert_eq!((state.places.len(), state.listed.len()), (60_000, 6));
    }
}
