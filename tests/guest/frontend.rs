//! A guest without a machine: its memory, its queues, and whatever it likes to put there.

use std::{
    fs::File,
    os::{fd::AsRawFd as _, unix::fs::FileExt as _},
    path::Path,
    time::{Duration, Instant},
};

use vhost::{
    VhostBackend as _, VhostUserMemoryRegionInfo, VringConfigData,
    vhost_user::{Frontend, VhostUserFrontend as _, message::VhostUserProtocolFeatures},
};
use vmm_sys_util::eventfd::EventFd;

use crate::support::SOON;

/// How much memory the guest has, in bytes.
pub const MEMORY_LEN: u64 = 32 << 20;
/// How long its queues are.
pub const QUEUE_LEN: u16 = 64;
/// Where the buffers of requests begin, behind the queues.
pub const BUFFERS: u64 = 1 << 20;
/// How much room each request has, and each reply.
pub const BUFFER_LEN: u64 = 1 << 17;

/// The queue of high priority.
pub const PRIORITY: usize = 0;
/// The queue of requests.
pub const REQUESTS: usize = 1;

pub const NEXT: u16 = 1;
pub const WRITE: u16 = 2;
pub const INDIRECT: u16 = 4;

const DESCRIPTORS: u64 = 0;
const AVAILABLE: u64 = 0x4000;
const USED: u64 = 0x6000;
const RING_LEN: u64 = 0x10000;

/// A descriptor: its address, length, flags, and what follows it.
pub type Descriptor = (u64, u32, u16, u16);

pub struct Guest {
    frontend: Frontend,
    pub memory: File,
    kicks: Vec<EventFd>,
    available: [u16; 2],
    used: [u16; 2],
}

impl Guest {
    /// Connects, and sets up two queues.
    pub fn connect(socket: &Path) -> Self {
        let memory = rustix::fs::memfd_create("guest", rustix::fs::MemfdFlags::CLOEXEC);
        let memory = File::from(memory.expect("memory can be had"));
        memory.set_len(MEMORY_LEN).expect("memory can be had");
        let mut frontend = Frontend::connect(socket, 2).expect("it is served");
        let features = frontend.get_features().expect("an answer");
        frontend.set_owner().expect("it is free");
        // Without notifications by index: each request is told of.
        frontend.set_features(features & !(1 << 29)).expect("they are offered");
        let offered = frontend.get_protocol_features().expect("an answer");
        let wanted = VhostUserProtocolFeatures::MQ | VhostUserProtocolFeatures::REPLY_ACK;
        frontend.set_protocol_features(offered & wanted).expect("they are offered");
        assert!(frontend.get_queue_num().expect("an answer") >= 2);
        let region = VhostUserMemoryRegionInfo {
            guest_phys_addr: 0,
            memory_size: MEMORY_LEN,
            userspace_addr: 0,
            mmap_offset: 0,
            mmap_handle: memory.as_raw_fd(),
        };
        frontend.set_mem_table(&[region]).expect("memory is taken");
        let mut kicks = Vec::new();
        for queue in [PRIORITY, REQUESTS] {
            let base = queue as u64 * RING_LEN;
            let rings = VringConfigData {
                queue_max_size: QUEUE_LEN,
                queue_size: QUEUE_LEN,
                flags: 0,
                desc_table_addr: base + DESCRIPTORS,
                used_ring_addr: base + USED,
                avail_ring_addr: base + AVAILABLE,
                log_addr: None,
            };
            let (kick, call) = (EventFd::new(0).expect("new"), EventFd::new(0).expect("new"));
            frontend.set_vring_num(queue, QUEUE_LEN).expect("it is allowed");
            frontend.set_vring_addr(queue, &rings).expect("it is memory");
            frontend.set_vring_base(queue, 0).expect("it is allowed");
            frontend.set_vring_call(queue, &call).expect("it is taken");
            frontend.set_vring_kick(queue, &kick).expect("it is taken");
            frontend.set_vring_enable(queue, true).expect("it is allowed");
            kicks.push(kick);
        }
        Guest { frontend, memory, kicks, available: [0; 2], used: [0; 2] }
    }

    pub fn write(&self, address: u64, bytes: &[u8]) {
        self.memory.write_all_at(bytes, address).expect("it is memory");
    }

    fn read<const N: usize>(&self, address: u64) -> [u8; N] {
        let mut bytes = [0; N];
        self.memory.read_exact_at(&mut bytes, address).expect("it is memory");
        bytes
    }

    pub fn describe(&self, queue: usize, index: u16, descriptor: Descriptor) {
        let (address, len, flags, next) = descriptor;
        let at = queue as u64 * RING_LEN + DESCRIPTORS + 16 * u64::from(index);
        self.write(at, &encode(address, len, flags, next));
    }

    /// Makes a chain available that begins at `head`.
    pub fn offer(&mut self, queue: usize, head: u16) {
        let at = queue as u64 * RING_LEN + AVAILABLE;
        let index = self.available[queue];
        self.write(at + 4 + 2 * u64::from(index % QUEUE_LEN), &head.to_le_bytes());
        self.available[queue] = index.wrapping_add(1);
        self.publish(queue, self.available[queue]);
    }

