//! The kernel's FUSE device.
#![allow(unsafe_code)] // Three ioctls that no crate here wraps.

use std::{
    fs::{File, OpenOptions},
    io,
    os::fd::{AsFd, AsRawFd as _, BorrowedFd, OwnedFd},
    sync::Arc,
};

use tracing::debug;

use super::{fuse::Kernel, wire};
use crate::vfs::Ino;

const DEVICE: &str = "/dev/fuse";

/// `FUSE_DEV_IOC_CLONE`, that is `_IOR(229, 0, uint32_t)`.
const IOC_CLONE: libc::Ioctl = 0x8004_e500_u32 as libc::Ioctl;
/// `FUSE_DEV_IOC_BACKING_OPEN`, that is `_IOW(229, 1, struct fuse_backing_map)`.
const IOC_BACKING_OPEN: libc::Ioctl = 0x4010_e501_u32 as libc::Ioctl;
/// `FUSE_DEV_IOC_BACKING_CLOSE`, that is `_IOW(229, 2, uint32_t)`.
const IOC_BACKING_CLOSE: libc::Ioctl = 0x4004_e502_u32 as libc::Ioctl;

/// `struct fuse_backing_map`.
#[repr(C)]
struct BackingMap {
    descriptor: i32,
    flags: u32,
    padding: u64,
}

/// Opens the device. It belongs to no mount yet.
pub(super) fn open() -> io::Result<OwnedFd> {
    Ok(OpenOptions::new().read(true).write(true).open(DEVICE)?.into())
}

/// A descriptor of its own for another thread, with its own queue of requests that are being worked on. A reply must
/// go to the descriptor that its request was read from.
pub(super) fn clone_for_thread(session: BorrowedFd<'_>) -> io::Result<OwnedFd> {
    let clone: File = open()?.into();
    let session = session.as_raw_fd() as u32;
    // SAFETY: FUSE_DEV_IOC_CLONE reads one u32, which outlives the call; both descriptors are open.
    check(unsafe { libc::ioctl(clone.as_raw_fd(), IOC_CLONE, &raw const session) })?;
    Ok(clone.into())
}

fn check(returned: i32) -> io::Result<i32> {
    if returned < 0 { Err(io::Error::last_os_error()) } else { Ok(returned) }
}

/// What a session asks of the kernel by itself.
#[derive(Debug)]
pub(super) struct Device(pub(super) Arc<OwnedFd>);

impl Kernel for Device {
    fn hears(&self) -> bool {
        true
    }

    fn forget_listing(&self, ino: Ino) {
        // ENOENT: the kernel does not know the inode, so it has no listing of it either.
        if let Err(error) = rustix::io::write(&*self.0, &wire::inval_inode(ino.raw())) {
            debug!(%error, "the kernel keeps a listing");
        }
    }

    fn open_backing(&self, file: &File) -> io::Result<u32> {
        let map = BackingMap { descriptor: file.as_raw_fd(), flags: 0, padding: 0 };
        // SAFETY: FUSE_DEV_IOC_BACKING_OPEN reads one fuse_backing_map, which outlives the call.
        let id =
            unsafe { libc::ioctl(self.0.as_fd().as_raw_fd(), IOC_BACKING_OPEN, &raw const map) };
        check(id).map(|id| id as u32)
    }

    fn close_backing(&self, id: u32) {
        // SAFETY: FUSE_DEV_IOC_BACKING_CLOSE reads one u32, which outlives the call.
        let closed =
            unsafe { libc::ioctl(self.0.as_fd().as_raw_fd(), IOC_BACKING_CLOSE, &raw const id) };
        // ENOTCONN or the like: the mount is gone, and all its ids with it.
        if let Err(error) = check(closed) {
            debug!(%error, id, "cannot give a backing id back");
        }
    }
}
