//! How long requests take, and what is told of those that take long.
//!
//! Nothing here takes a lock, and without metrics and slow log nothing looks at the clock: then a request costs what it
//! costs without this file. Each thread counts in a place of its own. What is answered at once is [sampled](Sampled);
//! whoever waits is timed exactly.

use std::{
    pin::Pin,
    sync::{
        Arc, Once,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::{Duration, Instant},
};

use bytes::Bytes;

use super::{fuse::Message, wire::op};
use crate::{
    observe::{
        Gauge, Held, Sampled, Scrape, names, register_once, slow, spent::Spent, tally::Source,
        timing::Moment,
    },
    vfs::{Ino, Vfs},
};

/// What a request is for. Those that are refused because nothing can be written are one.
const OPERATIONS: [&str; 16] = [
    "lookup",
    "getattr",
    "readlink",
    "open",
    "read",
    "statfs",
    "release",
    "getxattr",
    "listxattr",
    "init",
    "opendir",
    "readdir",
    "readdirplus",
    "releasedir",
    "forget",
    "other",
];

/// The errors that are told apart.
const ERRORS: [(&str, i32); 14] = [
    ("ENOENT", libc::ENOENT),
    ("EIO", libc::EIO),
    ("ETIMEDOUT", libc::ETIMEDOUT),
    ("EHOSTUNREACH", libc::EHOSTUNREACH),
    ("EINTR", libc::EINTR),
    ("EAGAIN", libc::EAGAIN),
    ("EINVAL", libc::EINVAL),
    ("ESTALE", libc::ESTALE),
    ("EROFS", libc::EROFS),
    ("ENOSYS", libc::ENOSYS),
    ("ENODATA", libc::ENODATA),
    ("EOPNOTSUPP", libc::EOPNOTSUPP),
    ("ERANGE", libc::ERANGE),
    ("other", 0),
];

static TOOK: Sampled<{ OPERATIONS.len() }> = Sampled::new();
static FAILED: [[AtomicU64; ERRORS.len()]; OPERATIONS.len()] =
    [const { [const { AtomicU64::new(0) }; ERRORS.len()] }; OPERATIONS.len()];
static WAITING: Gauge = Gauge::new();

/// Makes the numbers of requests known.
pub(super) fn tell() {
    static TOLD: Once = Once::new();
    register_once(&TOLD, collect);
}

fn collect(scrape: &mut Scrape) {
    scrape.number(&names::FUSE_WAITING, &[], WAITING.get() as f64);
    for (at, operation) in OPERATIONS.into_iter().enumerate() {
        scrape.durations(&names::FUSE_OPERATION, &[operation], &TOOK.of(at));
        for ((error, _), count) in ERRORS.iter().zip(&FAILED[at]) {
            match count.load(Relaxed) {
                // Most errors never happen.
                0 => {}
                count => scrape.count(&names::FUSE_ERRORS, &[operation, error], count),
            }
        }
    }
}

/// The time that a request takes.
#[derive(Debug, Clone, Copy)]
pub struct Timer {
    /// Which of [`OPERATIONS`].
    operation: usize,
    /// `None` where nobody wants to know.
    began: Option<Moment>,
}

/// What a request is about, for the log.
#[derive(Debug, Clone)]
pub(super) struct Subject {
    pub(super) ino: Ino,
    /// The name that is looked for, if one is.
    pub(super) name: Option<Bytes>,
    /// Where in the file is read, and how much, if something is.
    pub(super) range: Option<(u64, usize)>,
}

impl Subject {
    pub(super) fn of(ino: Ino) -> Self {
        Subject { ino, name: None, range: None }
    }

    /// What a trace tells of it.
    pub(super) fn numbers(&self) -> impl Iterator<Item = (&'static str, u64)> {
        let range = self
            .range
            .map(|(offset, len)| [("lazystore.offset", offset), ("lazystore.len", len as u64)]);
        [("lazystore.inode", self.ino.raw())].into_iter().chain(range.into_iter().flatten())
    }
}

impl Timer {
    /// Begins with a request of the kind.
    #[inline]
    pub(super) fn start(opcode: u32) -> Self {
        let operation = match opcode {
            op::LOOKUP => 0,
            op::GETATTR => 1,
            op::READLINK => 2,
            op::OPEN => 3,
            op::READ => 4,
            op::STATFS => 5,
            op::RELEASE => 6,
            op::GETXATTR => 7,
            op::LISTXATTR => 8,
            op::INIT => 9,
            op::OPENDIR => 10,
            op::READDIR => 11,
            op::READDIRPLUS => 12,
            op::RELEASEDIR => 13,
            op::FORGET | op::BATCH_FORGET => 14,
            _ => 15,
        };
        let can_wait = matches!(opcode, op::LOOKUP | op::READ | op::READDIR | op::READDIRPLUS);
        Timer { operation, began: TOOK.begin(operation, can_wait) }
    }

    fn name(self) -> &'static str {
        OPERATIONS[self.operation]
    }

    /// The request about `ino` has this reply.
    #[inline]
    pub(super) fn replied(self, vfs: &Vfs, ino: u64, reply: &[u8]) {
        let errno = errno_of(reply);
        let Some(took) = self.ended(errno) else { return };
        if let Some(held_back) = slow::is_told(took) {
            let subject = Subject::of(Ino::from_raw(ino));
            self.tell(vfs, &subject, (took, Spent::default()), errno, held_back);
        }
    }

    /// The request was answered at once, with this errno; 0 for none. Returns how long it took, if somebody wants to know.
    #[inline]
    pub(super) fn ended(self, errno: i32) -> Option<Duration> {
        let took = TOOK.end(self.operation, self.began?);
        self.count_error(errno);
        Some(took)
    }

    /// The same for one that had to wait.
    fn waited(self, errno: i32) -> Option<Duration> {
        let took = self.began?.elapsed();
        TOOK.waited(self.operation, took);
        self.count_error(errno);
        Some(took)
    }

    #[inline]
    fn count_error(self, errno: i32) {
        if errno != 0 {
            let is_it = |(_, number): &(&str, i32)| *number == errno;
            let error = ERRORS.iter().position(is_it).unwrap_or(ERRORS.len() - 1);
            FAILED[self.operation][error].fetch_add(1, Relaxed);
        }
    }

    /// A file on the local disk was read into the reply, which is about to be given.
    #[inline]
    pub(super) fn read_locally(self, vfs: &Vfs, ino: Ino, offset: u64, len: usize) {
        Source::File.read(len as u64);
        let Some(took) = self.ended(0) else { return };
        if let Some(held_back) = slow::is_told(took) {
            let spent = Spent { disk: took, ..Spent::default() };
            let subject = Subject { range: Some((offset, len)), ..Subject::of(ino) };
            self.tell(vfs, &subject, (took, spent), 0, held_back);
        }
    }

    /// Watches a reply that has to be waited for.
    pub(super) fn watch(
        self,
        vfs: Arc<Vfs>,
        subject: Subject,
        reply: Pin<Box<dyn Future<Output = (Message, Spent)> + Send>>,
    ) -> Pin<Box<dyn Future<Output = Message> + Send>> {
        let began = self.began.map(|began| match began {
            // What there was before was nothing that is waited for.
            Moment::Unknown | Moment::Rough(_) => Moment::Exact(Instant::now()),
            exact => exact,
        });
        let timer = Timer { began, ..self };
        let waiter = Waiter { timer, vfs, subject, _held: WAITING.hold(), is_over: false };
        Box::pin(async move {
            let mut waiter = waiter;
            let (message, spent) = reply.await;
            waiter.over(&message, spent);
            message
        })
    }

    fn tell(
        self,
        vfs: &Vfs,
        subject: &Subject,
        (took, spent): (Duration, Spent),
        errno: i32,
        held_back: u64,
    ) {
        let name = subject.name.as_ref().map(|name| String::from_utf8_lossy(name).into_owned());
        slow::tell!(
            {
                operation = self.name(),
                subject = vfs.describe(subject.ino),
                name,
                offset = subject.range.map(|(offset, _)| offset),
                len = subject.range.map(|(_, len)| len),
                errno,
            },
            took,
            spent,
            held_back
        );
    }
}

