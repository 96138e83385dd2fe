//! The room that a guest offers for one reply.

use std::io::{Read as _, Write as _};

use tracing::debug;
use vhost_user_backend::{VringMutex, VringT as _};
use virtio_queue::{DescriptorChain, QueueT as _, Reader, Writer};
use vm_memory::{GuestMemoryLoadGuard, GuestMemoryMmap};

use super::super::{
    errno::Errno,
    fuse::error_message,
    wire::{IN_HEADER_LEN, OUT_HEADER_LEN},
};

/// The descriptors of one request, in the memory as the guest had it when it asked.
pub(super) type Chain = DescriptorChain<GuestMemoryLoadGuard<GuestMemoryMmap>>;

/// A request that was taken out of its queue and has to be put back, answered or not.
pub(super) struct Slot {
    vring: VringMutex,
    chain: Chain,
}

impl Slot {
    pub(super) fn new(vring: VringMutex, chain: Chain) -> Self {
        Slot { vring, chain }
    }

    /// Reads the request into `buffer`. `None` if there is none, or one that is longer.
    pub(super) fn read<'a>(&self, buffer: &'a mut [u8]) -> Option<&'a [u8]> {
        let mut reader = Reader::new(self.chain.memory(), self.chain.clone()).ok()?;
        let len = reader.available_bytes();
        let request = buffer.get_mut(..len).filter(|request| request.len() >= IN_HEADER_LEN)?;
        reader.read_exact(request).ok()?;
        Some(request)
    }

    /// How many bytes a reply may have.
    pub(super) fn room(&self) -> usize {
        Writer::new(self.chain.memory(), self.chain.clone())
            .map_or(0, |writer| writer.available_bytes())
    }

    /// Puts the request back with a reply.
    pub(super) fn reply(self, message: &[u8]) {
        let written = self.write(message);
        self.put_back(written);
    }

    /// Puts the request back without a reply.
    pub(super) fn discard(self) {
        self.put_back(0);
    }

    /// Writes a reply, or, where it has no room, that there was an error. Returns its length.
    fn write(&self, message: &[u8]) -> u32 {
        let Ok(mut writer) = Writer::new(self.chain.memory(), self.chain.clone()) else {
            debug!("a guest offers room for a reply where it has no memory");
            return 0;
        };
        let too_long;
        let message = match writer.available_bytes() {
            room if room >= message.len() => message,
            room if room >= OUT_HEADER_LEN => {
                let unique = message[8..OUT_HEADER_LEN].try_into().map_or(0, u64::from_ne_bytes);
                too_long = error_message(unique, Errno::IO);
                &too_long
            }
            _ => return 0,
        };
        match writer.write_all(message) {
            Ok(()) => message.len() as u32,
            Err(error) => {
                debug!(%error, "a guest took its memory back before the reply");
                0
            }
        }
    }

    fn put_back(self, written: u32) {
        let Slot { vring, chain } = self;
        let mut state = vring.get_mut();
        // An error means that the ring is not where there is memory: a guest that does so waits in vain.
        if let Err(error) = state.add_used(chain.head_index(), written) {
            debug!(%error, "a guest's ring cannot be written");
            return;
        }
        let memory = chain.memory();
        // In doubt it is told.
        if state.get_queue_mut().needs_notification(memory).unwrap_or(true)
            && let Err(error) = state.signal_used_queue()
        {
            debug!(%error, "a guest cannot be told of a reply");
        }
    }
}
