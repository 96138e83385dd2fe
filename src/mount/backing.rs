//! Passthrough: files that the kernel reads by itself from the store's own files.
//!
//! The kernel is told of a file once, gets a *backing id* for it, and is given that id whenever the inode is opened.
//! Its rules, which this module keeps:
//!
//! * While an inode is open, it is open in one way: with one backing id, or through the page cache of the mount. So
//!   the first open decides, and all others follow until the last is closed.
//! * An id outlives the opens that use it, and pins the file. So ids of closed files are kept for the next open, in
//!   bounded number and for a bounded time.
//! * It takes privilege, and a file that lies on a file system that is not stacked on another: whatever is refused is
//!   read through the page cache instead.

use std::{
    collections::HashMap,
    fs::File,
    io,
    num::NonZeroUsize,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use lru::LruCache;
use parking_lot::Mutex;
use tracing::warn;

use super::fuse::Kernel;
use crate::{
    observe::event,
    vfs::{Ino, LocalBlob, LocalPlace},
};

/// Files of up to this many bytes are not passed through: they lie in packs, and reading them once fills the cache.
pub const PASSTHROUGH_ABOVE_LEN: u64 = 64 << 10;

/// How many ids of files that are not open are kept.
const IDLE_MAX: usize = 1024;

/// For how long they are kept.
const IDLE_TIME_MAX: Duration = Duration::from_secs(30);

/// Into how many parts the table is cut, each with a lock of its own.
const SHARDS: usize = 16;

/// How an inode is open.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Opening {
    /// The kernel reads the file with this backing id.
    Passthrough(u32),
    /// The kernel asks us, and keeps what it was given.
    Cached,
}

/// The inodes that are open, and the ids that wait for the next open.
pub struct Backings {
    kernel: Arc<dyn Kernel>,
    shards: [Mutex<Shard>; SHARDS],
    refused: AtomicBool,
}

struct Shard {
    open: HashMap<Ino, (Opening, u64)>,
    idle: LruCache<Ino, (u32, Instant)>,
}

impl Backings {
    /// Nothing is open.
    pub fn new(kernel: Arc<dyn Kernel>) -> Self {
        let bound = NonZeroUsize::new(IDLE_MAX / SHARDS).unwrap_or(NonZeroUsize::MIN);
        let shard = || Mutex::new(Shard { open: HashMap::new(), idle: LruCache::new(bound) });
        let shards = std::array::from_fn(|_| shard());
        Backings { kernel, shards, refused: AtomicBool::new(false) }
    }

    fn shard(&self, ino: Ino) -> &Mutex<Shard> {
        &self.shards[(ino.raw() >> 8) as usize % SHARDS]
    }

    /// Opens an inode once more. `local` is asked for its file if that is needed.
    pub fn open<E>(
        &self,
        ino: Ino,
        local: impl FnOnce() -> Result<Option<LocalBlob>, E>,
    ) -> Result<Opening, E> {
        let mut shard = self.shard(ino).lock();
        if let Some((opening, count)) = shard.open.get_mut(&ino) {
            *count += 1;
            return Ok(*opening);
        }
        let opening = match shard.idle.pop(&ino) {
            Some((id, _)) => Opening::Passthrough(id),
            None => match local()? {
                Some(LocalBlob { file, place: LocalPlace::Whole, .. }) => self.register(&file),
                _ => Opening::Cached,
            },
        };
        shard.open.insert(ino, (opening, 1));
        Ok(opening)
    }

    fn register(&self, file: &File) -> Opening {
        match self.kernel.open_backing(file) {
            Ok(id) => Opening::Passthrough(id),
            Err(error) => {
                if !self.refused.swap(true, Ordering::Relaxed) {
                    let why = match error.raw_os_error() {
                        Some(libc::ELOOP) => {
                            "the store lies on an overlay or another stacked file system"
                        }
                        _ => "the kernel refuses it",
                    };
                    warn!(
                        event = event::NO_PASSTHROUGH,
                        %error,
                        "some files are not passed through: {why}"
                    );
                }
                Opening::Cached
            }
        }
    }

    /// One of the times that the inode was opened is over.
    pub fn release(&self, ino: Ino) {
        let mut shard = self.shard(ino).lock();
        let Some((opening, count)) = shard.open.get_mut(&ino) else { return };
        *count -= 1;
        if *count > 0 {
            return;
        }
        let opening = *opening;
        shard.open.remove(&ino);
        if let Opening::Passthrough(id) = opening
            && let Some((_, (oldest, _))) = shard.idle.push(ino, (id, Instant::now()))
        {
            self.kernel.close_backing(oldest);
        }
    }

    /// Gives up the ids that nobody has used for a while.
    pub fn tidy(&self) {
        self.close_idle_for(IDLE_TIME_MAX);
    }

