//! What a guest's machine monitor talks to.

use std::{
    fs::File,
    io,
    os::fd::AsRawFd as _,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};

use parking_lot::{Mutex, RwLock};
use tokio::{runtime::Handle, sync::Semaphore};
use tracing::{debug, error};
use vhost::vhost_user::message::{VhostUserProtocolFeatures, VhostUserVirtioFeatures};
use vhost_user_backend::{VhostUserBackend, VringEpollHandler, VringMutex};
use virtio_bindings::{
    virtio_config::VIRTIO_F_VERSION_1,
    virtio_ring::{VIRTIO_RING_F_EVENT_IDX, VIRTIO_RING_F_INDIRECT_DESC},
};
use vm_memory::{GuestMemoryAtomic, GuestMemoryMmap};
use vmm_sys_util::{
    epoll::EventSet,
    eventfd::{EFD_CLOEXEC, EFD_NONBLOCK, EventFd},
};

use super::{
    super::fuse::{Fuse, Kernel},
    FETCHED_BYTES_MAX, NewVfs,
    pending::Pending,
    queue::{TURN_LEN, Worker},
};
use crate::{observe::event, vfs::Ino};

/// How many requests a queue has room for.
pub(super) const QUEUE_LEN_MAX: usize = 1024;

/// One guest's device.
pub(super) struct Device {
    guest: Arc<Guest>,
    /// One for each queue; the first is that of high priority. Whoever holds it may take requests out.
    workers: Vec<Mutex<Worker>>,
    exit: EventFd,
}

/// What the queues of a guest share.
pub(super) struct Guest {
    pub(super) memory: GuestMemoryAtomic<GuestMemoryMmap>,
    pub(super) pending: Pending,
    /// Who may fetch, in units of [`TURN_LEN`].
    pub(super) fetching: Semaphore,
    pub(super) runtime: Handle,
    gone: AtomicBool,
    new_vfs: NewVfs,
    fuse: RwLock<Arc<Fuse>>,
}

/// The kernel of a guest, which answers but takes nothing unasked.
#[derive(Debug)]
struct GuestKernel;

impl Kernel for GuestKernel {
    fn hears(&self) -> bool {
        false
    }

    fn forget_listing(&self, _ino: Ino) {}

    fn open_backing(&self, _file: &File) -> io::Result<u32> {
        Err(io::ErrorKind::Unsupported.into())
    }

    fn close_backing(&self, _id: u32) {}
}

fn new_fuse(new_vfs: &NewVfs) -> Arc<Fuse> {
    Arc::new(Fuse::new(new_vfs(), Arc::new(GuestKernel)))
}

impl Guest {
    /// Whether nobody waits for replies any more.
    pub(super) fn is_gone(&self) -> bool {
        self.gone.load(Ordering::Acquire)
    }

    /// What answers the guest's kernel.
    pub(super) fn fuse(&self) -> Arc<Fuse> {
        self.fuse.read().clone()
    }

    /// Forgets what the guest's kernel was told.
    pub(super) fn begin_again(&self) {
        *self.fuse.write() = new_fuse(&self.new_vfs);
    }
}

impl Device {
    /// What the event that ends the threads of the queues is called. The numbers up to that of queues are taken.
    fn exit_event_number(&self) -> usize {
        self.workers.len() + 1
    }

    /// Makes the threads of the queues end when the device is [abandoned](Device::abandon).
    pub(super) fn watch_exit<T: VhostUserBackend>(
        &self,
        threads: &[Arc<VringEpollHandler<T>>],
    ) -> io::Result<()> {
        for thread in threads {
            let number = self.exit_event_number() as u64;
            thread.register_listener(self.exit.as_raw_fd(), EventSet::IN, number)?;
        }
        Ok(())
    }

    /// With `queues` queues besides that of high priority.
    pub(super) fn new(queues: u16, new_vfs: NewVfs, runtime: Handle) -> io::Result<Self> {
        let guest = Guest {
            memory: GuestMemoryAtomic::new(GuestMemoryMmap::new()),
            pending: Pending::default(),
            fetching: Semaphore::new(FETCHED_BYTES_MAX / TURN_LEN),
            runtime,
            gone: AtomicBool::new(false),
            fuse: RwLock::new(new_fuse(&new_vfs)),
            new_vfs,
        };
        let workers = (0..=queues).map(|_| Mutex::default()).collect();
        let exit = EventFd::new(EFD_NONBLOCK | EFD_CLOEXEC)?;
        Ok(Device { guest: Arc::new(guest), workers, exit })
    }

    pub(super) fn memory(&self) -> &GuestMemoryAtomic<GuestMemoryMmap> {
        &self.guest.memory
    }

    /// Ends what is under way for a guest that is gone, and takes nothing more. Returns how many requests that were.
    pub(super) fn abandon(&self) -> usize {
        self.guest.gone.store(true, Ordering::Release);
        if let Err(error) = self.exit.write(1) {
            error!(
                event = event::GUEST_FAILED,
                %error,
                "the threads of a guest that is gone go on"
            );
        }
        self.guest.pending.abandon()
    }
}

impl VhostUserBackend for Device {
    type Bitmap = ();
    type Vring = VringMutex;

    fn num_queues(&self) -> usize {
        self.workers.len()
    }

    fn max_queue_size(&self) -> usize {
        QUEUE_LEN_MAX
    }

    fn features(&self) -> u64 {
        1 << VIRTIO_F_VERSION_1
            | 1 << VIRTIO_RING_F_INDIRECT_DESC
            | 1 << VIRTIO_RING_F_EVENT_IDX
            | VhostUserVirtioFeatures::PROTOCOL_FEATURES.bits()
    }

    fn protocol_features(&self) -> VhostUserProtocolFeatures {
        VhostUserProtocolFeatures::MQ
            | VhostUserProtocolFeatures::REPLY_ACK
            | VhostUserProtocolFeatures::CONFIGURE_MEM_SLOTS
    }

    fn set_event_idx(&self, enabled: bool) {
        debug!(enabled, "how a guest and we tell each other of requests and replies");
    }

    fn update_memory(&self, _memory: GuestMemoryAtomic<GuestMemoryMmap>) -> io::Result<()> {
        // It is the one that we made, with new contents.
        Ok(())
    }

    fn queues_per_thread(&self) -> Vec<u64> {
        (0..self.workers.len()).map(|queue| 1 << queue).collect()
    }

    fn stop_vring(&self, queue: u32) -> io::Result<()> {
        let queue = queue as usize;
        if let Some(worker) = self.workers.get(queue) {
            // After this no more requests are taken out, as the queue is not ready any more.
            drop(worker.lock());
            self.guest.pending.drain(queue);
        }
        Ok(())
    }

    fn handle_event(
        &self,
        event: u16,
        _events: EventSet,
        vrings: &[VringMutex],
        thread: usize,
    ) -> io::Result<()> {
        if usize::from(event) == self.exit_event_number() {
            // What ends the thread is an error; there is another way, but it loses a descriptor each time.
            return Err(io::ErrorKind::ConnectionAborted.into());
        }
        // A thread has one queue.
        if let (Some(vring), Some(worker)) = (vrings.first(), self.workers.get(thread)) {
            let _context = self.guest.runtime.enter();
            worker.lock().drain(&self.guest, thread, vring);
        }
        Ok(())
    }
}
