//! virtiofs: the filesystem brought to the kernels of guests, over vhost-user.
//!
//! A guest's requests lie in queues in its own memory, which its machine monitor shares with us. `device` is what
//! the monitor talks to; `queue` takes requests out of one queue, hands them to the same [`super::fuse`] as a mount
//! does, and puts the replies back; `pending` knows those that are being waited for; `slot` is the room for one
//! reply.
//!
//! Everything that comes from a guest is hostile: messages are bounds-checked by [`super::wire`], chains of
//! descriptors by `virtio-queue`, and what a guest can make us hold is bounded: by its queues, and by
//! `FETCHED_BYTES_MAX`. Each guest sees a tree of its own over shared stores, which goes when it does.
//!
//! Deliberately absent: a DAX window and notifications, for want of monitors that have them; and a guest whose monitor
//! cuts its own memory short under us ends this process (SIGBUS): who may connect to the socket is trusted that far.

mod device;
mod pending;
mod queue;
mod slot;

use std::{
    fmt, io,
    os::unix::net::UnixListener,
    sync::{
        Arc, Once,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::Duration,
};

use parking_lot::{Condvar, Mutex};
use tokio::runtime::Handle;
use tracing::{debug, info, warn};
use vhost::vhost_user::{Error as VhostError, Listener};
use vhost_user_backend::{Error as DaemonError, ShutdownHandle, VhostUserDaemon};
use vm_memory::{GuestMemoryAtomic, GuestMemoryMmap};

use crate::{
    observe::{self, Gauge, event, names},
    vfs::Vfs,
};
use device::Device;

/// How many queues of requests a guest may have.
pub const QUEUES_MAX: u16 = 32;

/// How many guests are served at once; others wait until one is gone.
const GUESTS_MAX: usize = 64;

/// How many bytes of replies that have to be fetched one guest may have under way.
const FETCHED_BYTES_MAX: usize = 128 << 20;

/// Makes the tree that one guest sees.
pub type NewVfs = Arc<dyn Fn() -> Arc<Vfs> + Send + Sync>;

/// Serves guests on a socket until it is stopped.
pub struct Server {
    shared: Arc<Shared>,
}

struct Shared {
    state: Mutex<State>,
    gone: Condvar,
    stopping: AtomicBool,
    accepting: AtomicBool,
}

#[derive(Default)]
struct State {
    guests: Vec<(u64, ShutdownHandle)>,
    next: u64,
}

impl fmt::Debug for Server {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Server").field("guests", &self.shared.state.lock().guests.len()).finish()
    }
}

/// Begins to serve whoever connects to `listener`, each guest with up to `queues` queues of requests besides the one
/// of high priority.
pub fn serve(
    listener: UnixListener,
    queues: u16,
    new_vfs: NewVfs,
    runtime: Handle,
) -> io::Result<Server> {
    let shared = Arc::new(Shared {
        state: Mutex::default(),
        gone: Condvar::new(),
        stopping: AtomicBool::new(false),
        accepting: AtomicBool::new(true),
    });
    let server = Server { shared: shared.clone() };
    tell();
    listener.set_nonblocking(false)?;
    let mut listener = Listener::from(listener);
    thread::Builder::new().name("guests".to_owned()).spawn(move || {
        let _accepting = Accepting(shared.clone());
        while !shared.stopping.load(Ordering::Acquire) {
            shared.wait_for_room();
            let device = Device::new(queues, new_vfs.clone(), runtime.clone());
            let accepted = device
                .map_err(|error| error.to_string())
                .and_then(|device| shared.clone().accept(&mut listener, device));
            if let Err(error) = accepted {
                warn!(event = event::GUEST_FAILED, %error, "cannot serve a guest");
                // Whatever it is, such as too many open files, it may pass.
                thread::sleep(Duration::from_secs(1));
            }
        }
    })?;
    Ok(server)
}

static GUESTS: Gauge = Gauge::new();

/// Makes the number of guests known.
fn tell() {
    static TOLD: Once = Once::new();
    observe::register_once(&TOLD, |scrape| {
        scrape.number(&names::GUESTS, &[], GUESTS.get() as f64);
    });
}

impl Server {
    /// What can be known of the guests while they are served.
    pub fn guests(&self) -> Guests {
        Guests(self.shared.clone())
    }