    fn close_idle_for(&self, time: Duration) {
        for shard in &self.shards {
            let mut shard = shard.lock();
            while let Some((_, (id, since))) = shard.idle.peek_lru()
                && since.elapsed() >= time
            {
                self.kernel.close_backing(*id);
                shard.idle.pop_lru();
            }
        }
    }

    #[cfg(test)]
    /// How many ids the kernel holds for us: for open inodes and for idle ones.
    fn len(&self) -> (usize, usize) {
        let mut all = (0, 0);
        for shard in &self.shards {
            let shard = shard.lock();
            let passed =
                |(opening, _): &&(Opening, u64)| matches!(opening, Opening::Passthrough(_));
            all.0 += shard.open.values().filter(passed).count();
            all.1 += shard.idle.len();
        }
        all
    }
}

/// Whether the kernel lets this process pass files through.
pub fn probe(kernel: &dyn Kernel) -> io::Result<()> {
    // Any file will do that is on a real file system.
    let id = kernel.open_backing(&File::open(std::env::current_exe()?)?)?;
    kernel.close_backing(id);
    Ok(())
}

impl Drop for Backings {
    fn drop(&mut self) {
        self.close_idle_for(Duration::ZERO);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Hands out ids and notes which are held.
    #[derive(Debug, Default)]
    struct Ids(Mutex<(u32, Vec<u32>)>);

    impl Kernel for Ids {
        fn hears(&self) -> bool {
            true
        }

        fn forget_listing(&self, _: Ino) {}

        fn open_backing(&self, _: &File) -> io::Result<u32> {
            let mut ids = self.0.lock();
            ids.0 += 1;
            let id = ids.0;
            ids.1.push(id);
            Ok(id)
        }

        fn close_backing(&self, id: u32) {
            let held = &mut self.0.lock().1;
            let at = held.iter().position(|held| *held == id).expect("it is closed once");
            held.swap_remove(at);
        }
    }

    fn fixture() -> (Arc<Ids>, Backings) {
        let ids = Arc::new(Ids::default());
        (ids.clone(), Backings::new(ids))
    }

    fn whole() -> Result<Option<LocalBlob>, ()> {
        let file = Arc::new(File::open("/dev/null").expect("it is there"));
        Ok(Some(LocalBlob { file, place: LocalPlace::Whole, size: 0 }))
    }

    #[test]
    fn all_opens_of_an_inode_share_one_id_and_the_next_one_finds_it() {
        let (ids, backings) = fixture();
        let ino = Ino::from_raw(77);
        let first = backings.open(ino, whole);
        assert_eq!(first, Ok(Opening::Passthrough(1)));
        assert_eq!(backings.open(ino, || -> Result<_, ()> { panic!("it is known") }), first);
        backings.release(ino);
        backings.release(ino);
        assert_eq!(backings.len(), (0, 1));
        assert_eq!(backings.open(ino, || -> Result<_, ()> { panic!("it is known") }), first);
        backings.release(ino);
        drop(backings);
        assert_eq!(ids.0.lock().1, [0; 0]);
    }

    #[test]
    fn an_inode_is_never_open_in_two_ways() {
        let (_, backings) = fixture();
        let ino = Ino::from_raw(77);
        assert_eq!(backings.open(ino, || Ok::<_, ()>(None)), Ok(Opening::Cached));
        // It has arrived since; but somebody still has it open.
        assert_eq!(backings.open(ino, whole), Ok(Opening::Cached));
        backings.release(ino);
        assert_eq!(backings.open(ino, whole), Ok(Opening::Cached));
        backings.release(ino);
        backings.release(ino);
        assert_eq!(backings.open(ino, whole), Ok(Opening::Passthrough(1)));
    }

    #[test]
    fn idle_ids_are_bounded_and_given_up() {
        let (ids, backings) = fixture();
        for number in 0..5_000 {
            let ino = Ino::from_raw(number << 4);
            backings.open(ino, whole).expect("it opens");
            backings.release(ino);
            backings.release(ino);
        }
        assert!(ids.0.lock().1.len() <= IDLE_MAX);
        backings.tidy();
        assert!(backings.len().1 > 0, "they are young");
        backings.close_idle_for(Duration::ZERO);
        assert_eq!(backings.len(), (0, 0));
        assert_eq!(ids.0.lock().1, [0; 0]);
    }

    #[test]
    fn a_failure_leaves_nothing_open() {
        let (_, backings) = fixture();
        let ino = Ino::from_raw(77);
        assert_eq!(backings.open(ino, || Err("broken")), Err("broken"));
        assert_eq!(backings.open(ino, || Ok::<_, ()>(None)), Ok(Opening::Cached));
    }
}
