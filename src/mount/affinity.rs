//! Answering a reader on the processor where it waits.
//!
//! A reader that asks for one thing after another waits for each answer. If the thread that answers runs on another
//! processor, which was idle, both have to be woken there, and that takes several times longer than the answer itself;
//! on the reader's own processor it takes two switches. The scheduler prefers the idle processor. So a thread that is
//! asked by one and the same reader for a while moves to where that reader runs, and stays until somebody else asks.
//! Where there is something to do for both at once, as with large reads, it goes where the scheduler wants it.

use std::{
    fs::File,
    os::unix::fs::FileExt as _,
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering::Relaxed},
    },
};

use rustix::thread::{CpuSet, sched_getaffinity, sched_setaffinity};

/// After every so many requests of one reader it is looked where it runs, which takes some microseconds.
const LOOK_EVERY: u32 = 16;

/// No processor, or no thread.
const NONE: u32 = u32::MAX;

/// Whom the threads of a session follow.
#[derive(Debug)]
pub(super) struct Followed {
    /// The thread that asked last.
    reader: AtomicU32,
    /// How often it asked without anybody else asking in between.
    requests: AtomicU32,
    /// Where it runs.
    processor: AtomicU32,
}

/// Where one thread of a session runs.
#[derive(Debug)]
pub(super) struct Affinity {
    followed: Arc<Followed>,
    /// Where it may run; `None` if that cannot be found out, or there is no choice.
    everywhere: Option<CpuSet>,
    /// The processor to which it is bound.
    bound: u32,
    /// What tells where a reader runs.
    stat: Option<(u32, File)>,
}

impl Followed {
    /// Nobody.
    pub(super) fn new() -> Arc<Self> {
        let none = || AtomicU32::new(NONE);
        Arc::new(Followed { reader: none(), requests: AtomicU32::new(0), processor: none() })
    }
}

impl Affinity {
    /// For a thread of the session, which has to call [`Affinity::begin`] first.
    pub(super) fn new(followed: Arc<Followed>) -> Self {
        Affinity { followed, everywhere: None, bound: NONE, stat: None }
    }

    /// The calling thread may run wherever it may now.
    pub(super) fn begin(&mut self) {
        self.everywhere = sched_getaffinity(None).ok().filter(|set| set.count() > 1);
    }

    /// The thread `reader` asked for something short and waited for it. 0 stands for nobody.
    pub(super) fn asked_by(&mut self, reader: u32) {
        if reader == 0 || self.everywhere.is_none() {
            return;
        }
        let followed = &self.followed;
        let is_new = followed.reader.swap(reader, Relaxed) != reader;
        let requests = match is_new {
            true => followed.requests.swap(0, Relaxed),
            false => followed.requests.fetch_add(1, Relaxed) + 1,
        };
        // One that comes after another who asked for a while will do so, too: programs often follow each other.
        if (is_new && requests >= LOOK_EVERY) || (!is_new && requests.is_multiple_of(LOOK_EVERY)) {
            let processor = self.processor_of(reader).unwrap_or(NONE);
            self.followed.processor.store(processor, Relaxed);
        } else if is_new {
            followed.processor.store(NONE, Relaxed);
        }
        self.follow();
    }

    /// Somebody asked for something that takes a while, or that nobody waits for alone.
    pub(super) fn asked_for_much(&mut self) {
        self.followed.reader.store(NONE, Relaxed);
        self.followed.processor.store(NONE, Relaxed);
        self.follow();
    }

    fn follow(&mut self) {
        let processor = self.followed.processor.load(Relaxed);
        if processor == self.bound {
            return;
        }
        let Some(everywhere) = &self.everywhere else { return };
        let mut set = CpuSet::new();
        // Where we may not run, the reader is left alone.
        if (processor as usize) < CpuSet::MAX_CPU && everywhere.is_set(processor as usize) {
            set.set(processor as usize);
        } else {
            set = *everywhere;
        }
        let _ = sched_setaffinity(None, &set);
        self.bound = processor;
    }

    /// The processor on which the thread ran last, from `proc_pid_stat(5)`.
    fn processor_of(&mut self, thread: u32) -> Option<u32> {
        /// Behind the name, which is in parentheses and may hold anything.
        const FIELDS_BEFORE: usize = 36;
        let stat = match self.stat.take().filter(|(of, _)| *of == thread) {
            Some((_, stat)) => stat,
            None => File::open(format!("/proc/{thread}/stat")).ok()?,
        };
        let mut text = [0; 1024];
        let len = stat.read_at(&mut text, 0).ok()?;
        self.stat = Some((thread, stat));
        let text = String::from_utf8_lossy(&text[..len]);
        text.rsplit_once(')')?.1.split_ascii_whitespace().nth(FIELDS_BEFORE)?.parse().ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_reader_is_followed_and_many_are_not() {
        let me = rustix::thread::gettid().as_raw_nonzero().get() as u32;
        let mut affinity = Affinity::new(Followed::new());
        affinity.begin();
        let Some(everywhere) = affinity.everywhere else { return }; // One processor: no choice.
        let runs_on = || sched_getaffinity(None).expect("it tells");
        (0..=LOOK_EVERY).for_each(|_| affinity.asked_by(me));
        assert_eq!(runs_on().count(), 1);
        (0..=LOOK_EVERY).for_each(|_| affinity.asked_by(u32::MAX >> 1));
        assert_eq!(runs_on(), everywhere, "nobody knows where that one runs");
        affinity.asked_by(me);
        assert_eq!(runs_on().count(), 1, "the one before had asked for a while");
        affinity.asked_by(1);
        affinity.asked_by(me);
        assert_eq!(runs_on(), everywhere, "they take turns");
        for _ in 0..100 {
            affinity.asked_by(me);
            affinity.asked_by(1);
        }
        assert_eq!(runs_on(), everywhere);
        for _ in 0..100 {
            affinity.asked_by(me);
            affinity.asked_by(0);
        }
        assert_eq!(runs_on().count(), 1);
        affinity.asked_for_much();
        assert_eq!(runs_on(), everywhere);
    }
}