fn errno_of(reply: &[u8]) -> i32 {
    let errno = reply.get(4..8).and_then(|errno| errno.try_into().ok());
    -i32::from_ne_bytes(errno.unwrap_or_default())
}

/// One who waits. Dropped before the reply is there, it was interrupted.
struct Waiter {
    timer: Timer,
    vfs: Arc<Vfs>,
    subject: Subject,
    _held: Held,
    is_over: bool,
}

impl Waiter {
    fn over(&mut self, message: &[u8], spent: Spent) {
        self.end(errno_of(message), spent);
    }

    fn end(&mut self, errno: i32, spent: Spent) {
        self.is_over = true;
        let Some(took) = self.timer.waited(errno) else { return };
        if let Some(held_back) = slow::is_told(took) {
            self.timer.tell(&self.vfs, &self.subject, (took, spent), errno, held_back);
        }
    }
}

impl Drop for Waiter {
    fn drop(&mut self) {
        if !self.is_over {
            self.end(libc::EINTR, Spent::default());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::observe::timing;

    #[test]
    fn every_kind_of_request_counts_under_its_name() {
        for (opcode, name) in [
            (op::LOOKUP, "lookup"),
            (op::READ, "read"),
            (op::READDIRPLUS, "readdirplus"),
            (op::RELEASEDIR, "releasedir"),
            (op::BATCH_FORGET, "forget"),
            (op::WRITE, "other"),
            (u32::MAX, "other"),
        ] {
            assert_eq!(Timer::start(opcode).name(), name);
        }
    }

    #[test]
    fn an_error_counts_by_its_name() {
        timing::switch_on();
        let timer = Timer::start(op::READLINK);
        let reply = super::super::fuse::error_message(1, super::super::errno::Errno::IO);
        timer.ended(errno_of(&reply));
        timer.ended(libc::EXDEV);
        timer.ended(0);
        let mut scrape = Scrape::default();
        collect(&mut scrape);
        let text = scrape.text();
        for line in [
            "lazystore_fuse_errors_total{operation=\"readlink\",error=\"EIO\"} 1",
            "lazystore_fuse_errors_total{operation=\"readlink\",error=\"other\"} 1",
            "lazystore_fuse_operation_seconds_count{operation=\"readlink\"} 3",
        ] {
            assert!(text.contains(line), "{line}: {text}");
        }
    }
}
