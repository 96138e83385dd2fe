//! The filesystem brought to a kernel.
//!
//! [`fuse`] answers FUSE messages from a [`crate::vfs::Vfs`] and knows no device; [`session`] moves messages between
//! the kernel's device and `fuse`; [`mountpoint`] attaches and detaches; [`errno`] is the one place where errors
//! become numbers. [`wire`] reads and writes the messages; [`backing`] lets the kernel read files by itself.
//!
//! The codec and the device loop are our own. The `fuser` crate cannot pass on FUSE_INTERRUPT, so a reader that
//! waits for a slow store could not be killed; and [`virtiofs`] needs the same codec without the device.
//!
//! The feature `fuse` brings the device, sessions and mountpoints, the feature `virtiofs` guests. Without either this
//! room is not built.

#[cfg(feature = "fuse")]
mod affinity;
pub mod backing;
#[cfg(feature = "fuse")]
pub mod busy;
#[cfg(feature = "fuse")]
mod device;
pub mod errno;
pub mod fuse;
mod greeting;
mod local_read;
mod measured;
#[cfg(feature = "fuse")]
pub mod mountpoint;
mod outcome;
mod page;
#[cfg(feature = "fuse")]
pub mod session;
#[cfg(feature = "virtiofs")]
pub mod virtiofs;
pub mod wire;

#[cfg(feature = "fuse")]
pub use session::{IoMode, Session, SessionOptions};
