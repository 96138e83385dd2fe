//! The one place where errors become errno values, and where it is decided how loudly they are logged.

use tracing::{debug, error, warn};

use crate::{
    observe::event,
    vfs::{self, ServiceError},
};

/// What the kernel is told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Errno(pub i32);

impl Errno {
    /// The reader was interrupted while it waited.
    pub const INTERRUPTED: Errno = Errno(libc::EINTR);
    /// Everything here is read-only.
    pub const READ_ONLY: Errno = Errno(libc::EROFS);
    /// The kernel should not send this kind of request again.
    pub const NOT_IMPLEMENTED: Errno = Errno(libc::ENOSYS);
    /// The request makes no sense.
    pub const INVALID: Errno = Errno(libc::EINVAL);
    /// There is too much under way.
    pub const AGAIN: Errno = Errno(libc::EAGAIN);
    /// Reading failed.
    pub const IO: Errno = Errno(libc::EIO);
}

/// What the kernel hears of an error that occurred while doing `what`.
pub fn errno(what: &'static str, error: &vfs::Error) -> Errno {
    Errno(match error {
        vfs::Error::NotFound => libc::ENOENT,
        vfs::Error::Stale => libc::ESTALE,
        vfs::Error::NotDirectory => libc::ENOTDIR,
        vfs::Error::IsDirectory => libc::EISDIR,
        vfs::Error::WrongKind => libc::EINVAL,
        vfs::Error::NoAttribute => libc::ENODATA,
        vfs::Error::NoAttributesOfKind => libc::EOPNOTSUPP,
        vfs::Error::TooSmall => libc::ERANGE,
        vfs::Error::Missing(_) => {
            error!(event = event::STORE_INCOMPLETE, what, %error, "the store is incomplete");
            libc::EIO
        }
        vfs::Error::Service(error) => service_errno(what, error),
    })
}

fn service_errno(what: &'static str, error: &ServiceError) -> i32 {
    match error {
        ServiceError::Unavailable { source, .. } => match source.as_io() {
            // The local disk: its own words say more than ours.
            Some(io) => {
                warn!(event = event::DISK_FAILED, what, %error, "the store cannot be read");
                io.raw_os_error().unwrap_or(libc::EIO)
            }
            // Its channel has said so already, once for all readers.
            None => {
                debug!(what, %error, "the store cannot be reached");
                libc::EHOSTUNREACH
            }
        },
        ServiceError::Offline { .. } => {
            debug!(what, %error, "the store may not be asked");
            libc::ENETUNREACH
        }
        ServiceError::TimedOut { .. } => {
            debug!(what, %error, "the store does not answer");
            libc::ETIMEDOUT
        }
        ServiceError::Corrupt { .. } => {
            error!(event = event::CORRUPT, what, %error, "the store gave wrong data");
            libc::EIO
        }
        ServiceError::Invalid(_) => {
            error!(event = event::REQUEST_FAILED, what, %error, "the store refused the request");
            libc::EIO
        }
        ServiceError::Unsupported { .. } => {
            debug!(what, %error, "the store cannot do that");
            libc::EOPNOTSUPP
        }
    }
}
