//! Requests out of a queue, and replies back into it.

use std::{pin::Pin, sync::Arc};

use tracing::{debug, warn};
use vhost_user_backend::{VringMutex, VringT as _};
use virtio_queue::QueueOwnedT as _;
use vm_memory::{GuestAddressSpace as _, GuestMemoryAtomic, GuestMemoryMmap};

use super::{
    super::{
        errno::Errno,
        fuse::{IO_LEN_MAX, Message, Outcome, error_message},
        local_read,
        wire::{self, OUT_HEADER_LEN, Request, op},
    },
    device::Guest,
    slot::{Chain, Slot},
};
use crate::{observe::event, vfs::LocalBlob};

/// The longest request that is taken, in bytes. Nothing is ever written, so names are the longest part of any.
const REQUEST_LEN_MAX: usize = 64 << 10;

/// What the thread of a queue has.
pub(super) struct Worker {
    request: Vec<u8>,
    /// Where data is read into from local files, behind room for the header.
    data: Vec<u8>,
    /// Whether it was said that the guest's driver makes no sense.
    complained: bool,
}

impl Default for Worker {
    fn default() -> Self {
        Worker { request: vec![0; REQUEST_LEN_MAX], data: Vec::new(), complained: false }
    }
}

impl Worker {
    /// Answers everything that is in the queue.
    pub(super) fn drain(&mut self, guest: &Arc<Guest>, queue: usize, vring: &VringMutex) {
        let mut in_vain = 0;
        while in_vain < 2 {
            // Errors mean that the ring is not where there is memory; `next` then finds nothing.
            let _ = vring.disable_notification();
            in_vain += 1;
            while let Some(chain) = self.next(&guest.memory, vring) {
                if guest.is_gone() {
                    return;
                }
                in_vain = 0;
                self.handle(guest, queue, Slot::new(vring.clone(), chain));
            }
            // Something may have come before the guest was asked to tell. If it says so, and there is nothing again, its
            // ring makes no sense, and would be looked at for ever.
            if !vring.enable_notification().unwrap_or(false) {
                return;
            }
        }
    }

    fn next(
        &mut self,
        memory: &GuestMemoryAtomic<GuestMemoryMmap>,
        vring: &VringMutex,
    ) -> Option<Chain> {
        let mut state = vring.get_mut();
        match state.get_queue_mut().iter(memory.memory()) {
            Ok(mut chains) => chains.next(),
            // It is being stopped.
            Err(virtio_queue::Error::QueueNotReady) => None,
            Err(error) => {
                if !std::mem::replace(&mut self.complained, true) {
                    warn!(
                        event = event::GUEST_FAILED,
                        %error,
                        "a guest's queue makes no sense, and is not served"
                    );
                }
                None
            }
        }
    }

    fn handle(&mut self, guest: &Arc<Guest>, queue: usize, slot: Slot) {
        let Some(message) = slot.read(&mut self.request) else {
            debug!("a request that is none, or too long, was dropped");
            return slot.discard();
        };
        let request = match Request::parse(message) {
            Ok(request) => request,
            Err(error) => {
                debug!(%error, "a malformed request was refused");
                let unique = message[8..16].try_into().map_or(0, u64::from_ne_bytes);
                return slot.reply(&error_message(unique, Errno::INVALID));
            }
        };
        // Another kernel, or the same after a new start, knows nothing of what the last one was told.
        if request.opcode == op::INIT {
            guest.begin_again();
        }
        let fuse = guest.fuse();
        match fuse.handle(request) {
            Outcome::Reply(message) => {
                slot.reply(&message);
                wire::recycle(message);
            }
            Outcome::ReadLocal { unique, ino, blob, offset, len, timer } => {
                let len = len.min(slot.room().saturating_sub(OUT_HEADER_LEN));
                match self.read(unique, &blob, offset, len) {
                    Some(message) => {
                        timer.read_locally(fuse.vfs(), ino, offset, len);
                        slot.reply(message);
                    }
                    None => {
                        drop(blob);
                        match fuse.read_elsewhere(unique, ino, offset, len, timer) {
                            Outcome::Later { unique, reply } => {
                                later(guest, queue, slot, unique, reply);
                            }
                            Outcome::Reply(message) => slot.reply(&message),
                            _ => slot.reply(&error_message(unique, Errno::IO)),
                        }
                    }
                }
            }
            Outcome::Later { unique, reply } => later(guest, queue, slot, unique, reply),
            Outcome::Silence => slot.discard(),
            Outcome::Interrupt { unique } => {
                guest.pending.interrupt(unique);
                slot.discard();
            }
            Outcome::End(message) => {
                guest.begin_again();
                match message {
                    Some(message) => slot.reply(&message),
                    None => slot.discard(),
                }
            }
        }
    }

    /// Reads a local file right into a reply. `None` if it cannot be read.
    fn read(&mut self, unique: u64, blob: &LocalBlob, offset: u64, len: usize) -> Option<&[u8]> {
        let end = OUT_HEADER_LEN + len;
        self.data.resize(OUT_HEADER_LEN + IO_LEN_MAX, 0);
        let message = self.data.get_mut(..end)?;
        local_read::read_into(message, unique, blob, offset).then_some(message)
    }
}

/// Replies once the reply is there.
fn later(
    guest: &Arc<Guest>,
    queue: usize,
    slot: Slot,
    unique: u64,
    reply: Pin<Box<dyn Future<Output = Message> + Send>>,
) {
    let weight = weight(slot.room());
    let started = guest.pending.start(queue, unique, slot, |ticket| {
        let waiting = guest.clone();
        let task = async move {
            // What is at hand goes on being served while others wait for their turn.
            let _turn = waiting.fetching.acquire_many(weight).await;
            let message = reply.await;
            if let Some(slot) = waiting.pending.end(ticket) {
                slot.reply(&message);
            }
        };
        guest.runtime.spawn(task).abort_handle()
    });
    if let Err(slot) = started {
        debug!("a guest asks for more at once than its queue has room for");
        slot.reply(&error_message(unique, Errno::AGAIN));
    }
}

/// The unit in which what is under way is counted, in bytes.
pub(super) const TURN_LEN: usize = 4096;

fn weight(room: usize) -> u32 {
    (room.min(IO_LEN_MAX) / TURN_LEN + 1) as u32
}
