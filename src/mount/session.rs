//! A session with the kernel's FUSE device: threads that read requests and write replies.
//!
//! Every thread has a descriptor of its own and answers what is at hand itself. What has to be fetched becomes a task
//! of the runtime, which carries the reply with it, so that a slow store never occupies a thread. A reader that is
//! interrupted or killed while it waits gets its answer (EINTR) at once: its task is dropped.
//!
//! The session ends when the kernel says that the filesystem is unmounted.

use std::{
    collections::{HashMap, HashSet, VecDeque},
    io,
    os::fd::{AsFd as _, OwnedFd},
    sync::{Arc, Weak},
    thread::{self, JoinHandle},
    time::Duration,
};

use parking_lot::Mutex;
use rustix::io::Errno as Os;
use tokio::{runtime::Handle, task::AbortHandle};
use tracing::{debug, error, warn};

use super::{
    affinity::{Affinity, Followed},
    backing,
    device::{self, Device},
    errno::Errno,
    fuse::{Fuse, IO_LEN_MAX, Message, Outcome, error_message},
    local_read,
    wire::{self, Request},
};
use crate::{observe::event, vfs::Vfs};

/// The longest request that is read, in bytes: room for some 4,000 FORGETs at once.
const REQUEST_LEN_MAX: usize = 64 << 10;

/// Longer reads take a while: meanwhile the reader has something to do, too.
const SHORT_READ_LEN_MAX: usize = 64 << 10;

/// How many interrupts that came before their request began to wait are remembered. One that comes after its request
/// was answered is among them, and does no harm.
const EARLY_INTERRUPTS_MAX: usize = 1024;

/// Who opens and reads files that are here.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, clap::ValueEnum)]
pub enum IoMode {
    /// What suits the store: passthrough if that can be had and the files are large, no-open otherwise
    #[default]
    Auto,
    /// Opening a file costs nothing; the kernel keeps what it has read: best for many small files
    NoOpen,
    /// The kernel reads large files from the store's own files: best for big files, mmap, little memory; needs root and
    /// Linux 6.9
    Passthrough,
}

/// From this mean length of the blobs that are here on, files are opened and passed through if nothing else is said, in
/// bytes. An open then costs some 13 µs more, and a MiB that is read 90 µs (again) to 250 µs (for the first time) less,
/// which is even at 50 to 150 KiB. Small files are opened more often than large ones, so more is asked for.
const AUTO_PASSTHROUGH_MEAN_LEN: u64 = 1 << 20;

/// How a session works.
#[derive(Debug, Clone, Copy)]
pub struct SessionOptions {
    /// How many threads read requests.
    pub threads: usize,
    /// Who opens and reads files.
    pub io_mode: IoMode,
}

/// How often idle backing ids are looked for.
const TIDY_EVERY: Duration = Duration::from_secs(10);

/// A running session. Dropping it does not end it; unmounting does.
#[derive(Debug)]
pub struct Session {
    threads: Vec<JoinHandle<()>>,
}

impl Session {
    /// Greets the kernel over `device`, which must belong to a fresh mount, and starts the threads.
    pub fn start(
        device: OwnedFd,
        vfs: Arc<Vfs>,
        runtime: &Handle,
        options: SessionOptions,
    ) -> io::Result<Session> {
        let first = Arc::new(device);
        let fuse = Arc::new(Fuse::new(vfs, Arc::new(Device(first.clone()))));
        let mut devices = vec![first.clone()];
        for _ in 1..options.threads.max(1) {
            // Sharing one descriptor works too.
            devices.push(device::clone_for_thread(first.as_fd()).map_or(first.clone(), Arc::new));
        }
        let (waiting, followed) = (Arc::new(Waiting::default()), Followed::new());
        let mut workers: Vec<_> = devices
            .into_iter()
            .map(|device| Worker {
                device,
                fuse: fuse.clone(),
                waiting: waiting.clone(),
                runtime: runtime.clone(),
                request: vec![0; REQUEST_LEN_MAX],
                data: vec![0; wire::OUT_HEADER_LEN + IO_LEN_MAX],
                affinity: Affinity::new(followed.clone()),
            })
            .collect();
        // The greeting comes first and alone.
        if let Some(worker) = workers.first_mut() {
            worker.next()?;
        }
        if choose_passthrough(&fuse, options.io_mode)? {
            fuse.open_files();
            runtime.spawn(tidy(Arc::downgrade(&fuse)));
        }
        let mut threads = Vec::new();
        for (number, worker) in workers.into_iter().enumerate() {
            let thread = thread::Builder::new().name(format!("fuse-{number}"));
            threads.push(thread.spawn(move || worker.run())?);
        }
        Ok(Session { threads })
    }

