//! Attaching a filesystem to a directory, and detaching it.
//!
//! Root mounts with `mount(2)`; everybody else needs the helper `fusermount3`, which is setuid.

use std::{
    ffi::CString,
    fs, io,
    io::IoSliceMut,
    mem::MaybeUninit,
    os::{
        fd::{AsRawFd as _, OwnedFd},
        unix::net::UnixStream,
    },
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use rustix::{
    fs::StatxFlags,
    mount::{MountFlags, UnmountFlags},
    net::{RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags},
};

use super::device;

const HELPER: &str = "fusermount3";

/// How far the kernel reads ahead in files that are on this machine, if it lets us say so: two requests of the longest
/// kind, so that the disk has the next one to do while one is copied. With less, a cold disk waits; with more, programs
/// that are only touched here and there start slower.
const READ_AHEAD_KIB: u32 = 2048;

/// The same where files may have to be fetched: whoever reads here and there pays for all of it. What is read from
/// beginning to end is fetched further ahead by the store.
const FAR_READ_AHEAD_KIB: u32 = 256;

/// Why a filesystem could not be attached or detached.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// There is no directory of that name.
    #[error("cannot mount on {mountpoint}: {source}; it has to be a directory that exists")]
    Mountpoint {
        /// Where to.
        mountpoint: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// `/dev/fuse` cannot be opened.
    #[error("cannot open /dev/fuse: {0}; is the fuse module loaded, and may this user use it?")]
    Device(#[source] io::Error),
    /// `mount(2)` failed.
    #[error("cannot mount on {mountpoint}: {source}")]
    Mount {
        /// Where to.
        mountpoint: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// The helper cannot be run.
    #[error("cannot run {HELPER}: {0}; users other than root need it to mount (package fuse3)")]
    Helper(#[source] io::Error),
    /// The helper failed.
    #[error("{HELPER} failed: {0}")]
    HelperFailed(String),
    /// The filesystem could not be detached.
    #[error("cannot unmount {mountpoint}: {source}")]
    Unmount {
        /// Where from.
        mountpoint: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// It is in use.
    #[error("{0} is in use")]
    Busy(PathBuf),
}

/// A filesystem that is attached to a directory.
#[derive(Debug)]
pub struct Mountpoint {
    path: PathBuf,
    /// Its device number. As long as it is attached, nothing else has it.
    device: u64,
}

/// Attaches a new filesystem to the directory `path`. The descriptor carries its requests.
///
/// A dead mount of an earlier process that is still attached there is detached first; `true` says so.
pub fn mount(path: &Path, allow_other: bool) -> Result<(Mountpoint, OwnedFd, bool), Error> {
    let stale = detach_stale(path)?;
    let no_directory = |source| Error::Mountpoint { mountpoint: path.to_owned(), source };
    let path = fs::canonicalize(path).map_err(no_directory)?;
    if !fs::metadata(&path).map_err(no_directory)?.is_dir() {
        return Err(no_directory(io::ErrorKind::NotADirectory.into()));
    }
    let requests = match rustix::process::geteuid().is_root() {
        true => mount_as_root(&path, allow_other)?,
        false => mount_by_helper(&path, allow_other)?,
    };
    match device_at(&path) {
        Ok(device) => Ok((Mountpoint { path, device }, requests, stale)),
        Err(source) => {
            detach(&path)?;
            Err(Error::Mount { mountpoint: path, source })
        }
    }
}

/// Detaches what is left at `path` of a filesystem whose process died. `false` if there is nothing like that.
pub fn detach_stale(path: &Path) -> Result<bool, Error> {
    // Attributes may be cached, statfs never is. A connection that is just being torn down aborts it.
    match rustix::fs::statfs(path) {
        Err(rustix::io::Errno::NOTCONN | rustix::io::Errno::CONNABORTED) => {
            detach(path)?;
            Ok(true)
        }
        Ok(_) | Err(_) => Ok(false),
    }
}

impl Mountpoint {
    /// Where it is attached.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Lets the kernel read further ahead than it does by default, in requests that are as much longer: what is here
    /// (`is_local`) costs little to read, a request a lot. Only root may; the session must be running.
    pub fn read_further_ahead(&self, is_local: bool) -> io::Result<()> {
        let (major, minor) = (rustix::fs::major(self.device), rustix::fs::minor(self.device));
        let setting = format!("/sys/class/bdi/{major}:{minor}/read_ahead_kb");
        let kib = if is_local { READ_AHEAD_KIB } else { FAR_READ_AHEAD_KIB };
        fs::write(setting, kib.to_string())
    }

    /// Its device number.
    pub fn device(&self) -> u64 {
        self.device
    }

    /// What asks it whether it lives.
    pub fn probe(&self) -> Probe {
        Probe::new(self.path.clone(), self.device)
    }

    /// Whether it is still attached there, and nothing lies over it. It is not asked itself.
    pub fn is_attached(&self) -> bool {
        device_at(&self.path).is_ok_and(|device| device == self.device)
    }

    /// Detaches the filesystem if nobody uses it; [`Error::Busy`] otherwise.
    pub fn unmount(&self) -> Result<(), Error> {
        if !rustix::process::geteuid().is_root() {
            return match run_helper(&["-u", "-q"], &self.path) {
                Err(Error::HelperFailed(_)) if self.is_attached() => {
                    Err(Error::Busy(self.path.clone()))
                }
                other => other,
            };
        }
        match rustix::mount::unmount(&self.path, UnmountFlags::NOFOLLOW) {
            Ok(()) => Ok(()),
            Err(rustix::io::Errno::BUSY) => Err(Error::Busy(self.path.clone())),
            // Somebody else was faster.
            Err(rustix::io::Errno::INVAL) => Ok(()),
            Err(error) => {
                Err(Error::Unmount { mountpoint: self.path.clone(), source: error.into() })
            }
        }
    }

    /// Takes the filesystem out of the tree of files. Whoever uses it may go on as long as it is served.
    pub fn detach(&self) -> Result<(), Error> {
        detach(&self.path)
    }
}

fn detach(path: &Path) -> Result<(), Error> {
    if !rustix::process::geteuid().is_root() {
        return run_helper(&["-u", "-z", "-q"], path);
    }
    rustix::mount::unmount(path, UnmountFlags::NOFOLLOW | UnmountFlags::DETACH)
        .map_err(|error| Error::Unmount { mountpoint: path.to_owned(), source: error.into() })
}

fn run_helper(args: &[&str], path: &Path) -> Result<(), Error> {
    let mut command = Command::new(HELPER);
    command.args(args).arg("--").arg(path).stdin(Stdio::null());
    let output = command.output().map_err(Error::Helper)?;
    match output.status.success() {
        true => Ok(()),
        false => Err(Error::HelperFailed(helper_said(&output.stderr))),
    }
}

/// Asks a filesystem of ours, through the kernel, something that it knows by itself: no store is asked for it.
///
/// **Not for the process that serves it.** One that is killed while it waits for itself never ends: the threads that
/// would answer are gone, the one that asks cannot be, and so the connection stays open.
#[derive(Debug, Clone)]
pub struct Probe {
    path: PathBuf,
    device: u64,
}

impl Probe {
    /// For the mount with the device number `device` on `path`.
    pub fn new(path: PathBuf, device: u64) -> Self {
        Probe { path, device }
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Its device number.
    pub fn device(&self) -> u64 {
        self.device
    }

    /// Returns once it has answered, or is known to be gone; so not at all while nobody serves it. One that something else is
    /// mounted over cannot be asked by its path, which says nothing against it.
    pub fn ask(&self) -> io::Result<()> {
        if device_at(&self.path)? != self.device {
            return Ok(());
        }
        rustix::fs::statfs(&self.path)?;
        Ok(())
    }
}

/// The device number of what is at `path`. The kernel knows that without asking anybody.
pub(super) fn device_at(path: &Path) -> io::Result<u64> {
    let flags = rustix::fs::AtFlags::STATX_DONT_SYNC;
    let known = rustix::fs::statx(rustix::fs::CWD, path, flags, StatxFlags::empty())?;
    Ok(rustix::fs::makedev(known.stx_dev_major, known.stx_dev_minor))
}

fn helper_said(stderr: &[u8]) -> String {
    String::from_utf8_lossy(stderr).trim().to_owned()
}

fn mount_as_root(path: &Path, allow_other: bool) -> Result<OwnedFd, Error> {
    let device = device::open().map_err(Error::Device)?;
    let mut data = format!(
        "fd={},rootmode=40000,user_id=0,group_id=0,default_permissions",
        device.as_raw_fd()
    );
    if allow_other {
        data.push_str(",allow_other");
    }
    let data = CString::new(data).expect("there is no NUL in it");
    // Without NOSUID the kernel would ask for the capabilities of a file at each exec.
    let flags = MountFlags::RDONLY | MountFlags::NOSUID | MountFlags::NODEV;
    rustix::mount::mount("lazystore", path, "fuse.lazystore", flags, data.as_c_str())
        .map_err(|error| Error::Mount { mountpoint: path.to_owned(), source: error.into() })?;
    Ok(device)
}

/// The helper mounts, and sends the descriptor back over a socket.
fn mount_by_helper(path: &Path, allow_other: bool) -> Result<OwnedFd, Error> {
    let (ours, theirs) = UnixStream::pair().map_err(Error::Helper)?;
    rustix::io::fcntl_setfd(&theirs, rustix::io::FdFlags::empty())
        .map_err(|error| Error::Helper(error.into()))?;
    let mut options =
        String::from("ro,nosuid,nodev,default_permissions,fsname=lazystore,subtype=lazystore");
    if allow_other {
        options.push_str(",allow_other");
    }
    let mut command = Command::new(HELPER);
    command.arg("-o").arg(options).arg("--").arg(path).stdin(Stdio::null());
    command.env("_FUSE_COMMFD", theirs.as_raw_fd().to_string());
    let output = command.output().map_err(Error::Helper)?;
    drop(theirs);
    if !output.status.success() {
        return Err(Error::HelperFailed(helper_said(&output.stderr)));
    }
    receive_descriptor(&ours).map_err(Error::Helper)
}

fn receive_descriptor(socket: &UnixStream) -> io::Result<OwnedFd> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut ancillary = RecvAncillaryBuffer::new(&mut space);
    let mut byte = [0; 1];
    let mut data = [IoSliceMut::new(&mut byte)];
    rustix::net::recvmsg(socket, &mut data, &mut ancillary, RecvFlags::CMSG_CLOEXEC)?;
    for message in ancillary.drain() {
        if let RecvAncillaryMessage::ScmRights(mut descriptors) = message
            && let Some(descriptor) = descriptors.next()
        {
            return Ok(descriptor);
        }
    }
    Err(io::Error::other("it sent no descriptor"))
}