    /// Says that so many were offered, whatever is true.
    pub fn publish(&mut self, queue: usize, index: u16) {
        self.available[queue] = index;
        self.write(queue as u64 * RING_LEN + AVAILABLE + 2, &index.to_le_bytes());
        self.kicks[queue].write(1).expect("it can be told");
    }

    /// Offers a request in slot `slot`, of up to 32. Its reply may have `room` bytes.
    pub fn send(&mut self, queue: usize, slot: u16, message: &[u8], room: u32) {
        let request = BUFFERS + u64::from(slot) * 2 * BUFFER_LEN;
        self.write(request, message);
        let more = if room > 0 { NEXT } else { 0 };
        self.describe(queue, 2 * slot, (request, message.len() as u32, more, 2 * slot + 1));
        self.describe(queue, 2 * slot + 1, (request + BUFFER_LEN, room, WRITE, 0));
        self.offer(queue, 2 * slot);
    }

    /// The next request that comes back: its slot, and its reply.
    pub fn receive(&mut self, queue: usize, patience: Duration) -> Option<(u16, Vec<u8>)> {
        let at = queue as u64 * RING_LEN + USED;
        let start = Instant::now();
        while u16::from_le_bytes(self.read(at + 2)) == self.used[queue] {
            if start.elapsed() > patience {
                return None;
            }
            std::thread::sleep(Duration::from_micros(200));
        }
        let entry = at + 4 + 8 * u64::from(self.used[queue] % QUEUE_LEN);
        self.used[queue] = self.used[queue].wrapping_add(1);
        let slot = (u32::from_le_bytes(self.read(entry)) / 2) as u16;
        let len = u32::from_le_bytes(self.read(entry + 4));
        let mut reply = vec![0; len as usize];
        let buffer = BUFFERS + u64::from(slot) * 2 * BUFFER_LEN + BUFFER_LEN;
        self.memory.read_exact_at(&mut reply, buffer).expect("it is memory");
        Some((slot, reply))
    }

    /// Asks, and waits for the reply: an errno value, or what is behind the header.
    pub fn ask(&mut self, message: &[u8], room: u32) -> Result<Vec<u8>, i32> {
        self.send(REQUESTS, 0, message, room);
        let (slot, reply) = self.receive(REQUESTS, SOON).expect("a reply");
        assert_eq!(slot, 0);
        parse(&reply)
    }

    /// Greets as a kernel does.
    pub fn greet(&mut self) {
        let fields: Vec<u8> = [7_u32, 38, 1 << 17, u32::MAX, u32::MAX]
            .into_iter()
            .flat_map(u32::to_ne_bytes)
            .chain([0; 44])
            .collect();
        let reply = self.ask(&message(26, 1, 0, &fields), 4096).expect("it greets back");
        assert_eq!(u32::from_ne_bytes(reply[..4].try_into().expect("4 bytes")), 7);
    }

    /// Looks a name up. Returns its inode number and size.
    pub fn lookup(&mut self, parent: u64, name: &str) -> Result<(u64, u64), i32> {
        let name = [name.as_bytes(), b"\0"].concat();
        let entry = self.ask(&message(1, 2, parent, &name), 4096)?;
        let number = |at: usize| u64::from_ne_bytes(entry[at..at + 8].try_into().expect("8 bytes"));
        Ok((number(0), number(48)))
    }

    /// Stops a queue, as a monitor does that pauses its guest.
    pub fn stop(&mut self, queue: usize) -> u32 {
        self.frontend.get_vring_base(queue).expect("it stops")
    }
}

/// The message to read `len` bytes at `offset`.
pub fn read_message(unique: u64, ino: u64, offset: u64, len: u32) -> Vec<u8> {
    let mut fields = [0; 40];
    fields[8..16].copy_from_slice(&offset.to_ne_bytes());
    fields[16..20].copy_from_slice(&len.to_ne_bytes());
    message(15, unique, ino, &fields)
}

/// A message of FUSE.
pub fn message(opcode: u32, unique: u64, nodeid: u64, fields: &[u8]) -> Vec<u8> {
    let mut message = Vec::new();
    message.extend_from_slice(&(40 + fields.len() as u32).to_ne_bytes());
    message.extend_from_slice(&opcode.to_ne_bytes());
    message.extend_from_slice(&unique.to_ne_bytes());
    message.extend_from_slice(&nodeid.to_ne_bytes());
    message.extend_from_slice(&[0; 16]);
    message.extend_from_slice(fields);
    message
}

/// An errno value, or what is behind the header.
pub fn parse(reply: &[u8]) -> Result<Vec<u8>, i32> {
    let number = |at: usize| i32::from_ne_bytes(reply[at..at + 4].try_into().expect("4 bytes"));
    assert_eq!(number(0) as usize, reply.len(), "the length in the header");
    match number(4) {
        0 => Ok(reply[16..].to_vec()),
        errno => Err(-errno),
    }
}

pub fn encode(address: u64, len: u32, flags: u16, next: u16) -> [u8; 16] {
    let mut bytes = [0; 16];
    bytes[..8].copy_from_slice(&address.to_le_bytes());
    bytes[8..12].copy_from_slice(&len.to_le_bytes());
    bytes[12..14].copy_from_slice(&flags.to_le_bytes());
    bytes[14..].copy_from_slice(&next.to_le_bytes());
    bytes
}