    /// Lets go of all guests, and waits up to `drain` until they are.
    pub fn stop(self, drain: Duration) {
        self.shared.stopping.store(true, Ordering::Release);
        let mut state = self.shared.state.lock();
        for (_, guest) in &state.guests {
            guest.shutdown();
        }
        let has_guests = |state: &mut State| !state.guests.is_empty();
        if self.shared.gone.wait_while_for(&mut state, has_guests, drain).timed_out() {
            warn!(
                event = event::GUEST_FAILED,
                guests = state.guests.len(),
                "guests are left in the middle of a request"
            );
        }
    }
}

/// The guests of a server.
#[derive(Clone)]
pub struct Guests(Arc<Shared>);

impl Guests {
    /// How many there are.
    pub fn connected(&self) -> usize {
        self.0.state.lock().guests.len()
    }

    /// Whether further ones are let in, or will be once there is room.
    pub fn is_accepting(&self) -> bool {
        self.0.accepting.load(Ordering::Acquire)
    }
}

impl fmt::Debug for Guests {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Guests").field("connected", &self.connected()).finish()
    }
}

/// Says that nobody is let in any more, for whatever reason.
struct Accepting(Arc<Shared>);

impl Drop for Accepting {
    fn drop(&mut self) {
        self.0.accepting.store(false, Ordering::Release);
    }
}

type Daemon = VhostUserDaemon<Arc<Device>>;

impl Shared {
    fn wait_for_room(&self) {
        let mut state = self.state.lock();
        self.gone.wait_while(&mut state, |state| state.guests.len() >= GUESTS_MAX);
    }

    /// Waits for a guest to connect; a thread of its own then serves it.
    fn accept(self: Arc<Self>, listener: &mut Listener, device: Device) -> Result<(), String> {
        let memory = device.memory().clone();
        let device = Arc::new(device);
        let mut daemon = new_daemon(&device, memory).map_err(|error| error.to_string())?;
        let watched = device.watch_exit(&daemon.get_epoll_handlers());
        let started = watched.map_err(|error| error.to_string()).and_then(|()| {
            // Here it waits.
            daemon.start(listener).map_err(|error| error.to_string())
        });
        if let Err(error) = started {
            // Or the daemon would wait for its threads.
            device.abandon();
            return Err(error);
        }
        let number = self.enter(daemon.shutdown_handle());
        info!(event = event::GUEST_CONNECTED, guest = number, "a guest is connected");
        let spawned = thread::Builder::new().name(format!("guest-{number}")).spawn({
            let shared = self.clone();
            let guest = GUESTS.hold();
            move || {
                serve_one(daemon, &device, number);
                drop(guest);
                shared.leave(number);
            }
        });
        spawned.map(|_| ()).map_err(|error| {
            self.leave(number);
            error.to_string()
        })
    }

    fn enter(&self, handle: Option<ShutdownHandle>) -> u64 {
        let mut state = self.state.lock();
        state.next += 1;
        let number = state.next;
        if let Some(handle) = handle {
            if self.stopping.load(Ordering::Acquire) {
                handle.shutdown();
            }
            state.guests.push((number, handle));
        }
        number
    }

    fn leave(&self, number: u64) {
        self.state.lock().guests.retain(|(guest, _)| *guest != number);
        self.gone.notify_all();
    }
}

fn new_daemon(
    device: &Arc<Device>,
    memory: GuestMemoryAtomic<GuestMemoryMmap>,
) -> Result<Daemon, DaemonError> {
    VhostUserDaemon::new("vhost-user".to_owned(), device.clone(), memory)
}

/// Serves a guest until it, or rather its monitor, is gone.
fn serve_one(mut daemon: Daemon, device: &Device, number: u64) {
    match daemon.wait() {
        Ok(())
        | Err(DaemonError::HandleRequest(VhostError::Disconnected | VhostError::PartialMessage)) => {
            info!(event = event::GUEST_GONE, guest = number, "a guest is gone");
        }
        Err(error) => {
            warn!(
                event = event::GUEST_FAILED,
                guest = number,
                %error,
                "a guest's monitor made no sense, and was let go"
            )
        }
    }
    let abandoned = device.abandon();
    // Its queues' threads end here.
    drop(daemon);
    debug!(guest = number, abandoned, "nothing is left of a guest");
}
