//! The kernel's FUSE device.
#![allow(unsafe_code)] // One ioctl; see `clone_for_thread`.

use std::{
    fs::{File, OpenOptions},
    io,
    os::fd::{AsRawFd as _, OwnedFd},
};

const DEVICE: &str = "/dev/fuse";

/// `FUSE_DEV_IOC_CLONE`, that is `_IOR(229, 0, uint32_t)`.
const IOC_CLONE: libc::Ioctl = 0x8004_e500_u32 as libc::Ioctl;

/// Opens the device. It belongs to no mount yet.
pub(super) fn open() -> io::Result<OwnedFd> {
    Ok(OpenOptions::new().read(true).write(true).open(DEVICE)?.into())
}

/// A descriptor of its own for another thread, with its own queue of requests that are being worked on. A reply must
/// go to the descriptor that its request was read from.
pub(super) fn clone_for_thread(session: &impl std::os::fd::AsRawFd) -> io::Result<OwnedFd> {
    let clone: File = open()?.into();
    let session = session.as_raw_fd() as u32;
    // SAFETY: FUSE_DEV_IOC_CLONE reads one u32, which outlives the call; both descriptors are open.
    match unsafe { libc::ioctl(clone.as_raw_fd(), IOC_CLONE, &raw const session) } {
        0 => Ok(clone.into()),
        _ => Err(io::Error::last_os_error()),
    }
}