    /// Waits until the filesystem is unmounted.
    pub fn join(self) {
        for thread in self.threads {
            // A panic has been reported by the thread itself.
            let _ = thread.join();
        }
    }
}

/// Whether files are opened, so that they can be passed through.
fn choose_passthrough(fuse: &Fuse, io_mode: IoMode) -> io::Result<bool> {
    let unable =
        || io::Error::other("the kernel cannot do that (Linux 6.9 can, if it is built in)");
    let possible = match fuse.can_pass_through() {
        true => backing::probe(fuse.kernel()),
        false => Err(unable()),
    };
    match (io_mode, possible) {
        (IoMode::Passthrough, Err(error)) => Err(io::Error::new(
            error.kind(),
            format!(
                "no passthrough here: {error}; it takes root (CAP_SYS_ADMIN) outside of user namespaces"
            ),
        )),
        (IoMode::Passthrough, Ok(())) => Ok(true),
        (IoMode::Auto, Ok(())) => {
            let mean = fuse.vfs().mean_local_len();
            Ok(mean.is_some_and(|len| len >= AUTO_PASSTHROUGH_MEAN_LEN))
        }
        (IoMode::Auto, Err(_)) | (IoMode::NoOpen, _) => Ok(false),
    }
}

/// Gives up what is idle, for as long as the session lives.
async fn tidy(fuse: Weak<Fuse>) {
    loop {
        tokio::time::sleep(TIDY_EVERY).await;
        match fuse.upgrade().as_deref().map(Fuse::backings) {
            Some(Some(backings)) => backings.tidy(),
            _ => return,
        }
    }
}

/// The requests whose replies are being waited for.
#[derive(Default)]
struct Waiting(Mutex<WaitingState>);

#[derive(Default)]
struct WaitingState {
    tasks: HashMap<u64, (AbortHandle, Arc<OwnedFd>)>,
    early: HashSet<u64>,
    early_order: VecDeque<u64>,
}

impl Waiting {
    /// Starts the task that waits for a reply. `false`, and nothing is started, if it was interrupted already.
    fn start(
        &self,
        unique: u64,
        device: &Arc<OwnedFd>,
        spawn: impl FnOnce() -> AbortHandle,
    ) -> bool {
        let mut state = self.0.lock();
        if state.early.remove(&unique) {
            return false;
        }
        // The task cannot take itself out before it is in: it needs the lock for that.
        let task = spawn();
        state.tasks.insert(unique, (task, device.clone()));
        true
    }

    /// Takes the request out. Only who gets `true` may reply.
    fn end(&self, unique: u64) -> bool {
        self.0.lock().tasks.remove(&unique).is_some()
    }

    /// Ends the task, if there is one. Returns where to reply to.
    fn interrupt(&self, unique: u64) -> Option<Arc<OwnedFd>> {
        let mut state = self.0.lock();
        if let Some((task, device)) = state.tasks.remove(&unique) {
            task.abort();
            return Some(device);
        }
        if state.early.insert(unique) {
            state.early_order.push_back(unique);
        }
        if state.early_order.len() > EARLY_INTERRUPTS_MAX
            && let Some(oldest) = state.early_order.pop_front()
        {
            state.early.remove(&oldest);
        }
        None
    }
}

