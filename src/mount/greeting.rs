//! What is agreed on with the kernel before anything else: INIT.

use tracing::{debug, warn};

use super::{
    fuse::{IO_LEN_MAX, Message},
    wire::{self, Reply, Request, TooShort, init},
};

use crate::observe::event;

/// How many requests that nobody waits for in person, read-ahead above all, the kernel may have under way. The
/// default of 12 would let a dozen reads from a dead store block all others.
const BACKGROUND_REQUESTS_MAX: u16 = 16_384;

/// How many file systems may be stacked on each other where files are passed through. One that passes files through
/// counts as a layer, an overlay on top of it as another, and the kernel allows two: so the store itself must not lie
/// on an overlay, or its files are not passed through.
const STACK_DEPTH_MAX: u32 = 1;

/// How a greeting went.
pub(super) enum Greeting {
    /// Both sides speak the same.
    Agreed {
        /// What is said back.
        reply: Message,
        /// Whether files can be passed through.
        can_pass_through: bool,
    },
    /// The kernel is to greet again, with the version in this reply.
    Again(Message),
    /// There is no version that both speak.
    Refused,
}

/// `struct fuse_init_in` and `struct fuse_init_out`. Only a kernel that is `ours` can be lent files to pass through.
pub(super) fn greet(mut request: Request<'_>, ours: bool) -> Result<Greeting, TooShort> {
    let (major, minor) = (request.u32()?, request.u32()?);
    let max_readahead = request.u32()?;
    let mut flags = u64::from(request.u32()?);
    if flags & init::INIT_EXT != 0 {
        flags |= u64::from(request.u32()?) << 32;
    }
    let mut reply = Reply::empty();
    reply.u32(wire::MAJOR);
    if major > wire::MAJOR {
        // It will ask again with our version.
        reply.u32(wire::MINOR);
        reply.zeros(56);
        return Ok(Greeting::Again(reply.finish(request.unique)));
    }
    if major < wire::MAJOR || minor < wire::MINOR_MIN {
        warn!(
            event = event::KERNEL_TOO_OLD,
            major, minor, "the kernel's FUSE protocol is too old; 7.31 (Linux 5.4) is needed"
        );
        return Ok(Greeting::Refused);
    }
    let wanted = init::ASYNC_READ
        | init::DO_READDIRPLUS
        | init::READDIRPLUS_AUTO
        | init::ASYNC_DIO
        | init::NO_OPEN_SUPPORT
        | init::NO_OPENDIR_SUPPORT
        | init::PARALLEL_DIROPS
        | init::MAX_PAGES
        | init::CACHE_SYMLINKS
        | init::EXPLICIT_INVAL_DATA
        | init::INIT_EXT
        | init::PASSTHROUGH;
    let passthrough = if ours { 0 } else { init::PASSTHROUGH };
    let agreed = wanted & flags & !passthrough;
    debug!(major, minor, max_readahead, "the kernel says hello");
    reply.u32(minor.min(wire::MINOR));
    reply.u32(max_readahead);
    reply.u32(agreed as u32);
    reply.u16(BACKGROUND_REQUESTS_MAX);
    reply.u16(BACKGROUND_REQUESTS_MAX / 4 * 3);
    reply.u32(4096); // the longest WRITE; there will be none
    reply.u32(1_000_000_000); // times are whole seconds, in nanoseconds
    reply.u16((IO_LEN_MAX / 4096) as u16);
    reply.zeros(2); // map alignment
    reply.u32((agreed >> 32) as u32);
    reply.u32(if ours { STACK_DEPTH_MAX } else { 0 });
    reply.zeros(24); // time-out of requests, unused
    let can_pass_through = agreed & init::PASSTHROUGH != 0;
    Ok(Greeting::Agreed { reply: reply.finish(request.unique), can_pass_through })
}