/// What one thread has.
struct Worker {
    device: Arc<OwnedFd>,
    fuse: Arc<Fuse>,
    waiting: Arc<Waiting>,
    runtime: Handle,
    request: Vec<u8>,
    /// Where data is read into from local files, behind room for the header.
    data: Vec<u8>,
    affinity: Affinity,
}

impl Worker {
    fn run(mut self) {
        self.affinity.begin();
        let runtime = self.runtime.clone();
        let _context = runtime.enter();
        loop {
            match self.next() {
                Ok(true) => {}
                Ok(false) => return,
                Err(error) => {
                    error!(
                        event = event::KERNEL_FAILED,
                        %error,
                        "cannot read requests from the kernel any more"
                    );
                    return;
                }
            }
        }
    }

    /// Handles one request. `false` when the filesystem is unmounted.
    fn next(&mut self) -> io::Result<bool> {
        let len = match rustix::io::read(&*self.device, &mut self.request) {
            Ok(len) => len,
            // ENOENT: the request was interrupted before we got it.
            Err(Os::NOENT | Os::INTR | Os::AGAIN) => return Ok(true),
            Err(Os::NODEV) => return Ok(false),
            Err(error) => return Err(error.into()),
        };
        let request = match Request::parse(&self.request[..len]) {
            Ok(request) => request,
            Err(error) => {
                warn!(
                    event = event::MALFORMED_REQUEST,
                    %error,
                    "a request without a whole header was dropped"
                );
                return Ok(true);
            }
        };
        let thread = request.thread;
        match self.fuse.handle(request) {
            Outcome::Reply(message) => {
                send(&self.device, &message);
                wire::recycle(message);
                self.affinity.asked_by(thread);
            }
            Outcome::ReadLocal { unique, ino, blob, offset, len, timer } => {
                let message = &mut self.data[..wire::OUT_HEADER_LEN + len];
                if local_read::read_into(message, unique, &blob, offset) {
                    timer.read_locally(self.fuse.vfs(), ino, offset, len);
                    send(&self.device, message);
                } else {
                    drop(blob);
                    match self.fuse.read_elsewhere(unique, ino, offset, len, timer) {
                        Outcome::Later { unique, reply } => self.later(unique, reply),
                        Outcome::Reply(message) => send(&self.device, &message),
                        _ => send(&self.device, &error_message(unique, Errno::IO)),
                    }
                }
                match len <= SHORT_READ_LEN_MAX {
                    true => self.affinity.asked_by(thread),
                    false => self.affinity.asked_for_much(),
                }
            }
            Outcome::Later { unique, reply } => self.later(unique, reply),
            Outcome::Silence => {}
            Outcome::Interrupt { unique } => {
                if let Some(device) = self.waiting.interrupt(unique) {
                    send(&device, &error_message(unique, Errno::INTERRUPTED));
                }
            }
            Outcome::End(message) => {
                if let Some(message) = message {
                    send(&self.device, &message);
                }
                // The device says so too, to every thread, once the filesystem is gone.
            }
        }
        Ok(true)
    }

    fn later(&self, unique: u64, reply: std::pin::Pin<Box<dyn Future<Output = Message> + Send>>) {
        let (waiting, device) = (self.waiting.clone(), self.device.clone());
        let task = async move {
            let message = reply.await;
            if waiting.end(unique) {
                send(&device, &message);
            }
        };
        let started =
            self.waiting.start(unique, &self.device, || self.runtime.spawn(task).abort_handle());
        if !started {
            send(&self.device, &error_message(unique, Errno::INTERRUPTED));
        }
    }
}

fn send(device: &OwnedFd, message: &[u8]) {
    match rustix::io::write(device, message) {
        Ok(_) => {}
        // The reader is gone, or the whole mount.
        Err(Os::NOENT | Os::NODEV) => debug!("nobody waits for this reply any more"),
        Err(error) => {
            warn!(event = event::KERNEL_FAILED, %error, "the kernel does not take a reply")
        }
    }
}
